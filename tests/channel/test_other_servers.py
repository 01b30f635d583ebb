"""The limiter against servers that are not ours, or not well: real WebSockets, scripted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests_support.patient import ServiceThread
from tests_support.waiting import until
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
    """Fifteen operations are one array of frames."""
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
        await asyncio.gather(*(limiter.check("p/m", tokens=1) for _ in range(15)))
    assert heard == [1, 15]
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


def answered(message: bytes) -> bytes:
    """What a service says that finds room for everybody."""
    frames = msgspec.msgpack.decode(message)
    return msgspec.msgpack.encode([{"id": frame["id"], **CHECKED} for frame in frames])


async def test_a_message_may_come_in_pieces():
    """Something between may cut it; pings may stand between the pieces."""

    async def crumble(connection: ServerConnection) -> None:
        async for message in connection:
            whole = answered(message)  # type: ignore[arg-type]  # binary
            await connection.send([whole[:3], b"", whole[3:9], whole[9:]])
            await connection.ping()

    async with server(crumble) as url, Limiter(url, options=ONLY) as limiter:
        for _ in range(2):
            told = await asyncio.gather(*(limiter.check("p/m", tokens=1) for _ in range(3)))
            assert all(each.would_grant for each in told)


async def test_what_a_slow_server_does_not_take_yet_is_said_when_it_does():
    """Where it does not read, callers wait; what they bring meanwhile goes when it does, though
    nothing is heard until then.
    """
    reads = asyncio.Event()

    async def dawdle(connection: ServerConnection) -> None:
        await reads.wait()
        async for message in connection:
            if b"observe" not in message:  # type: ignore[operator]  # binary
                await connection.send(answered(message))  # type: ignore[arg-type]  # binary

    patient = LimiterOptions(channel="only", timeout=60, attempts=1)
    long = {f"x-ratelimit-{n}": "9" * 250 for n in range(60)}
    async with server(dawdle) as url, Limiter(url, options=patient) as limiter:
        first = [asyncio.create_task(limiter.observe("p/m", long)) for _ in range(900)]
        connection = await _carrying(limiter)

        async def is_full() -> bool:
            return not connection.ready

        await until(is_full, "it takes everything")
        later = [asyncio.create_task(limiter.check("p/m", tokens=1)) for _ in range(5)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(task.done() for task in later)
        reads.set()
        assert all(told.would_grant for told in await asyncio.gather(*later))
        for task in first:
            task.cancel()
        await asyncio.wait(first)


async def _carrying(limiter: Limiter) -> Any:
    channel = limiter._asking.exchange._channel
    assert channel is not None

    async def is_open() -> bool:
        return channel._connection is not None

    await until(is_open, "there is no connection")
    return channel._connection


async def test_a_settle_goes_on_when_its_caller_is_cancelled_in_the_middle():
    """The task ends at once, the report arrives, and closing waits for it."""
    asked, may_answer = asyncio.Event(), asyncio.Event()
    settles: list[Any] = []

    async def slowly(connection: ServerConnection) -> None:
        async for message in connection:
            for frame in msgspec.msgpack.decode(message):
                said: dict[str, object] = {"settled": True}
                if frame["op"] == "acquire":
                    said = {"lease": "L", "expires_in": 9, "charged": {}, "limits": []}
                elif frame["op"] == "settle":
                    settles.append(frame)
                    asked.set()
                    await may_answer.wait()
                told = [{"id": frame["id"], "status": 200, **said}]
                await connection.send(msgspec.msgpack.encode(told))

    async with server(slowly) as url, Limiter(url, options=ONLY) as limiter:

        async def work() -> None:
            async with limiter.acquire("p/m", tokens=1) as lease:
                lease.used(output_tokens=3)

        task = asyncio.create_task(work())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_answer.set()
    assert {frame["lease"] for frame in settles} == {"L"}
    assert [frame["usage"]["output_tokens"] for frame in settles] == [3] * len(settles)
    (local,) = limiter._figures.snapshot()
    assert local.outcomes == {"success": 1}
