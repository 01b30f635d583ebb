"""A threaded worker: the sync client, shared by a pool of threads.

    sluicegate serve
    python examples/threads.py

Without a pools file the service has an example pool, which this program uses.
"""

import argparse
import random
import time
from concurrent.futures import ThreadPoolExecutor

from client_sdk import LimiterOptions, Outcome, RateLimited, SyncLimiter

THREADS = 8


def call_provider(chance: random.Random) -> tuple[int, int]:
    """Stands for the call that costs money; input and output tokens, or an exception."""
    time.sleep(chance.uniform(0.02, 0.1))
    if chance.random() < 0.1:  # noqa: PLR2004 - one call in ten
        raise TimeoutError("the provider did not answer")
    return 120, chance.randint(20, 180)


def ask(limiter: SyncLimiter, resource: str, chance: random.Random) -> Outcome | None:
    """Reserve, call, report; how it ended, None when there was no room in time."""
    try:
        with limiter.acquire(
            resource, input_tokens=120, max_output_tokens=180, max_wait=20
        ) as lease:
            used_input, used_output = call_provider(chance)
            lease.used(input_tokens=used_input, output_tokens=used_output)
    except TimeoutError:
        return Outcome.TIMEOUT  # reported as such when the block ended; the tokens stay spent
    except RateLimited as refusal:
        print(f"no room in {refusal.limit}, next in {refusal.retry_after:.1f} s")
        return None
    return Outcome.SUCCESS


def main() -> None:
    """Ask from every thread and print how the calls ended."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--url", default="http://127.0.0.1:8080", help="where the service is")
    options.add_argument("--resource", default="example/gpt-4o", help="pool/model")
    options.add_argument("--calls", type=int, default=20)
    given = options.parse_args()

    chance = random.Random()  # noqa: S311 - a simulated provider
    connections = LimiterOptions(connections=THREADS)  # a thread holds one while it asks
    with (
        SyncLimiter(given.url, tenant="threads", options=connections) as limiter,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        calls = [threads.submit(ask, limiter, given.resource, chance) for _ in range(given.calls)]
        outcomes = [call.result() for call in calls]
    for outcome in sorted(set(outcomes), key=str):
        print(f"{outcomes.count(outcome)} calls: {outcome or 'no room'}")


if __name__ == "__main__":
    main()
