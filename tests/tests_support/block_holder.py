"""A process that holds a block and makes no more calls: `python -m tests_support.block_holder URL`.

It says `held` when one call was handed out.
"""

import sys
import threading

from client_sdk import SyncLimiter


def main() -> None:
    """Call until a call is handed out, and then do nothing."""
    limiter = SyncLimiter(sys.argv[1], prefetch=100)
    handed = False
    while not handed:
        with limiter.acquire("p/held", tokens=1) as lease:
            handed = lease.id.startswith("block.")
    sys.stdout.write("held\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
