"""Reports that a replica has kept while the store was lost, and what it does beside them."""

import asyncio

import redis
from few import Few, tell
from tests_support.scripts import POOL

from limiter_service.engine.outages import Phase
from limiter_wire import Granted, Settle

_MANY = 500
_LIMIT = "{limits: [{name: t, meter: tokens, limit: 1000, per: 366d}]}"


async def _keep(few: Few) -> list[Settle]:
    """Let replica 0 keep a report on each of so many calls of the store, which is lost."""
    granted = [await few.take(0) for _ in range(_MANY)]
    few.store.up = False
    await few.until(lambda: few.phase(0) is few.phase(1) is Phase.ALONE)
    reports = [Settle(lease=each.lease) for each in granted if isinstance(each, Granted)]
    for report in reports:
        assert (await few.engines[0].settle(report)).degraded
    return reports


async def _is_settled(few: Few, report: Settle) -> bool:
    """Whether the store knows it."""
    answer = await few.engines[0].settle(report)
    return answer.already_settled and not answer.degraded


def test_a_replica_that_takes_in_what_it_has_kept_has_looked_before_and_says_that_it_lives(
    valkey_db: redis.Redis,
) -> None:
    """Else it would grant by old levels if the store were lost again, and others by too large
    shares when it has been silent for long.
    """

    async def plot(few: Few) -> None:
        reports = await _keep(few)
        pool = few.engines[0].outages.pool(POOL)
        said = set[float]()
        few.store.up = True
        while len(pool.journal) > 0:
            if pool.phase is Phase.STORE:
                said.add(pool.presence.wall)
                assert len(pool.journal) == _MANY or pool.looked_at > 0
            await asyncio.sleep(0.0001)
        assert len(said) > 1
        await few.until(lambda: pool.presence.wall > max(said))
        for report in reports:
            assert await _is_settled(few, report)

    tell(valkey_db, _LIMIT, "degrade", plot)


def test_what_could_not_be_taken_in_is_taken_in_when_the_store_is_back_again(
    valkey_db: redis.Redis,
) -> None:
    """It was lost in the midst of that."""

    async def plot(few: Few) -> None:
        reports = await _keep(few)
        pool = few.engines[0].outages.pool(POOL)
        few.store.up = True
        await few.until(lambda: len(pool.journal) < _MANY)
        few.store.up = False
        await few.until(lambda: few.phase(0) is Phase.ALONE)
        assert len(pool.journal) > 0
        few.store.up = True
        await few.until(lambda: few.phase(0) is Phase.STORE and len(pool.journal) == 0)
        await asyncio.sleep(1.0)
        for report in reports:
            assert await _is_settled(few, report)

    tell(valkey_db, _LIMIT, "degrade", plot)
