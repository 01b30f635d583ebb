"""The decoder of server-sent events: the standard, however the bytes are cut."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support.chunking import chunkings, pieces
from tests_support.whatwg import interpret

from client_sdk.errors import ProtocolError
from client_sdk.streaming import Event, Heartbeat, SSEDecoder

LONG = b"x" * 2049
SEPARATORS = "\u2028\u0085\x0b\x0c\x1c\x1d\x1e"

# The body, and the data of the events that WHATWG dispatches.
FRAMES: dict[str, tuple[bytes, list[str]]] = {
    "a BOM at the start, another is part of a name": (
        b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n",
        ["1", "3"],
    ),
    "two BOMs": (b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\n", ["2"]),
    "two thirds of a BOM": (b"\xef\xbbdata:1\n\ndata:2\n\n", ["2"]),
    "characters of several bytes": ("data: €豆腐\n\n".encode(), ["€豆腐"]),
    "a byte that is no UTF-8": (b'data: {"c":"\xff"}\n\n', ['{"c":"\ufffd"}']),
    "mixed line ends in one event": (
        b"data: A\r\ndata: B\r\ndata: C\r\n\r\n",
        ["A\nB\nC"],
    ),
    "CR CR ends an event, and the LF behind is of the second": (
        b"data: first\r\r\ndata: second\r\r\n",
        ["first", "second"],
    ),
    "CR and LF of every kind": (b"data:test\r\ndata\ndata:test\r\n\r\n", ["test\n\ntest"]),
    "comments between, long ones and with NUL": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + LONG + b"\rdata:3\n:data:fail\r:" + LONG + b"\ndata:4\n\n",
        ["1\n2\n3\n4"],
    ),
    "data without a value": (b"data:\n\ndata\ndata\n\ndata:test\n\n", ["", "\n", "test"]),
    "retry is no event": (b"retry:1000\nretry:2000x\ndata:x\n\n", ["x"]),
    "separators of Unicode are no line ends": (
        f'data: {{"t":"a{SEPARATORS}b"}}\n\n'.encode(),
        [f'{{"t":"a{SEPARATORS}b"}}'],
    ),
    "one JSON on two lines": (b'data: {"a":\ndata: 1}\n\n', ['{"a":\n1}']),
    "an event without data": (b"event: ping\n\ndata: x\n\n", ["x"]),
    "a comment after an id": (b"id: 1\ndata:{}\n\n: ping\n\n", ["{}"]),
    "three empty lines": (b"data: a\n\n\n\ndata: b\n\n\n", ["a", "b"]),
    "only one space is taken away": (b"data:  a\ndata:\tb\n\n", [" a\n\tb"]),
    "no space at all": (b"data:a\n\nevent:e\ndata:b\n\n", ["a", "b"]),
    "a name with a space, and unknown names": (b"data : x\nfoo: y\nDATA: z\n\ndata: 1\n\n", ["1"]),
    "event twice, the last counts": (b"event: a\nevent: b\ndata: 1\n\n", ["1"]),
    "data before event": (b"data: 1\nevent: late\n\n", ["1"]),
    "event, data, data": (b"event: e\ndata: 1\ndata: 2\n\n", ["1\n2"]),
    "an empty name of an event": (b"event: \ndata: 1\n\nevent\ndata: 2\n\n", ["1", "2"]),
    "no end": (b"data: 1\n\ndata: 2", ["1"]),
    "empty": (b"", []),
    "nothing but line ends": (b"\n\r\r\n\n", []),
}


def decode(chunks: list[bytes], **options: int) -> list[Event | Heartbeat]:
    """Everything that `feed` and `flush` return."""
    decoder = SSEDecoder(**options)
    found = [item for chunk in chunks for item in decoder.feed(chunk)]
    return found + decoder.flush()


def data_of(items: list[Event | Heartbeat]) -> list[str]:
    """The data of terminated events."""
    return [item.text for item in items if isinstance(item, Event) and item.terminated]


@pytest.mark.parametrize("name", FRAMES)
def test_a_stream_means_the_same_however_it_is_cut(name: str):
    """Feed, iterator and the standard agree on each cut."""
    body, expected = FRAMES[name]
    reference = [event.data for event in interpret(body).events]
    assert reference == expected
    whole = decode([body])
    for chunks in chunkings(body):
        assert decode(chunks) == whole
        assert list(SSEDecoder().iter_events(chunks)) == whole
    assert data_of(whole) == expected


ALPHABET = [
    *(bytes([byte]) for byte in b"\n\r: 0x"),
    *(
        b"data",
        b"data:",
        b"data: ",
        b"event: ",
        b"id",
        b"id: 7",
        b"retry:",
        b"12",
        b"\r\n",
        b"\n\n",
    ),
    *(b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xe2\x82\xac", b"\xe2\x82", b"\xff", b"\0", b"[DONE]"),
]


@settings(deadline=None)
@given(
    body=st.lists(st.sampled_from(ALPHABET), max_size=60).map(b"".join) | st.binary(max_size=60),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_the_decoder_agrees_with_the_standard(body: bytes, cuts: list[int]):
    """Any bytes, any cuts: the same events, names, ids and retry as the slow reading."""
    decoder = SSEDecoder()
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    chunks = [body[a:b] for a, b in itertools.pairwise(places)]
    found = [item for chunk in chunks for item in decoder.feed(chunk)]
    expected = interpret(body)
    events = [item for item in found if isinstance(item, Event)]
    assert [(e.event, e.text, e.id) for e in events] == [
        (e.event, e.data, e.id) for e in expected.events
    ]
    assert decoder.last_event_id == expected.last_event_id
    assert decoder.retry == expected.retry
    assert list(SSEDecoder().iter_events(chunks)) == found + decoder.flush()


def test_signs_of_life_are_visible():
    """Comments, pings and frames without data are heartbeats, and keep their words."""
    body = (
        b": OPENROUTER PROCESSING\n\n:\n\nevent: ping\n\nevent: keepalive\n\nid: 3\n\nretry: 5\n\n"
    )
    assert decode([body]) == [
        Heartbeat("comment", "OPENROUTER PROCESSING"),
        Heartbeat("comment", ""),
        Heartbeat("ping", "ping"),
        Heartbeat("ping", "keepalive"),
        Heartbeat("control", ""),
        Heartbeat("control", ""),
    ]


def test_a_comment_is_seen_at_its_line_end_and_an_event_at_cr_cr():
    """Nothing waits for bytes that may never come."""
    decoder = SSEDecoder()
    assert decoder.feed(b": hi\n") == [Heartbeat("comment", "hi")]
    assert decoder.feed(b"data: a\r\r") == [Event("message", b"a")]
    assert decoder.feed(b"\n") == []


def test_a_last_event_without_its_end_says_so():
    """One missing line end, or two; a cut name or id is dropped."""
    for end in (b"", b"\n", b"\r\n", b"\r"):
        assert decode([b"event: e\ndata: 1" + end]) == [Event("e", b"1", terminated=False)]
    assert decode([b"data: 1\nid: 4"]) == [Event("message", b"1", terminated=False)]
    assert decode([b"data: 1\ndat"]) == [Event("message", b"1", terminated=False)]
    assert decode([b"event: e\n"]) == []


def test_ids_stay_until_the_next_one_and_nul_is_no_id():
    """The id of an event is that of the stream."""
    body = b"id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid\ndata: d\n\n"
    assert [item.id for item in decode([body]) if isinstance(item, Event)] == ["1", "1", "1", ""]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"retry: 03000", 3000),
        (b"retry", None),
        (b"retry: ", None),
        (b"retry: 12x", None),
        (b"retry: -1", None),
        (b"retry: \xef\xbc\x91\xef\xbc\x92", None),
        (b"retry: " + b"0" * 5000 + b"7", 7),
        (b"retry: " + b"9" * 5000, 10**18 - 1),
    ],
)
def test_only_ascii_digits_are_a_retry(line: bytes, expected: int | None):
    """And no number of digits is too much."""
    decoder = SSEDecoder()
    decoder.feed(line + b"\n")
    assert decoder.retry == expected


def test_events_before_one_that_is_too_large_are_delivered():
    """Whole or cut, in a line or over many lines; afterwards the decoder refuses."""
    for large in (b"data: " + b"y" * 70, b"data: yyyyyyyyyyyyyyyyyyyyyyyyyyy\n" * 3, b":" + LONG):
        body = b"data: 1\n\nevent: e\ndata: 2\n\n" + large + b"\n\ndata: 3\n\n"
        for chunks in chunkings(body):
            decoder = SSEDecoder(max_event_bytes=64)
            found: list[str] = []
            for chunk in chunks:
                if decoder.broken is None:
                    found += data_of(decoder.feed(chunk))
            assert found == ["1", "2"]
            assert decoder.broken is not None
            for refused in (lambda d=decoder: d.feed(b"x"), decoder.flush):
                with pytest.raises(ProtocolError, match="max_event_bytes=64"):
                    refused()


def test_an_event_of_exactly_the_limit_passes():
    """The bound is on lines and on data."""
    body = b"data: " + b"y" * 58 + b"\n\n"
    assert len(data_of(decode([body], max_event_bytes=64))) == 1
    assert len(data_of(decode(pieces(body, 1), max_event_bytes=64))) == 1


def test_the_iterator_takes_chunks_one_at_a_time():
    """A consumer that stops leaves the rest of the source alone."""
    taken: list[int] = []

    def source():
        for n in range(100):
            taken.append(n)
            yield b"data: %d\n\n" % n

    events = SSEDecoder().iter_events(source())
    assert [next(events), next(events)] == [Event("message", b"0"), Event("message", b"1")]
    assert taken == [0, 1]


def test_the_iterator_does_not_decode_far_ahead_within_a_chunk():
    """Of a large chunk only what the consumer takes, and a little."""
    decoder = SSEDecoder()
    events = decoder.iter_events([b"".join(b"id: %d\ndata: x\n\n" % n for n in range(2000))])
    next(events)
    assert int(decoder.last_event_id) < 400
    assert len(list(events)) == 1999


class Counted(bytes):
    """Bytes that count how much of them is searched, split and joined."""

    work = 0

    def split(self, *args):  # type: ignore[override]
        """Count, then split."""
        Counted.work += len(self)
        return super().split(*args)

    def __contains__(self, item):  # type: ignore[override]
        """Count, then look."""
        Counted.work += len(self)
        return super().__contains__(item)


def work_of(size: int, chunk: int) -> int:
    """Bytes looked at for one data line of *size*."""
    Counted.work = 0
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    for _ in range(size // chunk):
        decoder.feed(Counted(b"x" * chunk))
    (event,) = decoder.feed(b"\n\n")
    assert isinstance(event, Event)
    assert len(event.data) == size
    return Counted.work


def test_a_large_event_in_small_chunks_costs_linear_work():
    """Twice the size is twice the work: no chunk is looked at again."""
    assert work_of(1 << 18, 256) <= 3 * (1 << 18)
    assert work_of(1 << 19, 256) == 2 * work_of(1 << 18, 256)


def test_a_very_large_event_is_delivered():
    """Nothing but the caller's own bound limits an event."""
    piece = b"z" * 4093
    decoder = SSEDecoder()
    decoder.feed(b"data: ")
    for _ in range(4096):
        assert decoder.feed(piece) == []
    (event,) = decoder.feed(b"\n\n")
    assert isinstance(event, Event)
    assert len(event.data) == 4096 * 4093
