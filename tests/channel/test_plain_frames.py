"""A channel reads and writes plain frames by itself, and leaves the others to the protocol."""

import asyncio
import itertools
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from client_sdk import _dial
from client_sdk._plain_frames import extent, framed
from client_sdk._socket_async import Socket

PLAIN = st.sampled_from([b"", b"\x90", b"x" * 125, b"y" * 126, b"z" * 65_535, b"z" * 65_536])
KINDS = st.sampled_from(["message", "in three", "ping", "text"])


class Line(asyncio.Transport):
    """A network that keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.sent += data

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        """There are none."""

    def can_write_eof(self) -> bool:
        """As of TLS."""
        return False

    def close(self) -> None:
        """Remember that."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed


def connected(behind: bytes = b"") -> tuple[Socket, Line, ServerProtocol, list[bytes]]:
    """A client's end whose handshake was answered with *behind* after it, the service's end, and
    the messages that were heard.
    """
    heard: list[bytes] = []
    protocol = ClientProtocol(parse_uri("ws://x/"), max_size=_dial.MOST_BYTES)
    socket = Socket(protocol, heard=heard.append, writable=lambda: None)
    line, service = Line(), ServerProtocol()
    socket.connection_made(line)
    request = protocol.connect()
    protocol.send_request(request)
    service.receive_data(b"".join(protocol.data_to_send()))
    [asked] = service.events_received()
    service.send_response(service.accept(cast(Any, asked)))
    socket.data_received(b"".join(service.data_to_send()) + behind)
    assert socket.protocol.state is OPEN
    return socket, line, service, heard


def said(frame: Frame) -> bytes:
    """*frame* as a service sends it."""
    return frame.serialize(mask=False)


def frames_of(kind: str, payload: bytes) -> list[Frame]:
    """How a service may say *payload*, or something else."""
    if kind == "in three":
        parts = Frame(Opcode.BINARY, payload, fin=False), Frame(Opcode.CONT, b"-", fin=False)
        return [*parts, Frame(Opcode.CONT, payload)]
    if kind == "ping":
        return [Frame(Opcode.PING, b"are you there")]
    return [Frame(Opcode.TEXT if kind == "text" else Opcode.BINARY, payload)]


@given(
    said_so=st.lists(st.tuples(KINDS, PLAIN), max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 12)), max_size=9),
    behind=st.booleans(),
)
@settings(deadline=None)
def test_messages_are_heard_however_they_are_cut(
    said_so: list[tuple[str, bytes]], cuts: list[tuple[int, int]], behind: bool
):
    """In their order, whole, and pings among them are replied to."""

    async def hearing() -> None:
        sent = [said(frame) for kind, load in said_so for frame in frames_of(kind, load)]
        stream = b"".join(sent)
        starts = [*itertools.accumulate(map(len, sent), initial=0)]
        places = (starts[frame % len(starts)] + more for frame, more in cuts)
        cut = sorted({0, *(min(len(stream), place) for place in places), len(stream)})
        first, *later = [stream[a:b] for a, b in itertools.pairwise(cut)] or [b""]
        # Behind the answer to the handshake, in one piece with it, or on its own.
        socket, line, service, heard = connected(first if behind else b"")
        for piece in later if behind else [first, *later]:
            socket.data_received(piece)
        wanted = [
            payload if kind in {"message", "text"} else payload + b"-" + payload
            for kind, payload in said_so
            if kind != "ping"
        ]
        assert heard == wanted
        service.receive_data(line.sent)
        pongs = [event.opcode for event in cast(list[Frame], service.events_received())]
        assert pongs == [Opcode.PONG] * sum(kind == "ping" for kind, _ in said_so)
        assert service.state is socket.protocol.state is OPEN

    asyncio.run(hearing())


@given(payload=PLAIN)
@settings(deadline=None)
def test_what_is_said_can_be_read(payload: bytes):
    """By the protocol of a service, which wants it masked."""
    reader = Protocol(SERVER)
    reader.receive_data(framed(payload) + framed(payload))
    read = cast(list[Frame], reader.events_received())
    assert [bytes(each.data) for each in read] == [payload] * 2
    assert framed(payload) != framed(payload)  # nobody can tell what it will look like


@given(payload=PLAIN, lacks=st.integers(1, 20), before=st.integers(0, 3))
@settings(deadline=None)
def test_the_end_of_a_frame_is_not_seen_too_soon(payload: bytes, lacks: int, before: int):
    """While a part of it is to come, it is said to end beyond what is there."""
    frame = b"-" * before + said(Frame(Opcode.BINARY, payload))
    assert extent(frame, before) == (len(frame) - len(payload), len(frame))
    there = frame[:-lacks]
    assert len(there) < before or len(there) < extent(there, before)[1] <= len(frame)


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x82\x81mask-",
        b"\xc2\x00",  # a bit that nobody has agreed on
        b"\x80\x00",  # the rest of nothing
        said(Frame(Opcode.BINARY, b"a", fin=False)) + said(Frame(Opcode.BINARY, b"b")),
    ],
    ids=["masked", "reserved", "continued", "within another"],
)
async def test_what_breaks_the_rules_ends_the_connection(wrong: bytes):
    """As the protocol would have it, and nothing after it is heard."""
    socket, line, service, heard = connected()
    socket.data_received(said(Frame(Opcode.BINARY, b"first")))
    socket.data_received(wrong + said(Frame(Opcode.BINARY, b"more")))
    service.receive_data(line.sent)
    assert heard == [b"first"]
    assert service.close_rcvd is not None
    assert service.close_rcvd.code == CloseCode.PROTOCOL_ERROR


async def test_a_message_that_is_too_large_ends_the_connection():
    """Before it is there, so that nobody keeps it."""
    socket, line, service, heard = connected()
    socket.data_received(b"\x82\x7f" + (_dial.MOST_BYTES + 1).to_bytes(8, "big") + b"x")
    service.receive_data(line.sent)
    assert not heard
    assert service.close_rcvd is not None
    assert service.close_rcvd.code == CloseCode.MESSAGE_TOO_BIG


async def test_a_goodbye_in_the_middle_of_what_is_read_is_the_last():
    """It is answered, and what comes behind it is nobody's."""
    socket, line, service, heard = connected()
    goodbye = Frame(Opcode.CLOSE, (1012).to_bytes(2, "big"))
    message = said(Frame(Opcode.BINARY, b"m"))
    socket.data_received(message + said(goodbye) + message + message[:1])
    socket.data_received(message[1:])
    service.receive_data(line.sent)
    assert heard == [b"m"]
    assert socket.closed_with == 1012
    assert service.close_rcvd is not None
