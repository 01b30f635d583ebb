"""What the simulation has found, told in a few words each: replicas that are alone, and again."""

import asyncio

import redis
from few import YEAR, Few, M, tell
from tests_support.scripts import POOL
from world import US

from limiter_service.engine.outages import Phase
from limiter_service.engine.presence import Presence
from limiter_service.engine.refusals import Refusal
from limiter_service.store.messages import Seen
from limiter_wire import Granted, Settle


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
        view = await few.engines[0].view(M, "default")
        assert view.limits[0].remaining <= 1000 - 10

    tell(valkey_db, YEAR, "degrade", plot)


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

    tell(valkey_db, YEAR, "degrade", plot)


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

    tell(valkey_db, YEAR, "degrade", plot)
