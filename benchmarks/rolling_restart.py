"""A rollout of three replicas under load: who fails, who loses a place, how long each takes.

    python benchmarks/rolling_restart.py [--waiters 1000] [--takers 8]

A store, three service processes behind a TCP balancer, and callers of the SDK in this process:
--waiters stand in line for one slot (nine in ten over a channel, the others over HTTP), --takers
take and settle as fast as they can. Each replica is replaced: a new one starts, the old one gets
SIGTERM while the balancer goes on sending it connections, and a third of the line is served.

failed          acquires and settles that raised in a caller's program
out of place    waiters that were served before somebody who had come earlier
granted, spent  tokens that takers were granted, and what the store says was spent
exit            the longest that a replica took to end, seconds
codes           exit codes

Bar: none failed, none out of place, granted equal to spent.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from harness import Report, options, say
from harness import store as a_store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    """Measure once."""
    from tests_support.rollout import Fleet, rolling_restart  # noqa: PLC0415  # once it is found

    parser = options(__doc__)
    parser.add_argument("--waiters", type=int, default=1000)
    parser.add_argument("--takers", type=int, default=8)
    given = parser.parse_args()
    with a_store(given.server) as where, tempfile.TemporaryDirectory() as home:
        settings = {"SLUICEGATE_LOG_LEVEL": "error"}
        with Fleet(Path(home), where.url, settings) as fleet:
            began = time.monotonic()
            found = asyncio.run(
                rolling_restart(
                    fleet,
                    given.waiters,
                    over_http=given.waiters // 10,
                    takers=given.takers,
                    say=say,
                )
            )
            took = time.monotonic() - began
    for error in found.errors[:5]:
        say(error)
    report = Report(given.json)
    report.table(
        "rolling restart of three replicas",
        [
            {
                "waiters": found.waiters,
                "failed": len(found.errors),
                "out of place": found.out_of_place,
                "granted": found.granted,
                "spent": found.spent,
                "exit, s": max(took for _, took in found.exits),
                "codes": " ".join(str(code) for code, _ in found.exits),
                "in all, s": took,
            }
        ],
    )
    report.close()


if __name__ == "__main__":
    main()
