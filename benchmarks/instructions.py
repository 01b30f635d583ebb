"""How many instructions of the store a call takes: what no load of the machine can change.

    python benchmarks/instructions.py [--server redis-server] [--json FILE]

The server runs under callgrind (valgrind), which counts all that it executes: commands are read,
decided, answered. An engine in this process calls its scripts, one call at a time and 64 in one
tick. Three limits, breaker and lease record included. Takes about a minute; does nothing where
valgrind is not installed.
"""

import argparse
import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable

import uvloop
from harness import Replica, Report, Store, Value, options
from queue_instructions import TOOLS, Counter, counted_store

from limiter_service.engine import expectation
from limiter_wire import Acquire, Granted, Settle, Usage

AT_ONCE = 64
CONFIG = """
pools:
  bench:
    models:
      "*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}
"""
BESIDE = 1.0
"""Seconds in which what calls leave to be done later is done, without being counted."""

USED = Usage(input_tokens=60, output_tokens=20)


class Calls:
    """An engine that is called one by one, or 64 times in one tick."""

    def __init__(self, replica: Replica) -> None:
        self._engine, self._numbers = replica.engine, itertools.count()
        self.leases: list[str] = []

    async def acquire(self, budget: int) -> None:
        """One acquire of a budget."""
        name = f"{next(self._numbers):032x}"
        request = Acquire(resource=f"bench/m{budget}", tokens=100, request_id=name)
        granted = await self._engine.acquire(request)
        assert isinstance(granted, Granted)
        self.leases.append(granted.lease)

    async def settle(self, _budget: int) -> None:
        """Settle the lease that has been open for longest."""
        await self._engine.settle(Settle(lease=self.leases.pop(0), usage=USED))

    async def check(self, budget: int) -> None:
        """Look at a budget."""
        await self._engine.check(Acquire(resource=f"bench/m{budget}", tokens=100))


async def one_by_one(call: Callable[[int], Awaitable[None]]) -> None:
    """64 budgets, one after another."""
    for budget in range(AT_ONCE):
        await call(budget)


async def together(call: Callable[[int], Awaitable[None]]) -> None:
    """64 budgets in one tick."""
    await asyncio.gather(*map(call, range(AT_ONCE)))


async def of_one(call: Callable[[int], Awaitable[None]]) -> None:
    """One budget, 64 times in one tick."""
    await asyncio.gather(*(call(0) for _ in range(AT_ONCE)))


def bare(over: Store, counter: Counter) -> None:
    """What any command costs, and what any script does."""
    sha = over.redis.script_load("return 1")
    for name, call in (
        ("PING", over.redis.ping),
        ("EVALSHA return 1", lambda: over.redis.evalsha(sha, 0)),
    ):
        with counter.of(name, AT_ONCE):
            for _ in range(AT_ONCE):
                call()
    pipeline = over.redis.pipeline(transaction=False)
    for _ in range(AT_ONCE):
        pipeline.evalsha(sha, 0)
    with counter.of("EVALSHA return 1, 64 in a pipeline", AT_ONCE):
        pipeline.execute()


async def scripts(over: Store, counter: Counter) -> None:
    """What the engine's calls cost."""
    # Learned sizes are exchanged every few seconds, which here is every few calls: not at all.
    expectation._FRESH = expectation._PAUSE = 1e9  # noqa: SLF001
    replica = Replica(over.url, CONFIG)
    calls = Calls(replica)
    ways = {
        "one by one": one_by_one,
        "64 budgets in one tick": together,
        "64 of one budget in one tick": of_one,
    }
    try:
        for counted in (False, True):  # the first time scripts are compiled, and states made
            for way, run in ways.items():
                for name in ("acquire", "settle"):
                    await asyncio.sleep(BESIDE)
                    if counted:
                        with counter.of(f"{name}, {way}", AT_ONCE):
                            await run(getattr(calls, name))
                    else:
                        await run(getattr(calls, name))
        await asyncio.sleep(BESIDE)
        with counter.of("check, one by one", AT_ONCE):
            await one_by_one(calls.check)
    finally:
        await replica.engine.passes.aclose()
        await replica.client.aclose()


def measure(asked: argparse.Namespace, report: Report) -> None:
    """Print the table."""
    with counted_store(asked.server) as (over, counter):
        with counter.counting():
            bare(over, counter)
            uvloop.run(scripts(over, counter))
        floor = counter.found["EVALSHA return 1, 64 in a pipeline"]
        rows: list[dict[str, Value]] = [
            {"": name, "instructions": count, "of an EVALSHA in a pipeline": count / floor}
            for name, count in counter.found.items()
        ]
        report.table(f"{over.name}: instructions of the store for each call", rows)


def main() -> None:
    """Measure, where that is possible."""
    parser = options(__doc__)
    asked = parser.parse_args()
    if not all(map(shutil.which, TOOLS)):
        print("valgrind is not installed")
        return
    report = Report(asked.json)
    measure(asked, report)
    report.close()


if __name__ == "__main__":
    main()
