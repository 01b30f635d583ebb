"""The limiter against servers that are not ours, or not well: real WebSockets, scripted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests_support.patient import ServiceThread
from websockets.asyncio.server import Server, ServerConnection, serve

from client_sdk import InvalidRequest, Limiter, LimiterOptions, Outcome, ServiceUnavailable, Usage
from limiter_wire import Settle

ONLY = LimiterOptions(channel="only", backoff=0.01, max_backoff=0.02, attempts=3, timeout=5)
Behaviour = Callable[[ServerConnection], Awaitable[None]]

CHECKED = {"status": 200, "would_grant": True, "limits": []}


@contextlib.asynccontextmanager
async def server(behave: Behaviour) -> AsyncIterator[str]:
    """The URL of a server that does with each connection as told."""
    running: Server
    async with serve(behave, "127.0.0.1", 0, compression=None) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


async def test_a_tick_is_a_message_and_the_key_is_in_the_handshake():
    """Forty operations are one array of frames."""
    heard: list[int] = []
    keys: list[str | None] = []

    async def answer(connection: ServerConnection) -> None:
        assert connection.request is not None
        keys.append(connection.request.headers.get("authorization"))
        async for message in connection:
            frames = msgspec.msgpack.decode(message)
            heard.append(len(frames))
            answers = [{"id": frame["id"], **CHECKED} for frame in frames]
            await connection.send(msgspec.msgpack.encode(answers))

    async with server(answer) as url, Limiter(url, api_key="sg_a_b", options=ONLY) as limiter:
        await limiter.check("p/m", tokens=1)
        await asyncio.gather(*(limiter.check("p/m", tokens=1) for _ in range(40)))
    assert heard == [1, 40]
    assert keys == ["Bearer sg_a_b"]


@pytest.mark.parametrize("nonsense", [b"\xc1", b"\x91\x01", "{}", b"\x80"])
async def test_answers_that_nobody_understands_are_told_as_such(nonsense: Any):
    """No caller hangs on them, and no operation is repeated without end."""
    connections = 0

    async def babble(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        async for _ in connection:
            await connection.send(nonsense)

    async with server(babble) as url, Limiter(url, options=ONLY) as limiter:
        with pytest.raises(ServiceUnavailable, match="cannot be read"):
            await limiter.check("p/m", tokens=1)
    assert connections == 3


async def test_a_server_that_closes_at_once_is_not_called_without_end():
    """Each attempt of the caller is one connection."""
    connections = 0

    async def slam(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.close()

    async with server(slam) as url, Limiter(url, options=ONLY) as limiter:
        with pytest.raises(ServiceUnavailable, match="of any use"):
            await limiter.check("p/m", tokens=1)
    assert connections <= 4


async def test_a_message_that_the_service_refuses_goes_the_other_way(start: Any):
    """HTTP says what is wrong with it; the limiter goes on."""
    service: ServiceThread = start(max_body=1024)
    report = Settle(lease="x", outcome=Outcome.SUCCESS, usage=Usage(), headers={"a": "x" * 2000})
    async with Limiter(service.url) as limiter:
        assert (await limiter.check("p/m", tokens=1)).would_grant
        with pytest.raises(InvalidRequest, match="1024 bytes"):
            await limiter.settle(report)
        assert (await limiter.check("p/m", tokens=1)).would_grant
