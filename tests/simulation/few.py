"""Two replicas over a store in virtual time, and what they are told and say."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import redis
from lives import lasting
from tests_support.scripts import POOL, START, scripts
from world import US, Hints, LoadedCommands, Store, Way, Weather, names_of

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.outages import Outage, Phase
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.simulation.virtual_time import run
from limiter_wire import Acquire, Granted

M = f"{POOL}/m"
YEAR = "{limits: [{name: t, meter: tokens, limit: 1000, per: 366d}]}"
"""A limit that does not refill."""


class Few:
    """Two replicas over a store in virtual time."""

    def __init__(self, client: redis.Redis, limit: str, on_store_loss: str) -> None:
        loaded, luck, weather = lasting(scripts()), Random(1), Weather()
        self.weather = weather
        loop = asyncio.get_running_loop()
        config = f"pools: {{{POOL}: {{on_store_loss: {on_store_loss}, models: {{m: {limit}}}}}}}"
        policies = Policies(parse(config, ".yaml"), "sg:")
        client.flushall()
        self.store = Store(client, names_of(loaded))
        self.ways = [Way(self.store, luck, weather) for _ in range(2)]
        self.engines = [
            Engine(
                LoadedCommands(way, loaded),
                policies,
                lambda: START + loop.time() * US,
                "sg:",
                hints=Hints(self.store, way, luck, weather),  # type: ignore[arg-type]  # what it needs
                observe=lambda _: None,
            )
            for way in self.ways
        ]
        for engine in self.engines:
            engine.outages.start()

    def pool(self, at: int) -> Outage:
        """What a replica knows for the time when it is alone."""
        return self.engines[at].outages.pool(POOL)

    def phase(self, at: int) -> Phase:
        """Who decides at a replica."""
        return self.pool(at).phase

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds, which it must within a minute."""
        for _ in range(6000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never comes")

    async def looked(self) -> None:
        """Return when both have looked at the levels, as they do at the same time, and will not
        for a while.
        """
        pools = [engine.outages.pool(POOL) for engine in self.engines]
        before = [pool.looked_at for pool in pools]
        await self.until(
            lambda: all(pool.looked_at > at for pool, at in zip(pools, before, strict=True))
        )
        await asyncio.sleep(0.1)

    async def lost(self) -> None:
        """The store is lost, and both have noticed."""
        self.store.up = False
        await self.until(lambda: self.phase(0) is self.phase(1) is Phase.ALONE)

    async def drain(self, at: int, tokens: int) -> int:
        """What a replica grants, alone."""
        total = 0
        while isinstance(answer := await self.take(at, tokens), Granted):
            assert answer.degraded
            total += tokens
        return total

    async def take(self, at: int, tokens: int = 1, **fields: object) -> Granted | Refusal:
        """One acquire through a replica."""
        asked = {"resource": M, "tokens": tokens, **fields}
        try:
            answer = await self.engines[at].acquire(Acquire(**asked))  # type: ignore[arg-type]
        except Refusal as refusal:
            return refusal
        assert isinstance(answer, Granted)
        return answer

    async def close(self) -> None:
        """End both."""
        for engine in self.engines:
            engine.outages._watches[POOL].cancel()
            await engine.passes.aclose()
        self.store.close()


def tell(
    client: redis.Redis, limit: str, on_store_loss: str, plot: Callable[[Few], Awaitable[None]]
) -> None:
    """Let *plot* happen to two replicas that have counted each other."""

    async def told() -> None:
        few = Few(client, limit, on_store_loss)
        try:
            await asyncio.sleep(5.0)
            await plot(few)
        finally:
            await few.close()

    run(told())
