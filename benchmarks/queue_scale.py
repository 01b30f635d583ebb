"""What the queue costs in the store with up to 100,000 waiters, and what a dead replica leaves.

    python benchmarks/queue_scale.py [--most 100000] [--held 10000]

Scripts are called as the service calls them, pipelined, on one real server. CPU is the
server's own (INFO cpu) per operation; read the last line of each block, which says how much
more an operation costs with a hundred times as many waiters. Bar: log n, a factor of 1.67
from 1,000 to 100,000. The shapes of the queue:

1 line             all waiters of one tenant
100 tenants        a line for each
a tenant each      as many lines as waiters
own limits         100 tenants, each with a limit of its own beside the shared one

join     stand in line, forecast included
pass     a pass that finds no room
grant    a pass that serves, per waiter served
fetch    a caller takes its grant
leave    cancel a waiter from anywhere in the queue
bare     take a random member out of a sorted set and a hash of that size, and put it back:
         by how much the machine's memory alone makes every operation dearer

Then a process that holds --held callers is killed while nothing can be served and others
wait before, between and behind its callers: the time until all of its places are gone, and
afterwards what the others got: all of it, in order, with no slot lost. Bar: 5 s and a beat.
"""

import asyncio
import contextlib
import itertools
import math
import multiprocessing
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, cast

from harness import Replica, Report, Store, Value, grants_heard, options, replicas, say, store
from queue_crowd import AT_ONCE, SHAPES, TOKENS, Crowd, config

from limiter_service.store.keys import Keys, request_digest
from limiter_wire import Acquire, Granted, Settle

MICRO = 1_000_000
SAMPLE = 1000
BARE = """
local member = redis.call("ZRANDMEMBER", KEYS[1])
local digest = string.sub(member, -16)
local ticket = redis.call("HGET", KEYS[2], digest)
redis.call("ZREM", KEYS[1], member)
redis.call("HDEL", KEYS[2], digest)
redis.call("ZADD", KEYS[1], 0, member)
redis.call("HSET", KEYS[2], digest, ticket)
"""


class Meter:
    """Server CPU of what is done within `with`, in microseconds per operation."""

    def __init__(self, where: Store) -> None:
        self._where = where
        self.found: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, name: str, count: Callable[[], int]) -> Iterator[None]:
        """Measure; *count* says afterwards how many operations it was."""
        before = self._where.cpu()
        yield
        self.found[name] = (self._where.cpu() - before) / max(1, count()) * MICRO


def touch(where: Store, count: int) -> None:
    """What no queue could avoid, so often."""
    keys = Keys("bench")
    pipeline = where.redis.pipeline(transaction=False)
    for _ in range(count):
        pipeline.eval(BARE, 2, keys.order(), keys.tickets())
    pipeline.execute()


async def checkpoint(where: Store, crowd: Crowd, meter: Meter, size: int) -> None:
    """Let the crowd grow to *size*, measuring the last joins; then the other operations."""
    sample = min(SAMPLE, size // 4)
    await crowd.join(size - len(crowd.waiting) - sample)
    with meter.of("join", lambda: sample):
        await crowd.join(sample)
    granted: set[bytes] = set()
    with meter.of("grant", lambda: len(granted)):
        while len(granted) < sample:
            granted |= set(await crowd.serve(plenty=True))
    with meter.of("fetch", lambda: len(granted)):
        await crowd.fetch(list(granted))
    while served := await crowd.serve(plenty=False):  # a token of an earlier plenty
        await crowd.fetch(served)
    with meter.of("pass", lambda: 100):
        for _ in range(100):
            assert not await crowd.serve(plenty=False)
    with meter.of("leave", lambda: sample):
        await crowd.leave(crowd.somebody(sample))
    with meter.of("bare", lambda: sample):
        touch(where, sample)


async def costs(where: Store, report: Report, most: int) -> None:
    """Every shape at four sizes."""
    rows: list[dict[str, Value]] = []
    for shape in SHAPES:
        where.redis.execute_command("FLUSHALL", "SYNC")
        empty = where.memory()
        async with replicas(where.url, config(TOKENS, None), 1) as (replica,):
            crowd, meter = Crowd(where, replica, shape), Meter(where)
            first: dict[str, float] = {}
            await crowd.drain()
            for size in (most // 1000, most // 100, most // 10, most):
                meter.found = {}
                await checkpoint(where, crowd, meter, size)
                memory = (where.memory() - empty) / len(crowd.waiting)
                row: dict[str, Value] = {"": shape.name, "waiters": size}
                row |= {f"{name} µs": value for name, value in meter.found.items()}
                rows.append(row | {"bytes each": round(memory)})
                first = meter.found if size == most // 100 else first
                say(f"{shape.name}: {size:,} waiters")
            grown: dict[str, Value] = {"": f"{shape.name}: a hundred times", "waiters": 100}
            grown |= {f"{name} µs": meter.found[name] / first[name] for name in first}
            rows.append(grown | {"bytes each": 0})
    report.table("server CPU of one operation", rows)
    bound = math.log(most) / math.log(most / 100)
    print(f"log n would be a factor of {bound:.2f} from {most // 100:,} to {most:,}")


CRASH = """
pools:
  crash:
    models:
      m: {concurrency: 100}
    queue: {max_waiters: 1000000, max_wait: 2h}
    lease_ttl: 10m
"""
TENANTS = 20


def request(number: int) -> Acquire:
    """One of many, spread over tenants."""
    return Acquire(
        resource="crash/m",
        tokens=1,
        tenant=f"t{number % TENANTS}",
        max_wait=7200.0,
        request_id=str(number),
    )


async def wait_in_turn(replica: Replica, numbers: Iterable[int]) -> list[asyncio.Task[Any]]:
    """Callers that are held, each in line before the next comes."""
    tasks = []
    for number in numbers:
        await replica.engine.acquire(request(number), hold=0.0)
        tasks.append(asyncio.create_task(replica.engine.acquire(request(number))))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    return tasks


def hold(url: str, first: int, count: int, ready: Connection) -> None:
    """The process that is killed: hold callers, say when all of them wait."""

    async def run() -> None:
        async with replicas(url, CRASH, 1) as (replica,):
            tasks = await wait_in_turn(replica, range(first, first + count))
            await asyncio.sleep(2.0)
            ready.send(len(tasks))
            await asyncio.gather(*tasks)

    asyncio.run(run())


async def crash(where: Store, report: Report, held: int) -> None:
    """Kill a process that holds callers, and see what becomes of them and of the others."""
    where.redis.flushall()
    loop, others = asyncio.get_running_loop(), 1000
    async with replicas(where.url, CRASH, 1) as (replica,):
        engine = replica.engine
        taken = [await engine.acquire(request(-number)) for number in range(1, 101)]
        before = await wait_in_turn(replica, range(others))
        here, there = multiprocessing.Pipe()
        victim = multiprocessing.get_context("spawn").Process(
            target=hold, args=(where.url, others, held, there)
        )
        victim.start()
        assert await loop.run_in_executor(None, here.recv) == held
        behind = await wait_in_turn(replica, range(others + held, 2 * others + held))
        say(f"{depth(where):,} wait; killing the process that holds {held:,}")
        victim.kill()
        killed = time.monotonic()
        while depth(where) > 2 * others and time.monotonic() < killed + 60:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        gone, left = time.monotonic() - killed, depth(where) - 2 * others
        say(f"{left:,} places of it are left after {gone:.1f} s")

        async def finish(task: asyncio.Task[Any]) -> None:
            await engine.settle(Settle(lease=(await task).lease))

        numbers = [*range(others), *range(others + held, 2 * others + held)]
        began = time.monotonic()
        async with grants_heard(replica.client, "crash") as heard:
            for granted in taken:
                assert isinstance(granted, Granted)
                await engine.settle(Settle(lease=granted.lease))
            await asyncio.gather(*map(finish, before + behind))
            took = time.monotonic() - began
        names = {request_digest(f"t{n % TENANTS}", str(n)): n for n in numbers}
        order = [names[digest] for digest in dict.fromkeys(heard) if digest in names]
        view = await engine.view("crash/m", "t0")
        await asyncio.to_thread(victim.join)
        wrong = sum(
            a > b
            for tenant in range(TENANTS)
            for a, b in itertools.pairwise([n for n in order if n % TENANTS == tenant])
        )
    report.table(
        f"a process that holds {held:,} callers is killed",
        [
            {
                "s until its places are gone": gone,
                "left": left,
                "others": len(order),
                "out of turn": wrong,
                "s to serve them": took,
                "slots lost": view.in_flight or 0,
                "queue left": depth(where),
            }
        ],
    )


def depth(where: Store) -> int:
    """How many wait, as the queue's own record says."""
    text = cast("bytes | None", where.redis.get("sg:{crash}:q"))
    return int(struct.unpack_from("<d", text)[0]) if text else 0


def main() -> None:
    """Start a store and measure."""
    parser = options(__doc__)
    parser.add_argument("--most", type=int, default=100_000, help="waiters; 100,000 at least")
    parser.add_argument("--held", type=int, default=10_000, help="callers of the killed process")
    given = parser.parse_args()
    report = Report(given.json)
    with store(given.server) as where:
        say(where.name)
        asyncio.run(crash(where, report, given.held))
        asyncio.run(costs(where, report, given.most))
    report.close()


if __name__ == "__main__":
    main()
