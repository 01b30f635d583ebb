"""Replicas behind one address are replaced one after another while callers wait and take."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec

from client_sdk import Limiter, LimiterOptions
from client_sdk.errors import SluicegateError
from tests_support.balancer import Balancer
from tests_support.service import ServiceProcess
from tests_support.waiting import until

REPLICAS = 3
LONGEST = 3600.0
LIMIT = 1_000_000
POOLS = f"""
pools:
  line:
    models:
      m: {{limits: [{{name: slot, meter: concurrency, limit: 1}}]}}
    queue: {{max_waiters: 100000, max_wait: 1d}}
  open:
    models:
      m: {{limits: [{{name: budget, meter: tokens, limit: {LIMIT}, per: 366d, burst: {LIMIT}}}]}}
"""


class Figures(msgspec.Struct):
    """What became of callers: errors are those that their programs saw."""

    waiters: int = 0
    errors: list[str] = []
    order: list[int] = []
    granted: int = 0
    spent: int = 0
    exits: list[tuple[int, float]] = []

    @property
    def out_of_place(self) -> int:
        """Waiters that were served before somebody who had come earlier."""
        last, late = -1, 0
        for number in self.order:
            late += number < last
            last = max(last, number)
        return late


class Fleet:
    """Replicas behind a balancer; a context manager."""

    def __init__(self, home: Path, store_url: str, settings: dict[str, str] | None = None) -> None:
        config = home / "pools.yaml"
        config.write_text(POOLS)
        self._arguments = ("--config", str(config), "--redis-url", store_url)
        self._settings = settings or {}
        self._stack = contextlib.ExitStack()
        self.balancer = Balancer([])
        self.replicas: list[ServiceProcess] = []

    def __enter__(self) -> "Fleet":
        for _ in range(REPLICAS):
            self.replicas.append(self._start())
        self._stack.enter_context(self.balancer)
        self._route()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def replace(self) -> tuple[int, float]:
        """Start a new replica, end the oldest; its exit code, and how long it took to end.

        The address goes on naming the old one until it is gone, as endpoints of a cluster do.
        """
        old, *rest = self.replicas
        self.replicas = [*rest, self._start()]
        self.balancer.targets = [_port(old), *map(_port, self.replicas)]
        began = time.monotonic()
        code = old.stop()
        took = time.monotonic() - began
        self._route()
        return code, took

    def _start(self) -> ServiceProcess:
        return self._stack.enter_context(ServiceProcess(*self._arguments, env=self._settings))

    def _route(self) -> None:
        self.balancer.targets = [_port(replica) for replica in self.replicas]


def _port(replica: ServiceProcess) -> int:
    return int(replica.url.rpartition(":")[2])


async def rolling_restart(
    fleet: Fleet, waiters: int, *, over_http: int, takers: int, say: Callable[[str], None]
) -> Figures:
    """Let *waiters* stand in line, *over_http* of them without a channel, and *takers* take
    without waiting; replace every replica meanwhile, with a third of the line served after each.
    """
    figures = Figures(waiters=waiters)
    stop, go = asyncio.Event(), asyncio.Semaphore(0)
    async with _limiters(fleet.balancer.url) as (channel, plain), _client(fleet) as client:
        first = await channel.acquire("line/m", tokens=1, ttl=LONGEST)

        async def wait(number: int) -> None:
            limiter = plain if number % waiters < over_http else channel
            try:
                lease = await limiter.acquire("line/m", tokens=1, max_wait=LONGEST, ttl=LONGEST)
                figures.order.append(number)
                await go.acquire()
                await lease.settle()
            except SluicegateError as error:
                figures.errors.append(f"waiter: {type(error).__name__}: {error}")

        async def take() -> None:
            while not stop.is_set():
                try:
                    async with channel.acquire("open/m", tokens=1) as lease:
                        figures.granted += 1
                        lease.used(input_tokens=1)
                except SluicegateError as error:
                    figures.errors.append(f"taker: {type(error).__name__}: {error}")

        tasks = []
        for number in range(waiters):
            tasks.append(asyncio.create_task(wait(number)))
            await _until_depth(client, number + 1)
        say(f"{waiters} stand in line")
        taking = [asyncio.create_task(take()) for _ in range(takers)]
        await first.settle()
        for nth in range(REPLICAS):
            figures.exits.append(await asyncio.to_thread(fleet.replace))
            say(f"replica {nth + 1} was replaced; it ended in {figures.exits[-1][1]:.2f} s")
            goal = waiters * (nth + 1) // REPLICAS
            for _ in range(goal - waiters * nth // REPLICAS):
                go.release()

            async def served(goal: int = goal) -> bool:
                return len(figures.order) + len(figures.errors) >= min(goal + 1, waiters)

            await until(served, "the line is not served", 120)
        stop.set()
        await asyncio.gather(*tasks, *taking)
        view = (await client.get("/v1/resources/open/m")).json()
        figures.spent = round(LIMIT - view["limits"][0]["remaining"])
    return figures


@contextlib.asynccontextmanager
async def _limiters(url: str) -> AsyncIterator[tuple[Limiter, Limiter]]:
    patient = LimiterOptions(timeout=20.0, connect_timeout=10.0)
    plain = msgspec.structs.replace(patient, channel="off")
    async with Limiter(url, options=patient) as one, Limiter(url, options=plain) as other:
        yield one, other


@contextlib.asynccontextmanager
async def _client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    # A connection for each question: a kept one would end with its replica.
    limits = httpx.Limits(max_keepalive_connections=0)
    url = fleet.balancer.url
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
        yield client


async def _until_depth(client: httpx.AsyncClient, wanted: int) -> None:
    async def reached() -> bool:
        view = (await client.get("/v1/queue/line")).json()
        return bool(view["depth"] >= wanted)

    await until(reached, f"the line does not come to {wanted}", 60)
