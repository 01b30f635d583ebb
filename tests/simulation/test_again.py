"""What the simulation has found, told in a few words each: replicas that are alone, and again."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import redis
from lives import lasting
from tests_support.scripts import POOL, START, scripts
from world import US, Hints, LoadedCommands, Store, Way, Weather, names_of

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.outages import Phase
from limiter_service.engine.policy import Policies
from limiter_service.engine.presence import Presence
from limiter_service.engine.refusals import Refusal
from limiter_service.simulation.virtual_time import run
from limiter_service.store.messages import Seen
from limiter_wire import Acquire, Granted, Renew, Settle, Usage

_M = f"{POOL}/m"
_YEAR = "{limits: [{name: t, meter: tokens, limit: 1000, per: 366d}]}"
"""A limit that does not refill."""


class Few:
    """Two replicas over a store in virtual time."""

    def __init__(self, client: redis.Redis, limit: str, on_store_loss: str) -> None:
        loaded, luck, weather = lasting(scripts()), Random(1), Weather()
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

    def phase(self, at: int) -> Phase:
        """Who decides at a replica."""
        return self.engines[at].outages.pool(POOL).phase

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
        asked = {"resource": _M, "tokens": tokens, **fields}
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


def test_a_replica_that_loses_the_store_while_it_is_held_charges_what_it_grants_then(
    valkey_db: redis.Redis,
) -> None:
    """It waits for another to be back, and a call of its own meets the next loss first."""

    async def plot(few: Few) -> None:
        few.store.up = False
        await few.until(lambda: few.phase(0) is few.phase(1) is Phase.ALONE)
        few.ways[1].cut, few.store.up = True, True
        await few.until(lambda: few.phase(0) is Phase.HELD)
        few.engines[0].outages.lost(POOL, "a call has had no answer")
        granted = await few.take(0, 10)
        assert isinstance(granted, Granted)
        assert granted.degraded
        few.ways[1].cut = False
        pool = few.engines[0].outages.pool(POOL)
        await few.until(lambda: pool.phase is Phase.STORE)
        assert len(pool.journal) == 0
        view = await few.engines[0].view(_M, "default")
        assert view.limits[0].remaining <= 1000 - 10

    tell(valkey_db, _YEAR, "degrade", plot)


def test_a_wait_does_not_begin_anew_when_the_store_is_back(valkey_db: redis.Redis) -> None:
    """What was waited without the store counts."""

    async def plot(few: Few) -> None:
        clock = asyncio.get_running_loop().time
        assert isinstance(await few.take(0), Granted)
        few.store.up = False
        await few.until(lambda: few.phase(0) is Phase.ALONE)
        began = clock()
        waiting = asyncio.create_task(few.take(0, max_wait=6.0))
        await asyncio.sleep(4.0)
        few.store.up = True
        answer = await waiting
        assert isinstance(answer, Refusal)
        assert clock() - began <= 6.0 + 1.0

    tell(valkey_db, "{concurrency: 1}", "degrade", plot)


def test_a_grant_that_nobody_fetched_does_not_give_back_the_slot_of_one_that_was_granted_alone(
    valkey_db: redis.Redis,
) -> None:
    """Both are of one waiter: a pass has granted it while its own replica was cut off."""

    async def plot(few: Few) -> None:
        first = await few.take(1)
        assert isinstance(first, Granted)
        waiting = asyncio.create_task(few.take(0, max_wait=60.0, request_id="r"))
        behind = asyncio.create_task(few.take(1, max_wait=60.0))
        await asyncio.sleep(0.5)
        few.ways[0].cut = True
        await few.engines[1].settle(Settle(lease=first.lease))
        second = await waiting
        assert isinstance(second, Granted)
        assert second.degraded
        few.ways[0].cut = False
        await few.until(lambda: few.phase(0) is Phase.STORE)
        # The pass's grant is taken back, since nobody asks for it; the call goes on.
        await asyncio.sleep(10.0)
        assert not behind.done()
        await few.engines[0].settle(Settle(lease=second.lease))
        assert isinstance(await behind, Granted)

    tell(valkey_db, "{concurrency: 1}", "open", plot)


def test_a_newcomer_has_a_share_when_others_have_said_twice_that_they_live() -> None:
    """Whoever has said it once need not have heard of the newcomer."""
    presence = Presence()
    presence.hear(Seen(now=1e6, replicas=2, oldest=0.4e6, after=0), 1.0)
    assert presence.part == 0
    presence.hear(Seen(now=1.5e6, replicas=2, oldest=1.1e6, after=0), 1.5)
    assert presence.part == 0, "said once"
    presence.hear(Seen(now=2.0e6, replicas=2, oldest=1.6e6, after=0), 2.0)
    assert presence.part == 0, "that may be the first time, repeated"
    presence.hear(Seen(now=2.5e6, replicas=2, oldest=2.1e6, after=0), 2.5)
    assert presence.part == 0.5


def test_whoever_is_alone_grants_nothing_more_when_others_have_joined(
    valkey_db: redis.Redis,
) -> None:
    """Its share has become smaller than what it has begun with."""

    async def plot(few: Few) -> None:
        few.store.up = False
        await few.until(lambda: few.phase(0) is Phase.ALONE)
        assert isinstance(await few.take(0, 1), Granted)
        pool, now = few.engines[0].outages.pool(POOL), asyncio.get_running_loop().time()
        wall = pool.presence.wall + 1e6
        pool.presence.hear(Seen(now=wall, replicas=3, oldest=wall, after=0), now)
        answer = await few.take(0, 1)
        assert isinstance(answer, Refusal)
        assert "joined meanwhile" in answer.problem.detail
        few.store.up = True
        await few.until(lambda: few.phase(0) is Phase.STORE)

    tell(valkey_db, _YEAR, "degrade", plot)


def test_a_share_that_somebody_has_got_while_alone_does_not_outlive_the_next_newcomer_either(
    valkey_db: redis.Redis,
) -> None:
    """It had none when it lost the store, and its limits are divided by those whom it knew of when
    it met them.
    """

    async def plot(few: Few) -> None:
        pool, clock = few.engines[0].outages.pool(POOL), asyncio.get_running_loop().time
        wall = pool.presence.wall
        pool.presence = Presence()
        pool.presence.hear(Seen(now=wall, replicas=2, oldest=0.0, after=0), clock())
        few.store.up = False
        await few.until(lambda: few.phase(0) is Phase.ALONE)
        assert pool.part == 0
        for seconds in (1, 2):
            now = wall + seconds * US
            pool.presence.hear(Seen(now=now, replicas=2, oldest=now, after=0), clock())
        assert isinstance(await few.take(0, 1), Granted)
        now = wall + 3 * US
        pool.presence.hear(Seen(now=now, replicas=3, oldest=now, after=0), clock())
        answer = await few.take(0, 1)
        assert isinstance(answer, Refusal)
        assert "joined meanwhile" in answer.problem.detail
        few.store.up = True
        await few.until(lambda: few.phase(0) is Phase.STORE)

    tell(valkey_db, _YEAR, "degrade", plot)


def test_what_a_renewal_has_charged_is_not_granted_again_by_its_own_replica(
    valkey_db: redis.Redis,
) -> None:
    """The store is lost before the next look."""

    async def plot(few: Few) -> None:
        granted = await few.take(0, 100)
        assert isinstance(granted, Granted)
        await few.looked()
        for used in (300, 500, 500):
            usage = Usage(input_tokens=used)
            await few.engines[0].renew(Renew(lease=granted.lease, usage=usage))
        await few.lost()
        assert await few.drain(0, 10) == (1000 - 100) / 2 - 400
        assert await few.drain(1, 10) == (1000 - 100) / 2

    tell(valkey_db, _YEAR, "degrade", plot)
