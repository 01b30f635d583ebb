"""Two versions of the scripts at one store: an old replica beside a new one."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
import redis
from tests_support.servers import Server
from tests_support.takers import LIMIT, engine_over, pools

from limiter_service.engine.admission import Engine
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.scripts import NAMES, load, part
from limiter_wire import Acquire, Granted, Settle, Usage

OTHER = {"lib/clock": f"-- Another version.\n{part('lib/clock')}\nlocal unused = nil\n"}
PATIENT = 20.0


@pytest.fixture
async def replicas(server: Server, db: redis.Redis) -> AsyncIterator[list[Engine]]:
    """One of each version."""
    clients = [Client(server.url, connect_timeout=PATIENT, command_timeout=PATIENT) for _ in "ab"]
    commands = [Commands(clients[0]), Commands(clients[1], OTHER)]
    yield [
        engine_over(client, pools("p"), each)
        for client, each in zip(clients, commands, strict=True)
    ]
    for client in clients:
        await client.aclose()


def test_versions_have_scripts_of_their_own() -> None:
    """A digest names one text, so neither calls the other's."""
    timed = [name for name in NAMES if load(name).sha != load(name, OTHER).sha]
    assert {"acquire", "settle", "renew", "enqueue", "dispatch"} <= set(timed)


async def test_what_one_version_wrote_the_other_reads(
    replicas: list[Engine], db: redis.Redis
) -> None:
    """Each acquire is settled by the other, while scripts are flushed: the books stay exact."""
    turns = itertools.cycle(replicas)

    async def call(number: int) -> None:
        mine, other = next(turns), next(turns)
        if number % 2:
            mine, other = other, mine
        granted = await mine.acquire(Acquire(resource="p/m", tokens=5, request_id=f"r{number}"))
        again = await other.acquire(Acquire(resource="p/m", tokens=5, request_id=f"r{number}"))
        assert isinstance(granted, Granted)
        assert isinstance(again, Granted)
        assert again.lease == granted.lease
        await other.settle(Settle(lease=granted.lease, usage=Usage(input_tokens=3)))

    for first in range(0, 200, 20):
        if first % 60 == 0:
            db.script_flush()
        await asyncio.gather(*(call(number) for number in range(first, first + 20)))
    left = {(await each.view("p/m", "default")).limits[0].remaining for each in replicas}
    assert [round(LIMIT - amount) for amount in left] == [600] * len(left)
