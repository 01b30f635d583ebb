"""What befalls a story is done in full or not at all, also where the story ends meanwhile."""

import asyncio
import contextlib

import pytest
import redis
from fate import Fate
from lives import lasting
from plots import REPLICAS
from story import Story
from tests_support.scripts import scripts
from tests_support.waiting import until

from limiter_service.simulation.virtual_time import run


@pytest.mark.parametrize(("dies", "there"), [(False, b"after"), (True, b"before")])
def test_a_failover_has_lost_what_the_ledger_was_told(
    valkey_db: redis.Redis, dies: bool, there: bytes
) -> None:
    """It is told when the primary dies; the store goes back when another is promoted."""

    async def ends() -> None:
        story = Story(valkey_db, 0, lasting(scripts()), calls=0)

        async def is_away() -> bool:
            return not story.store.up

        try:
            valkey_db.set("key", "before")
            failover = asyncio.create_task(Fate(story)._failover())
            await asyncio.sleep(0)  # the photograph is taken
            valkey_db.set("key", "after")
            if dies:
                await until(is_away, "the primary never dies")
            failover.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await failover
        finally:
            for at in range(REPLICAS):
                story.end_replica(at)
            await asyncio.sleep(0)
            story.store.close()

    valkey_db.flushall()
    run(ends())
    assert valkey_db.get("key") == there
