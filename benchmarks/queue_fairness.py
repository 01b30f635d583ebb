"""Fair order in the queue, through several replicas over one real store.

    python benchmarks/queue_fairness.py [--seconds 80] [--window 60] [--replicas 3]

Engines in this process stand for replicas; each has its own connection, passes and hints.

shares    tenants of weight 1:1:4 saturate a budget. For every window of --window seconds
          (and of a tenth of it), granted tokens against 1:1:4: the largest deviation of a
          tenant from its share. Bar: 5 %.
late      two tenants saturate it, a third of weight 4 arrives: its part of what is granted
          from then on. It should be 4/6 from the start.
flood     urgent requests (priority 0) at 30 % of the budget, without and with a thousand
          callers of priority 9 that want all of it. Bar: the urgent p99 wait rises by no
          more than one refill interval, the time in which the bucket fills.
order     requests of one tenant that join one after another through all replicas, beside
          another tenant: how many are served out of turn. Bar: none.

Grants are read from what passes publish, in the order of the passes. Requests are 200 to 2,000
tokens, drawn with a fixed seed.
"""

import argparse
import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec
from harness import (
    Replica,
    Report,
    Store,
    Value,
    ended,
    options,
    quantile,
    replicas,
    say,
    store,
)

from limiter_service.store.keys import Keys, request_digest
from limiter_wire import Acquire, Granted, Waiting

RATE = 40_000  # tokens per second
BURST = 1.0  # seconds until an empty bucket is full
SMALL, LARGE = 200, 2000
WEIGHTS = {"a": 1.0, "b": 1.0, "c": 4.0}
CALLERS = 8  # of each tenant at each replica
FLOOD = 1000
CONFIG = f"""
pools:
  bench:
    models:
      m:
        limits: [{{meter: tokens, limit: {RATE}, per: second, burst: {RATE * BURST:.0f}}}]
    tenants:
      c: {{weight: 4}}
    queue: {{max_waiters: 100000, max_wait: 1h}}
"""


class Grant(msgspec.Struct, frozen=True):
    """One grant: when it was heard of, on the monotonic clock, whose, how much."""

    at: float
    tenant: str
    tokens: int


class Journal:
    """Every grant by the queue in order, from the channel on which passes say whom they served."""

    def __init__(self) -> None:
        self.grants: list[Grant] = []
        self.order: list[bytes] = []
        self._asked: dict[bytes, tuple[str, int]] = {}

    def asks(self, tenant: str, request_id: str, tokens: int) -> None:
        """Remember what a request is."""
        self._asked[request_digest(tenant, request_id)] = tenant, tokens

    def hear(self, message: bytes) -> None:
        """Take in what one pass says."""
        at = time.monotonic()
        for start in range(8, len(message), 24):
            digest = message[start + 8 : start + 24]
            asked = self._asked.pop(digest, None)  # a message may name one twice
            if asked is not None:
                self.order.append(digest)
                self.grants.append(Grant(at, *asked))


@contextlib.asynccontextmanager
async def saturation(where: Store, count: int) -> AsyncIterator["Callers"]:
    """Replicas over an empty store, and who calls them; all ended with the block."""
    where.redis.flushall()
    async with replicas(where.url, CONFIG, count) as them, journal(them[0]) as heard:
        callers = Callers(them, heard)
        try:
            yield callers
        finally:
            await ended(callers.tasks)


@contextlib.asynccontextmanager
async def journal(replica: Replica) -> AsyncIterator[Journal]:
    """Listen until the block is left."""
    found = Journal()
    async with replica.client.subscription() as subscription:
        await subscription.subscribe(Keys("bench").channel())

        async def follow() -> None:
            while True:
                message = await subscription.message(1.0)
                if message is not None:
                    found.hear(message[1])

        task = asyncio.create_task(follow())
        try:
            yield found
        finally:
            await ended([task])


class Callers:
    """Tasks that ask again and again, spread over the replicas."""

    def __init__(self, them: Sequence[Replica], heard: Journal) -> None:
        self._replicas, self.heard = them, heard
        self.chance = random.Random(1)
        self._number = 0
        self.tasks: list[asyncio.Task[None]] = []

    def request(self, tenant: str, priority: int = 5) -> Acquire:
        """The next request of a tenant."""
        self._number += 1
        tokens = self.chance.randint(SMALL, LARGE)
        self.heard.asks(tenant, str(self._number), tokens)
        return Acquire(
            resource="bench/m",
            tokens=tokens,
            tenant=tenant,
            priority=priority,
            max_wait=3600.0,
            request_id=str(self._number),
        )

    async def acquire(self, request: Acquire, hold: float | None = None) -> Granted | Waiting:
        """Ask the replicas in turn."""
        number = int(request.request_id or 0)
        return await self._replicas[number % len(self._replicas)].engine.acquire(request, hold)

    def saturate(self, tenant: str, callers: int, priority: int = 5) -> None:
        """Keep so many requests of a tenant in the queue."""

        async def loop() -> None:
            while True:
                await self.acquire(self.request(tenant, priority))

        self.tasks += [asyncio.create_task(loop()) for _ in range(callers)]


async def shares(where: Store, count: int, seconds: float) -> list[Grant]:
    """What saturated tenants were granted, from the moment that the bucket is empty."""
    async with saturation(where, count) as callers:
        for tenant in WEIGHTS:
            callers.saturate(tenant, CALLERS * count)
        await asyncio.sleep(3 * BURST)
        began = time.monotonic()
        await asyncio.sleep(seconds)
    return [grant for grant in callers.heard.grants if grant.at >= began]


def deviations(grants: Sequence[Grant], width: float) -> Iterator[dict[str, float]]:
    """For every window of *width* seconds that begins at a grant: each tenant's granted
    tokens over its share of them, less one.
    """
    total = sum(WEIGHTS.values())
    sums: Counter[str] = Counter()
    left = 0
    for grant in grants:
        sums[grant.tenant] += grant.tokens
        while grant.at - grants[left].at > width:
            sums[grants[left].tenant] -= grants[left].tokens
            left += 1
            granted = sum(sums.values())
            yield {t: sums[t] / (granted * w / total) - 1 for t, w in WEIGHTS.items()}


async def late(where: Store, count: int, seconds: float) -> list[tuple[float, float]]:
    """The part of a tenant of weight 4 in the first seconds after its arrival."""
    async with saturation(where, count) as callers:
        for tenant in ("a", "b"):
            callers.saturate(tenant, 100)
        await asyncio.sleep(5 * BURST)
        began = time.monotonic()
        callers.saturate("c", 100)
        await asyncio.sleep(seconds)
    rows = []
    for until in (1.0, 2.0, 5.0, seconds):
        granted = [g for g in callers.heard.grants if began <= g.at < began + until]
        its = sum(g.tokens for g in granted if g.tenant == "c")
        rows.append((until, its / sum(g.tokens for g in granted)))
    return rows


async def urgent_waits(where: Store, count: int, seconds: float, flood: int) -> list[float]:
    """Waits of urgent requests that come at 30 % of the budget, beside so many of batch."""
    waits: list[float] = []
    async with saturation(where, count) as callers:
        callers.saturate("batch", flood, priority=9)

        async def one() -> None:
            answer = await callers.acquire(callers.request("urgent", 0))
            waits.append(answer.waited)

        await asyncio.sleep(3 * BURST)
        urgent: list[asyncio.Task[None]] = []
        due = began = time.monotonic()
        while due < began + seconds:
            due += callers.chance.expovariate(0.3 * RATE / ((SMALL + LARGE) / 2))
            await asyncio.sleep(due - time.monotonic())
            urgent.append(asyncio.create_task(one()))
        _, lost = await asyncio.wait(urgent, timeout=10 * BURST)
        await ended(urgent)
    return waits + [10 * BURST] * len(lost)


async def out_of_turn(where: Store, count: int, requests: int) -> tuple[int, int]:
    """How many requests of one tenant were served, and how many of them out of turn."""
    async with saturation(where, count) as callers:
        callers.saturate("b", 20)
        await asyncio.sleep(2 * BURST)
        joined: list[bytes] = []
        waiting = []
        for _ in range(requests):
            request = callers.request("a")
            answer = await callers.acquire(request, hold=0.0)  # then it stands in line
            joined.append(request_digest("a", str(request.request_id)))
            if isinstance(answer, Granted):  # its turn was before b's: no pass says so
                callers.heard.order.append(joined[-1])
            waiting.append(asyncio.create_task(callers.acquire(request)))
        await asyncio.gather(*waiting)
    served = [digest for digest in callers.heard.order if digest in set(joined)]
    return len(served), sum(a != b for a, b in zip(served, joined, strict=False))


async def measure(where: Store, report: Report, given: argparse.Namespace) -> None:
    """All four parts, one after another."""
    say(f"shares: {given.seconds:g} s")
    grants = await shares(where, given.replicas, given.seconds)
    report.table("shares: granted tokens against 1:1:4", shares_rows(grants, given.window))
    tokens = sum(grant.tokens for grant in grants)
    say(f"granted {tokens / (grants[-1].at - grants[0].at) / RATE:.2%} of the limit")

    say("late: a tenant of weight 4 arrives")
    parts = await late(where, given.replicas, 10.0)
    report.table(
        "late: part of the arriving tenant of weight 4, beside 1 and 1",
        [{"first s": s, "part": part, "its share": 4 / 6} for s, part in parts],
    )

    rows: list[dict[str, Value]] = []
    p99: list[float] = []
    for name, flood in (("alone", 0), (f"beside {FLOOD:,} of priority 9", FLOOD)):
        say(f"flood: urgent {name}")
        waits = await urgent_waits(where, given.replicas, 15.0, flood)
        p99.append(quantile(waits, 0.99))
        row: dict[str, Value] = {"urgent": name, "requests": len(waits)}
        row |= {"p50 s": quantile(waits, 0.5), "p90 s": quantile(waits, 0.9)}
        rows.append(row | {"p99 s": p99[-1], "max s": max(waits)})
    report.table("flood: wait of urgent requests (priority 0)", rows)
    report.table(
        "flood: what it adds to the urgent p99",
        [
            {
                "rise s": p99[1] - p99[0],
                "bar s: one refill interval": BURST,
                "s to refill the largest request": LARGE / RATE,
            }
        ],
    )

    say("order: requests of one tenant through all replicas")
    served, wrong = await out_of_turn(where, given.replicas, 400)
    report.table(
        "order within a tenant",
        [{"requests": 400, "served": served, "out of turn": wrong, "bar": 0}],
    )


def shares_rows(grants: Sequence[Grant], window: float) -> list[dict[str, Value]]:
    """For both widths of windows, the largest deviation of each tenant."""
    rows: list[dict[str, Value]] = []
    for width in (window / 10, window):
        found = list(deviations(grants, width))
        assert found, "--seconds must be more than --window"
        for tenant, weight in WEIGHTS.items():
            row: dict[str, Value] = {"tenant": tenant, "weight": int(weight), "window s": width}
            row["windows"] = len(found)
            row["largest deviation %"] = max(abs(each[tenant]) for each in found) * 100
            rows.append(row | {"bar %": 5.0 if width == window else "-"})
    return rows


def main() -> None:
    """Start a store and measure."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=80.0, help="of the first part")
    parser.add_argument("--window", type=float, default=60.0)
    parser.add_argument("--replicas", type=int, default=3)
    given = parser.parse_args()
    report = Report(given.json)
    with store(given.server) as where:
        say(f"{where.name}, {given.replicas} replicas")
        asyncio.run(measure(where, report, given))
    report.close()


if __name__ == "__main__":
    main()
