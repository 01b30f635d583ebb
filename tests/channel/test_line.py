"""Messages that are heard where they are read, and those that have to wait all the same."""

import asyncio
import itertools
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
import uvicorn
from tests_support.patient import ServiceThread
from tests_support.servers import Server, silent
from tests_support.talk import Talk, connect, take
from tests_support.waiting import until
from uvicorn.server import ServerState

from limiter_service.app import create_app
from limiter_service.guests import GUESTS, Guests
from limiter_service.http import Message
from limiter_service.line import LINE, Hear
from limiter_service.pools import Pools
from limiter_service.routes import channel
from limiter_service.settings import Settings
from limiter_service.websocket import Protocol

PLAIN = "p/plain"


@pytest.fixture(params=["with a line", "without"])
def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """A server that has lines, and one as others are."""
    if request.param == "without":
        offered = Protocol.handle_connect

        def handle_connect(self: Protocol, event: Any) -> None:
            offered(self, event)
            del self.scope["extensions"][LINE]

        monkeypatch.setattr(Protocol, "handle_connect", handle_connect)
    return request.param == "with a line"


async def told(talk: Talk, count: int) -> list[dict[str, Any]]:
    """So many answers, in the order in which they are heard."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        heard = await talk.hear()
        found += heard if isinstance(heard, list) else [heard]
    return found


async def test_messages_are_decided_in_the_order_in_which_they_come(
    service: ServiceThread, store: Server, monkeypatch: pytest.MonkeyPatch, *, line: bool
):
    """Also of those that come while others have no room, and behind them: of sixty that ask for a
    fiftieth each the first fifty have it.
    """
    monkeypatch.setattr(channel, "MOST_AT_ONCE", 3)
    async with connect(service.channel, compression=None) as connection:
        talk = Talk(connection, text=False)
        with silent(store):
            for name in range(30):
                await talk.say([take(name, 20)])
            await until(lambda: _begun(service, 3), "nothing begins")
        for name in range(30, 60):
            await talk.say([take(name, 20)])
        answers = await told(talk, 60)
    assert {a["id"]: a["status"] for a in answers} == {
        n: 200 if n < 50 else 429 for n in range(60)
    }, line


async def _begun(service: ServiceThread, count: int) -> bool:
    return len(service.engine.asked) >= count


@pytest.mark.parametrize("text", [True, False])
async def test_each_is_answered_once_however_slowly_the_answers_are_read(
    service: ServiceThread, *, line: bool, text: bool
):
    """Alone and in arrays by turns: what is said while some wait to be sent comes behind them."""
    narrow = socket.socket()
    for end, buffer in ((service.listener, socket.SO_SNDBUF), (narrow, socket.SO_RCVBUF)):
        end.setsockopt(socket.SOL_SOCKET, buffer, 4_096)
    narrow.connect(("127.0.0.1", service.port))
    narrow.setblocking(False)
    async with connect(service.channel, sock=narrow, compression=None, max_queue=1) as connection:
        talk = Talk(connection, text=text)
        names = itertools.count()

        async def ask() -> None:
            for first in itertools.islice(names, 0, 3000, 3):
                await talk.say(take(first, 1, PLAIN))
                await talk.say([take(first + 1, 1, PLAIN), take(first + 2, 1, PLAIN)])

        asking = asyncio.create_task(ask())
        answers = await told(talk, 3000)
        await asking
        assert Counter(a["id"] for a in answers).most_common(1)[0][1] == 1, line
        assert (await talk.ask("check", "last", resource=PLAIN, tokens=1))["status"] == 200


async def test_a_mistake_of_ours_ends_one_connection_and_no_other(
    service: ServiceThread, monkeypatch: pytest.MonkeyPatch, *, line: bool
):
    """Its client asks again over another, which is better than to hang."""

    def read(message: bytes) -> list[Any]:
        if b"spoilt" in message:
            raise ZeroDivisionError
        return whole(message)

    whole = channel.read
    monkeypatch.setattr(channel, "read", read)
    async with (
        connect(service.channel, compression=None) as spoilt,
        connect(service.channel, compression=None) as other,
    ):
        await spoilt.send(msgspec.msgpack.encode([take(1, 1, "p/spoilt")]))
        await Talk(spoilt, text=False).end()
        talk = Talk(other, text=False)
        assert (await talk.ask("acquire", 1, resource=PLAIN, tokens=1))["status"] == 200, line


async def test_a_line_is_used_where_there_is_one(
    service: ServiceThread, monkeypatch: pytest.MonkeyPatch, *, line: bool
):
    """What is heard over it is never received."""
    received: list[Any] = []
    receive = Protocol.receive

    async def noted(self: Protocol) -> Any:
        message = await receive(self)
        received.append(message["type"])
        return message

    monkeypatch.setattr(Protocol, "receive", noted)
    async with connect(service.channel) as connection:
        talk = Talk(connection, text=False)
        for name in range(5):
            assert (await talk.ask("acquire", name, resource=PLAIN, tokens=1))["status"] == 200
    await until(lambda: _has(received, "websocket.disconnect"), "nobody hears of the end")
    # The first may come before anybody listens.
    assert received.count("websocket.receive") in ({0, 1} if line else {5})


async def _has(received: list[Any], kind: str) -> bool:
    return kind in received


class Wire:
    """A line and the server around it, of which a test moves each part. What comes over it is
    refused at once, so that nothing else has to be there.
    """

    def __init__(self) -> None:
        self.hear: Hear | None = None
        self.takes, self.may_send = False, asyncio.Event()
        self.then: Callable[[], object] | None = None
        self.said: list[int] = []
        self.coming: asyncio.Queue[Message] = asyncio.Queue()
        self.coming.put_nowait({"type": "websocket.connect"})

    def listen(self, hear: Hear) -> None:
        """It does."""
        self.hear = hear

    def come(self, name: int) -> None:
        """A message, offered as by a server."""
        data = msgspec.msgpack.encode([{"id": name, "op": "burn"}])
        assert self.hear is not None
        if not self.coming.empty() or not self.hear(data):
            self.coming.put_nowait({"type": "websocket.receive", "bytes": data})

    def say(self, messages: Iterable[Message]) -> bool:
        """Take what is said, or nothing."""
        if self.takes:
            for message in messages:
                self._take(message)
        return self.takes

    async def send(self, message: Message) -> None:
        """Take it when that is allowed, and have something happen right behind it."""
        if message["type"] != "websocket.send":
            return
        await self.may_send.wait()
        self._take(message)
        if self.then is not None:
            asyncio.get_running_loop().call_soon(self.then)
            self.then = None

    def _take(self, message: Message) -> None:
        self.said += [answer["id"] for answer in msgspec.msgpack.decode(message["bytes"])]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """One that listens."""
    app = create_app(Settings(allow_anonymous=True), "unix:///nowhere", Pools(None))
    wire = Wire()
    scope = {"type": "websocket", "path": "/v1/channel", "query_string": b"", "headers": []}
    scope["extensions"] = {LINE: wire}
    serving = asyncio.create_task(app(scope, wire.coming.get, wire.send))
    await turns(lambda: wire.hear is not None)
    await turns(lambda: False)  # and its reader receives
    yield wire
    wire.takes = True
    wire.may_send.set()
    wire.coming.put_nowait({"type": "websocket.disconnect", "code": 1000})
    await serving


async def turns(come: Callable[[], bool]) -> None:
    """Let the loop turn until something has come, ten times at most."""
    for _ in range(10):
        if come():
            return
        await asyncio.sleep(0)


async def test_what_a_task_sends_is_not_said_too(wire: Wire):
    """It has begun to send when the turn comes to say what is there: by then there is room."""

    def make_room_and_come() -> None:
        wire.takes = True
        wire.come(2)

    wire.come(1)
    asyncio.get_running_loop().call_soon(make_room_and_come)  # the line has just refused the first
    await turns(lambda: False)
    wire.may_send.set()
    await turns(lambda: len(wire.said) > 2)
    assert wire.said == [1, 2]


async def test_nothing_overtakes_a_message_that_waits_for_room(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    """It comes when there is room, and the one before is received but not yet begun."""
    monkeypatch.setattr(channel, "MOST_AT_ONCE", 1)
    wire.come(1)
    wire.come(2)
    await turns(lambda: False)
    assert wire.coming.empty()
    wire.then = partial(wire.come, 3)
    wire.may_send.set()
    await turns(lambda: len(wire.said) == 3)
    assert wire.said == [1, 2, 3]


async def test_nothing_overtakes_a_message_that_is_to_be_received():
    """However willing the application is by then."""
    heard: list[bytes | str] = []
    received: list[Any] = []
    willing = False

    def hear(data: bytes | str) -> bool:
        if willing:
            heard.append(data)
        return willing

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][LINE].listen(hear)
        await accepted.wait()
        while (message := await receive())["type"] == "websocket.receive":
            received.append(message["bytes"])

    accepted = asyncio.Event()
    protocol, there = await connection_to(application)
    try:
        protocol.data_received(HANDSHAKE)
        await turns(lambda: protocol._hear is not None)
        protocol.data_received(_frame(b"first"))
        willing = True
        protocol.data_received(_frame(b"second"))
        assert heard == []
        accepted.set()
        await turns(lambda: len(received) == 2)
        protocol.data_received(_frame(b"third"))
        assert (received, heard) == ([b"first", b"second"], [b"third"])
        assert protocol._slow is None  # nothing more of them is to come
    finally:
        there.close()
        protocol.transport.abort()
        await asyncio.gather(*protocol.tasks)


async def test_a_handshake_that_is_refused_is_forgotten_with_its_connection():
    """It never comes to a scope."""

    async def application(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("nobody is to be served")

    protocol, there = await connection_to(application)
    protocol.data_received(HANDSHAKE.replace(b"Version: 13", b"Version: 12"))
    there.close()
    await turns(lambda: protocol not in protocol.connections)
    assert protocol not in protocol.connections


async def connection_to(application: Any) -> tuple[Protocol, socket.socket]:
    """A connection to a server that serves it, and the client's end."""
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(application, lifespan="off", log_config=None, interface="asgi3")
    config.load()
    protocol = Protocol(config, ServerState(), {GUESTS: Guests()}, loop)
    there, here = socket.socketpair()
    await loop.connect_accepted_socket(lambda: protocol, here)
    return protocol, there


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def _frame(data: bytes) -> bytes:
    """A message of a client, whose mask changes nothing (RFC 6455, 5.3)."""
    return bytes((0x82, 0x80 | len(data), 0, 0, 0, 0)) + data
