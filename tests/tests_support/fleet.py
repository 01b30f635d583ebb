"""Many processes that share one budget through the SDK.

`python -m tests_support.fleet COUNT` forks so many: a plan on stdin, what they were granted on
stdout. Times are the host's clock, which a Redis on the same host reads too.
"""

import asyncio
import multiprocessing
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

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
    done = subprocess.run(
        [sys.executable, "-m", "tests_support.fleet", str(processes)],
        cwd=Path(__file__).parents[1],
        input=msgspec.json.encode(plan),
        stdout=subprocess.PIPE,
        check=True,
        timeout=100,
    )
    return msgspec.json.decode(done.stdout, type=list[Record])


def _member(plan: Plan, told: Connection) -> None:
    """One process of the fleet."""
    told.send_bytes(msgspec.json.encode(asyncio.run(_process(plan))))


def main() -> None:
    """Fork them, which is ten times as fast as to start them, and hear what each was granted."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    forking = multiprocessing.get_context("fork")
    pipes = [forking.Pipe(duplex=False) for _ in range(int(sys.argv[1]))]
    members = [forking.Process(target=_member, args=(plan, told)) for _, told in pipes]
    for member in members:
        member.start()
    for _, told in pipes:
        told.close()
    records: list[Record] = []
    for heard, _ in pipes:
        records += msgspec.json.decode(heard.recv_bytes(), type=list[Record])
    for member in members:
        member.join()
        assert member.exitcode == 0
    sys.stdout.buffer.write(msgspec.json.encode(records))


if __name__ == "__main__":
    main()
