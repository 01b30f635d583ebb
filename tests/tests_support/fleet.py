"""Many processes that share one budget through the SDK.

`python -m tests_support.fleet` is one of them: a plan on stdin, what it was granted on
stdout. Times are the host's clock, which a Redis on the same host reads too.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from client_sdk import Limiter, LimiterOptions, RateLimited


class Plan(msgspec.Struct, frozen=True):
    """What each task of each process does: `rounds` acquires, over `resources` in turn.

    `greedy` tasks go on until not even one token is left. With `prefetch` processes hold blocks.
    """

    url: str
    tasks: int
    resources: list[str]
    rounds: int = 0
    greedy: bool = False
    max_wait: float = 0.0
    prefetch: int = 0


class Record(msgspec.Struct, frozen=True):
    """One acquire: tokens granted (0: refused), when it was asked and answered, and whether it was
    handed out of a block.
    """

    resource: str
    tokens: int
    asked: float
    answered: float
    handed: bool = False


async def _take(limiter: Limiter, plan: Plan, resource: str, tokens: int) -> Record:
    asked, handed = time.time(), False
    try:
        lease = await limiter.acquire(resource, tokens=tokens, max_wait=plan.max_wait)
        handed = plan.prefetch > 0 and lease.id.startswith("block.")
    except RateLimited:
        tokens = 0
    return Record(resource, tokens, asked, time.time(), handed)


async def _task(limiter: Limiter, plan: Plan, nth: int, records: list[Record]) -> None:
    if plan.greedy:
        size = 1 + nth % 7
        while size:
            records.append(await _take(limiter, plan, plan.resources[0], size))
            if not records[-1].tokens:
                size = 0 if size == 1 else 1
    else:
        for i in range(nth, plan.tasks * plan.rounds, plan.tasks):
            resource = plan.resources[i % len(plan.resources)]
            records.append(await _take(limiter, plan, resource, 1))


async def _process(plan: Plan) -> list[Record]:
    records: list[Record] = []
    async with (
        Limiter(plan.url, options=LimiterOptions(timeout=30), prefetch=plan.prefetch) as limiter,
        asyncio.TaskGroup() as group,
    ):
        for nth in range(plan.tasks):
            group.create_task(_task(limiter, plan, nth, records))
    return records


def run(plan: Plan, processes: int) -> list[Record]:
    """The records of *processes* processes that carry out *plan* side by side."""
    command = [sys.executable, "-m", "tests_support.fleet"]
    running = [
        subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    text = msgspec.json.encode(plan).decode()
    for each in running:
        assert each.stdin is not None
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in running:  # all at once, when the slowest has started
        assert each.stdin is not None
        each.stdin.write(text + "\n")
        each.stdin.flush()
    raw: list[Any] = []
    for each in running:
        answer, _ = each.communicate(timeout=50)
        assert each.returncode == 0
        raw += json.loads(answer)
    return msgspec.convert(raw, list[Record])


def main() -> None:
    """One process of the fleet."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    sys.stdout.write(msgspec.json.encode(asyncio.run(_process(plan))).decode())


if __name__ == "__main__":
    main()
