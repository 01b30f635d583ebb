"""Many workers at the moment when a circuit may be tried again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio
from tests_support.races import CROWD, PATIENT, Fleet
from tests_support.servers import Server
from tests_support.waiting import until

pytestmark = PATIENT

OPENED = ("closed", "open", "failure_rate")
TRIED = ("open", "half_open", "expired")


async def assert_only_so_many_arrive(fleet: Fleet, probes: int) -> None:
    """A provider that accepts calls and never answers gets so many of a whole crowd."""
    await fleet.trip()
    await fleet.provider.outage(fleet.model, "stall-before-headers")
    before = await fleet.provider.calls(fleet.model)
    tasks = await fleet.all_call()

    async def probed() -> bool:
        return sum(task.probes for task in tasks) == probes

    await until(probed, "nobody probes")
    for _ in range(2):
        await fleet.all_refused([task for task in tasks if not task.probes])
    assert await fleet.provider.calls(fleet.model) == before + probes
    assert sum(task.count("granted") for task in tasks) == probes
    view = await fleet.view()
    assert (view["state"], view["reason"]) == ("half_open", "probing")
    assert view["probes"]["held"] == probes
    assert await fleet.transitions() == [OPENED, TRIED]


@pytest.mark.parametrize(("pool", "probes"), [("one", 1), ("three", 3)])
async def test_a_crowd_at_the_end_of_an_opening_lets_just_the_probes_through(
    recruit: Any, pool: str, probes: int
):
    """However many workers ask, through whichever replica: all others wait."""
    fleet = await recruit(pool, CROWD)
    await assert_only_so_many_arrive(fleet, probes)


@contextlib.asynccontextmanager
async def forgetful(server: Server) -> AsyncIterator[None]:
    """The store forgets its scripts as fast as it can be told to."""
    over = asyncio.Event()
    async with redis.asyncio.Redis(unix_socket_path=str(server.socket)) as db:

        async def forget() -> None:
            while not over.is_set():
                await db.script_flush()

        task = asyncio.create_task(forget())
        try:
            yield
        finally:
            over.set()
            await task


async def test_a_store_that_forgets_its_scripts_lets_no_more_through(recruit: Any, crowded: Server):
    """NOSCRIPT in the middle of a stampede is answered by the text, once."""
    fleet = await recruit("three", 20)
    async with forgetful(crowded):
        await assert_only_so_many_arrive(fleet, 3)


async def test_a_dead_provider_gets_one_call_for_each_opening(recruit: Any):
    """As long as it is dead, round after round; and when it is well, the crowd is let in."""
    fleet = await recruit("one", CROWD // 2)
    await fleet.provider.outage(fleet.model, "server-error")
    tasks = await fleet.all_call()
    rounds = [("half_open", "open", "probe_failed"), TRIED]

    async def reopened() -> bool:
        return (await fleet.view())["open_count"] >= 4

    await until(reopened, "it is not tried again", 30)
    while await fleet.state() != "open":
        pass
    first = [task.count("granted") - task.probes for task in tasks]
    await fleet.provider.well()

    async def all_granted() -> bool:
        return all(
            task.count("granted") - task.probes > before
            for task, before in zip(tasks, first, strict=True)
        )

    await until(all_granted, "the fleet does not recover", 30)
    await fleet.stop(tasks)
    story = await fleet.transitions()
    tried = story.count(TRIED)
    assert story[0] == OPENED
    assert story[1:3] == [TRIED, rounds[0]]
    assert story[-1] == ("half_open", "closed", "recovered")
    assert sum(task.probes for task in tasks) == tried + 1  # of two successes in the last round
