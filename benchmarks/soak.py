"""A service and a store for half an hour, with callers who come and go: does anything grow?

    python benchmarks/soak.py                # 30 minutes
    python benchmarks/soak.py --minutes 3    # a look

A real service process over a real store, callers of the SDK in this process. All the time, at
--rate operations a second: acquires of resources and tenants that nobody has named before, which
are settled, renewed, or left to expire; waiters, of whom some are called off; streams that end
well, break or are left; clients that are made, used for some seconds and closed, half of them over
a channel; listeners to events; connections that send half a request; overrides that are set and
cleared; and every half minute a pools file that has changed.

First, every cache that is bounded is filled (--names made-up names), and the first third of the
time is for settling down. What the store learns of a model's sizes and failures it keeps for hours:
calls that teach it something are of models that were there when things had settled down, the others
of models that never come again. Then a straight line is laid through the samples of each figure:

drift %   what the line gains in the rest of the time, of where it begins. Bar: below 2 for the
          resident memory of service and client, and for the memory that the store uses.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from harness import Process, Report, Store, ended, options, say, sluicegate, store
from resident import drift, files, rss

from client_sdk import Limiter, LimiterOptions, SluicegateError
from limiter_service import heap

BAR = 2.0
KNOWN = 1000
SAMPLE_EVERY = 2.0
AT_ONCE = 64
RELOAD_EVERY = 30.0
CONFIG = """
pools:
  many:
    models: {{"*": {{rpm: 6000, tpm: 600000, concurrency: 100}}}}
    tenants: {{"*": {{tpm: 600000}}}}
    limits: [{{name: total, meter: requests, limit: {total}, per: minute}}]
    lease_ttl: 20s
    remember: 5s
  scarce:
    models: {{m: {{concurrency: 4}}, polled: {{concurrency: 24}}}}
    queue: {{max_waiters: 1000, max_wait: 30s}}
    lease_ttl: 5s
    remember: 5s
"""


class Churn:
    """What callers do. Names are numbers that never come again."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.url, self._chance = url, chance
        self._next = 0
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.broken: list[str] = []
        self._http = httpx.AsyncClient(base_url=url, timeout=20)

    def name(self, kind: str) -> str:
        """A name that nobody has had."""
        self._next += 1
        return f"{kind}{self._next}"

    def known(self) -> str:
        """One of the models with which the caches were filled: what is learned of a model is kept
        for longer than a soak lasts.
        """
        return f"f{self._chance.randrange(KNOWN)}"

    async def fill(self, names: int) -> None:
        """Fill what is bounded with made-up names."""
        for first in range(0, names, 256):
            ops = [
                {"op": "check", "resource": f"many/f{n}", "tenant": f"f{n}", "tokens": 1}
                for n in range(first, min(first + 256, names))
            ]
            await self._http.post("/v1/batch", json={"ops": ops})
            if first < names // 4:
                await self._take_and_settle(first)

    async def _take_and_settle(self, first: int) -> None:
        ops: list[dict[str, Any]] = [
            {
                "op": "acquire",
                "resource": f"many/f{n}",
                "tenant": f"f{n}",
                "input_tokens": 1,
                "max_output_tokens": 5,
                "route": f"f{n}",
            }
            for n in range(first, first + 256)
        ]
        answers = (await self._http.post("/v1/batch", json={"ops": ops})).json()["results"]
        leases = [each["body"]["lease"] for each in answers if each["status"] == 200]
        usage = {"input_tokens": 1, "output_tokens": 2}
        reports = [{"op": "settle", "lease": each, "usage": usage} for each in leases]
        await self._http.post("/v1/batch", json={"ops": reports})

    async def once(self, limiter: Limiter) -> None:
        """One thing that callers do."""
        kinds: list[tuple[Callable[[Limiter], Awaitable[None]], int]] = [
            (self._take, 40),
            (self._leave, 5),
            (self._renew, 5),
            (self._wait, 20),
            (self._give_up, 5),
            (self._stream, 10),
            (self._listen, 2),
            (self._half, 3),
            (self._hold, 2),
            (self._look, 3),
        ]
        (chosen,) = self._chance.choices(
            [kind for kind, _ in kinds], weights=[weight for _, weight in kinds]
        )
        try:
            await chosen(limiter)
            self.done[chosen.__name__.strip("_")] += 1
        except (SluicegateError, httpx.HTTPError, OSError, TimeoutError) as error:
            self.failed[type(error).__name__] += 1

    async def _take(self, limiter: Limiter) -> None:
        resource, tenant = f"many/{self.known()}", self.name("t")
        async with limiter.acquire(resource, tokens=5, tenant=tenant) as lease:
            lease.used(input_tokens=2, output_tokens=3)

    async def _leave(self, limiter: Limiter) -> None:
        """A lease that is never settled."""
        await limiter.acquire(f"many/{self.name('m')}", tokens=5, ttl=2)

    async def _renew(self, limiter: Limiter) -> None:
        async with limiter.acquire(f"many/{self.name('m')}", tokens=5, ttl=5) as lease:
            await self._http.post("/v1/renew", json={"lease": lease.id, "ttl": 10})

    async def _wait(self, limiter: Limiter) -> None:
        """Over HTTP a grant waits for the next question, and its slot with it."""
        way = limiter._options.channel  # noqa: SLF001  # as it was made
        resource = "scarce/m" if way == "only" else "scarce/polled"
        async with limiter.acquire(resource, tokens=1, tenant=self.name("t"), max_wait=20):
            await asyncio.sleep(self._chance.random() * 0.05)

    async def _give_up(self, limiter: Limiter) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._chance.random() * 0.05):
                await self._wait(limiter)

    async def _stream(self, limiter: Limiter) -> None:
        """A stream that ends, breaks, or is left in the middle."""
        ending = self._chance.choice(("well", "breaks", "left"))

        async def chunks() -> AsyncIterator[dict[str, Any]]:
            for n in range(10):
                yield {"choices": [{"index": 0, "delta": {"content": f"word {n} "}}]}
                if n == 5 and ending == "breaks":
                    raise OSError("the connection is gone")
            yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}

        stream = limiter.wrap_stream(chunks(), resource=self._lasting("s"), tokens=50)
        with contextlib.suppress(OSError):
            async with stream:
                async for _ in stream:
                    if ending == "left":
                        break

    async def _listen(self, _: Limiter) -> None:
        path = self._chance.choice(("/v1/events", "/v1/live"))
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(1.0),
                self._http.stream("GET", path, headers={"last-event-id": "0"}) as events,
            ):
                async for _line in events.aiter_lines():
                    pass

    async def _half(self, _: Limiter) -> None:
        """A connection that says half of something, and is closed by either side."""
        place = httpx.URL(self.url)
        _, writer = await asyncio.open_connection(place.host, place.port)
        writer.write(b"POST /v1/acquire HTTP/1.1\r\nhost: x\r\ncontent-le")
        await asyncio.sleep(self._chance.random() * 5)
        writer.transport.abort()

    async def _hold(self, _: Limiter) -> None:
        path = f"/v1/breakers/{self._lasting('h')}/override"
        await self._http.put(path, json={"mode": "observe", "ttl": 5, "reason": "soak"})
        await self._http.delete(path)

    def _lasting(self, kind: str) -> str:
        """One of a hundred models whose circuits change: that is kept for a day."""
        return f"many/{kind}{self._chance.randrange(100)}"

    async def _look(self, _: Limiter) -> None:
        for path in ("/metrics", "/v1/resources", "/v1/stats", "/v1/queue/scarce"):
            async with self._http.stream("GET", path) as answer:
                answer.raise_for_status()
                async for _part in answer.aiter_raw():  # megabytes that are not the SDK's to hold
                    pass

    def broke(self, error: Exception) -> None:
        """Note a program that has broken; the first ones are shown."""
        self.broken.append(repr(error))
        if len(self.broken) <= 3:
            say("a caller broke: " + "".join(traceback.format_exception(error)))

    async def aclose(self) -> None:
        """Close what looks were made with."""
        await self._http.aclose()


async def caller(churn: Churn, pace: float, chance: random.Random, over: asyncio.Event) -> None:
    """A program that is started again and again: makes a client, uses it for some seconds."""
    while not over.is_set():
        way = chance.choice(("only", "off"))
        settings = LimiterOptions(timeout=20.0, connect_timeout=10.0, channel=way)
        until = time.monotonic() + 5 + chance.random() * 20
        try:
            async with Limiter(churn.url, options=settings) as limiter:
                while time.monotonic() < until and not over.is_set():
                    began = time.monotonic()
                    await churn.once(limiter)
                    rest = chance.expovariate(1 / pace) - (time.monotonic() - began)
                    await asyncio.sleep(max(0.0, rest))
        except Exception as error:  # noqa: BLE001  # a program that breaks is started again
            churn.broke(error)


async def reload(pools: Path, over: asyncio.Event) -> None:
    """Change the pools file now and then."""
    total = 10_000_000
    while not over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), RELOAD_EVERY)
        total += 1
        await asyncio.to_thread(pools.write_text, CONFIG.format(total=total))


class Samples:
    """Figures over time."""

    def __init__(self, service: Process, where: Store) -> None:
        self._service, self._where = service, where
        self.times: list[float] = []
        self.figures: dict[str, list[float]] = {}

    def take(self, now: float) -> dict[str, float]:
        """Look once."""
        found = {
            "service MiB": rss(self._service.pid) / 2**20,
            "client MiB": rss(os.getpid()) / 2**20,
            "client blocks": float(sys.getallocatedblocks()),
            "store MiB": self._where.memory() / 2**20,
            "keys": float(self._where.redis.dbsize()),
            "service files": float(files(self._service.pid)),
            "client tasks": float(len(asyncio.all_tasks())),
        }
        self.times.append(now)
        for name, value in found.items():
            self.figures.setdefault(name, []).append(value)
        return found

    def rows(self, since: float) -> list[dict[str, Any]]:
        """The line through each figure from *since* on."""
        rows = []
        for name, values in self.figures.items():
            first = next(i for i, at in enumerate(self.times) if at >= since)
            line = drift(self.times[first:], values[first:])
            rows.append(
                {
                    "figure": name,
                    "at the start": values[0],
                    "line begins": line.first,
                    "line ends": line.last,
                    "most": max(values[first:]),
                    "drift %": line.percent,
                    "bar": f"< {BAR:g}" if name.endswith("MiB") else "",
                }
            )
        return rows


async def soak(
    service: Process, where: Store, pools: Path, given: Any
) -> tuple[Samples, Churn, float]:
    """Fill, churn and sample; the seconds at which things had settled down. Both processes give
    back what is free in their heaps: what is measured is what they hold.
    """
    async with heap.tended(heap.of_this_process()):
        return await _soak(service, where, pools, given)


async def _soak(
    service: Process, where: Store, pools: Path, given: Any
) -> tuple[Samples, Churn, float]:
    churn = Churn(service.url, random.Random(given.seed))
    samples, began = Samples(service, where), time.monotonic()
    say(f"filling caches with {given.names:,} names")
    await churn.fill(given.names)
    gc.collect()
    length = given.minutes * 60
    over = asyncio.Event()
    pace = AT_ONCE / given.rate
    tasks = [
        asyncio.create_task(caller(churn, pace, random.Random(given.seed + n), over))
        for n in range(AT_ONCE)
    ]
    tasks.append(asyncio.create_task(reload(pools, over)))
    began = time.monotonic()
    told = -60.0
    try:
        while (now := time.monotonic() - began) < length:
            assert not any(task.done() for task in tasks), "a caller has gone"
            found = samples.take(now)
            if now - told >= min(60.0, length / 10):
                told = now
                figures = ", ".join(f"{name} {value:,.1f}" for name, value in found.items())
                rate = sum(churn.done.values()) / max(now, 1.0)
                say(f"{now / 60:4.1f} of {given.minutes:g} minutes, {rate:.0f} a second: {figures}")
            await asyncio.sleep(SAMPLE_EVERY)
    finally:
        over.set()
        _, late = await asyncio.wait(tasks, timeout=60)
        await ended([*late])
        await churn.aclose()
    return samples, churn, length / 3


def main() -> None:
    """Measure once."""
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=120.0, help="operations a second")
    parser.add_argument("--names", type=int, default=60_000, help="made-up names at the start")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    report = Report(given.json)
    logging.disable(logging.ERROR)  # leases that end before they are settled are meant to
    with store(given.server) as where, tempfile.TemporaryDirectory() as home:
        pools = Path(home, "pools.yaml")
        pools.write_text(CONFIG.format(total=10_000_000))
        words = ["--config", str(pools), "--redis-url", where.url, "--log-level", "error"]
        say(where.name)
        with sluicegate("serve", *words) as service:
            samples, churn, since = asyncio.run(soak(service, where, pools, given))
            alive = httpx.get(f"{service.url}/livez", timeout=20).status_code == 200
    rows = samples.rows(since)
    report.table(f"{given.minutes:g} minutes of churn, from {since / 60:.1f} minutes on", rows)
    report.table("what callers did", [dict(sorted(churn.done.items())) | {"alive": str(alive)}])
    if churn.failed:
        report.table("what was refused or failed", [dict(sorted(churn.failed.items()))])
    report.close()
    if churn.broken:
        say(f"{len(churn.broken)} callers broke")
    grown = [row for row in rows if row["bar"] and row["drift %"] >= BAR]
    for row in grown:
        say(f"{row['figure']} has grown by {row['drift %']:.1f} %")
    sys.exit(bool(grown or churn.broken) or not alive)


if __name__ == "__main__":
    main()
