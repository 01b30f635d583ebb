"""A caller is called off while the store has its question: whatever the store did, nothing
stays reserved and nobody stays in line.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis
from tests_support.servers import Server
from tests_support.service import in_process
from tests_support.waiting import until

from limiter_service.engine.admission import Engine
from limiter_service.engine.passes import GRACE
from limiter_wire import Acquire, Granted, Settle, Usage

CONFIG = """
pools:
  p:
    models:
      m: {limits: [{name: slot, meter: concurrency, limit: 1}]}
"""
MOMENTS = 60


@pytest.fixture
async def engine(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
) -> AsyncIterator[Engine]:
    """The engine of a replica."""
    async with in_process(server.url, write_config(CONFIG)) as app:
        yield app._inner.state.engine  # type: ignore[attr-defined]  # a FastAPI application


def wish(name: str) -> Acquire:
    """A request that may wait."""
    return Acquire(resource="p/m", tokens=1, max_wait=60, request_id=name)


async def call_off(engine: Engine, request: Acquire, task: asyncio.Task) -> None:  # type: ignore[type-arg]  # of an answer
    """What the channel does when a client cancels."""
    task.cancel()
    await asyncio.wait({task})
    if task.cancelled():
        await engine.cancel(request)
    else:  # it was answered before
        await engine.settle(Settle(lease=task.result().lease, usage=Usage()))


async def nothing_left(engine: Engine, db: redis.Redis) -> None:
    """Return when the slot is free, nobody waits and nothing of the queue is left."""

    async def free() -> bool:
        in_flight = (await engine.view("p/m", "default")).in_flight
        return in_flight == 0 and list(db.scan_iter("sg:{p}:q*")) == []

    await until(free, "something stays behind", 0.8 * GRACE)  # then it would end by itself


async def test_a_grant_under_way_comes_back(engine: Engine, db: redis.Redis):
    """Cancelled at each moment from the settle that makes room to the answer."""
    for moments in range(MOMENTS):
        held = await engine.acquire(wish(f"held-{moments}"))
        assert isinstance(held, Granted)
        request = wish(f"r-{moments}")
        task = asyncio.create_task(engine.acquire(request))

        async def waits() -> bool:
            return (await engine.lines.view("p", 0, 0)).depth == 1

        await until(waits, "it does not wait")
        settling = asyncio.create_task(engine.settle(Settle(lease=held.lease)))
        for _ in range(moments):
            await asyncio.sleep(0)
        await call_off(engine, request, task)
        await settling
        await nothing_left(engine, db)


@pytest.mark.parametrize("free", [True, False])
async def test_who_has_only_just_asked_is_forgotten(engine: Engine, db: redis.Redis, free: bool):
    """Cancelled before it stands in line, or before it is told of a grant at once."""
    for moments in range(MOMENTS):
        held = None if free else await engine.acquire(wish(f"held-{moments}"))
        request = wish(f"r-{moments}")
        task = asyncio.create_task(engine.acquire(request))
        for _ in range(moments):
            await asyncio.sleep(0)
        await call_off(engine, request, task)
        if isinstance(held, Granted):
            await engine.settle(Settle(lease=held.lease))
        await nothing_left(engine, db)
