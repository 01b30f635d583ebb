"""Several replicas' engines over one real store, in a time that the test moves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import redis
import redis.asyncio

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.store.breaker_commands import BreakerCommands
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.hints import Hints
from limiter_service.store.keys import Keys
from limiter_wire import Acquire, Granted, Outcome, Settle
from tests_support.scripts import CLOCK, FAKE_CLOCK, POOL, START
from tests_support.service import PATIENT

REPLACED = {"lib/clock": FAKE_CLOCK}
PREFIX = "sg:"


class VirtualFleet:
    """Engines with connections of their own; `now` is the store's clock, in seconds."""

    def __init__(self, db: redis.Redis, engines: list[Engine], feed: BreakerCommands) -> None:
        self._db, self.engines, self._feed = db, engines, feed
        self._asked = 0
        self.now = START / 1e6

    def move(self, seconds: float) -> None:
        """Let time pass, or step back."""
        self.now += seconds
        self._db.set(CLOCK, int(self.now * 1e6), ex=3600)

    async def ask(self, worker: str = "w", **fields: Any) -> Granted | Refusal:
        """An acquire, through one engine after the other."""
        self._asked += 1
        engine = self.engines[self._asked % len(self.engines)]
        try:
            granted = await engine.acquire(
                Acquire(resource=f"{POOL}/m", tokens=1, worker=worker, **fields)
            )
        except Refusal as refusal:
            return refusal
        assert isinstance(granted, Granted)
        return granted

    async def end(self, granted: Granted, outcome: Outcome) -> None:
        """A settle, through an engine that need not have granted it."""
        self._asked += 1
        engine = self.engines[self._asked % len(self.engines)]
        await engine.settle(Settle(lease=granted.lease, outcome=outcome))

    async def crowd(self, count: int) -> list[Granted | Refusal]:
        """So many acquires at once."""
        return list(await asyncio.gather(*(self.ask(f"w{n}") for n in range(count))))

    async def call(self, worker: str, *, well: bool) -> Granted | None:
        """A call that ends at once; None when it was refused."""
        answer = await self.ask(worker)
        if isinstance(answer, Refusal):
            return None
        await self.end(answer, Outcome.SUCCESS if well else Outcome.SERVER_ERROR)
        return answer

    async def events(self) -> list[dict[str, str]]:
        """What has happened."""
        _, events = await self._feed.events(Keys(POOL, PREFIX), "0-0", 1.0)
        return [fields for _, fields in events]


@contextlib.asynccontextmanager
async def virtual_fleet(db: redis.Redis, url: str, config: str) -> AsyncIterator[VirtualFleet]:
    """Four engines over one store."""
    policies = Policies(parse(config, ".yaml"), PREFIX)
    clients = [Client(url, connect_timeout=PATIENT, command_timeout=PATIENT) for _ in range(4)]
    engines = [
        Engine(
            Commands(client, REPLACED),
            policies,
            lambda: fleet.now * 1e6,
            PREFIX,
            hints=Hints(client),
            observe=lambda _wait: None,
        )
        for client in clients
    ]
    fleet = VirtualFleet(db, engines, BreakerCommands(clients[0], REPLACED))
    fleet.move(0)
    try:
        yield fleet
    finally:
        for engine, client in zip(engines, clients, strict=True):
            await engine.passes.aclose()
            await client.aclose()
