"""The client that sends the calls of one tick together."""

import asyncio

import pytest
from tests_support.servers import Server

from limiter_service.store.client import Client
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import Script

ECHO = Script("echo", "return ARGV[1]", "0" * 40)


async def test_callers_behind_a_pipeline_of_cancelled_ones_are_served(server: Server):
    """A whole pipeline of calls that nobody waits for any more holds nobody up."""
    client = Client(server.url, connect_timeout=20.0, command_timeout=20.0)
    calls = [asyncio.create_task(client.run(ECHO, (), (str(i),))) for i in range(300)]

    async def cancel_most() -> None:
        for call in calls[:256]:
            call.cancel()

    await asyncio.create_task(cancel_most())  # after all of them began, before any is sent
    assert [await call for call in calls[256:]] == [str(i).encode() for i in range(256, 300)]
    await asyncio.gather(*calls, return_exceptions=True)
    await client.aclose()


async def test_a_call_that_is_cancelled_says_nothing_of_the_store(server: Server):
    """Neither that it answers nor that it does not; an answer and an error are told."""
    client = Client(server.url, connect_timeout=20.0, command_timeout=20.0)
    told: list[tuple[str, bool]] = []
    client.watch = lambda script, _seconds, good, _calls: told.append((script, good))
    call = asyncio.create_task(client.run(ECHO, (), ("a",)))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert told == []
    assert await client.run(ECHO, (), ("b",)) == b"b"
    with pytest.raises(StoreUnavailable):
        await client.run(Script("wrong", "return nothing.at.all", "1" * 40), (), ())
    assert told == [("echo", True), ("wrong", False)]
    await client.aclose()
