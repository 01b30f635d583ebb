"""The framings besides server-sent events: lines of JSON, and the messages of AWS."""

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support.chunking import chunkings, pieces

from client_sdk.errors import ProtocolError
from client_sdk.streaming import Event, EventStreamDecoder, Heartbeat, NDJSONDecoder
from client_sdk.streaming.eventstream import encode


def read(decoder: NDJSONDecoder | EventStreamDecoder, chunks: list[bytes]) -> list[object]:
    """Everything until the decoder refuses, and what `flush` adds."""
    found: list[object] = []
    for chunk in chunks:
        if decoder.broken is None:
            found += decoder.feed(chunk)
    return found if decoder.broken is not None else found + decoder.flush()


def test_lines_are_events_and_empty_lines_heartbeats():
    """However they are cut; the last one may lack its end."""
    body = b'{"a":1}\r\n\n {"b":2} \n{"c"'
    expected = [
        Event("message", b'{"a":1}'),
        Heartbeat("control"),
        Event("message", b'{"b":2}'),
        Event("message", b'{"c"', terminated=False),
    ]
    for chunks in chunkings(body):
        assert read(NDJSONDecoder(), chunks) == expected


def test_a_line_that_is_too_long_ends_the_stream():
    """After the lines before it."""
    body = b"{}\n" + b"x" * 30 + b"\n{}\n"
    for chunks in chunkings(body):
        decoder = NDJSONDecoder(max_event_bytes=16)
        assert read(decoder, chunks) == [Event("message", b"{}")]
        with pytest.raises(ProtocolError, match="16"):
            decoder.feed(b"{}")


def test_messages_of_aws_are_read_however_they_are_cut():
    """Names, payloads, exceptions."""
    body = (
        encode("messageStart", b"{}")
        + encode("contentBlockDelta", b'{"delta":{"text":"x"}}')
        + encode("modelTimeoutException", b'{"message":"x"}', message_type="exception")
    )
    expected = [
        Event("messageStart", b"{}"),
        Event("contentBlockDelta", b'{"delta":{"text":"x"}}'),
        Event("exception:modelTimeoutException", b'{"message":"x"}'),
    ]
    for chunks in chunkings(body):
        assert read(EventStreamDecoder(), chunks) == expected


def message(headers: bytes, payload: bytes = b"") -> bytes:
    """A message with headers as given."""
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


def test_headers_of_all_types_are_passed_over():
    """Only text is looked at."""
    text = b"\x0b:event-type\x07\x00\x01e"
    others = (
        b"\x01a\x00\x01b\x01\x01c\x02x\x01d\x03xx\x01e\x04xxxx\x01f\x05xxxxxxxx"
        b"\x01g\x06\x00\x02xx\x01h\x08xxxxxxxx\x01i\x09xxxxxxxxxxxxxxxx"
    )
    assert EventStreamDecoder().feed(message(others + text, b"p")) == [Event("e", b"p")]


def test_an_error_message_is_an_exception_with_its_text():
    """The third type of messages."""
    headers = (
        b"\x0d:message-type\x07\x00\x05error\x0b:error-code\x07\x00\x01E"
        b"\x0e:error-message\x07\x00\x03why"
    )
    assert EventStreamDecoder().feed(message(headers)) == [
        Event("exception:E", b'{"message":"why"}')
    ]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda body: b"\0\0\0\1" + body[4:], "prelude"),
        (lambda body: body[:20] + b"\xff" + body[21:], "message"),
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), "message"),
        (lambda _: message(b"\x05ab"), "headers"),
        (lambda _: message(b"\x01a\x07\x00\xffx"), "headers"),
        (lambda _: message(b"\x01a\x63"), "headers"),
        (
            lambda _: b"\0\0\0\1\0\0\0\0" + struct.pack(">I", zlib.crc32(b"\0\0\0\1\0\0\0\0")),
            "length",
        ),
        (lambda _: encode("big", b"x" * 200), "larger"),
    ],
)
def test_damage_is_found_after_what_was_whole(damage, said: str):
    """Checksums, lengths, headers and sizes."""
    good = encode("e", b"1")
    for chunks in (pieces(good + damage(good), 7), [good + damage(good)]):
        decoder = EventStreamDecoder(max_event_bytes=100)
        assert read(decoder, chunks) == [Event("e", b"1")]
        assert said in (decoder.broken or "")
        with pytest.raises(ProtocolError):
            decoder.feed(good)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=5), st.data())
def test_what_is_encoded_is_decoded(messages: list[tuple[str, bytes]], data: st.DataObject):
    """In any chunks."""
    body = b"".join(encode(name, payload) for name, payload in messages if len(name.encode()) < 60)
    size = data.draw(st.integers(1, 40))
    assert read(EventStreamDecoder(), pieces(body, size)) == [
        Event(name, payload) for name, payload in messages
    ]


def test_a_message_in_single_bytes_is_joined_once():
    """The buffer is not built again for each chunk."""
    body = encode("e", b"x" * 200_000)
    decoder = EventStreamDecoder()
    for byte in pieces(body[:-1], 1):
        assert decoder.feed(byte) == []
    assert len(decoder._parts) > 190_000
    assert decoder.feed(body[-1:]) == [Event("e", b"x" * 200_000)]
