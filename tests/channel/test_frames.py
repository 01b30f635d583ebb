"""Messages of the channel, without a channel."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limiter_service.engine.refusals import refuse
from limiter_service.frames import MOST_FRAMES, Answer, Closed, Closing, Frame, Verb, read, write
from limiter_wire import (
    BatchResult,
    ErrorCode,
    Granted,
    Problem,
    QueueState,
    Renewed,
    Settled,
    Waiting,
    Wire,
)

IDS = st.integers(0, 2**53) | st.text("abc-19", min_size=1, max_size=200)
ENCODE = {
    "text": lambda value: msgspec.json.encode(value).decode(),
    "bytes": msgspec.msgpack.encode,
}
DECODE = {"text": msgspec.json.decode, "bytes": msgspec.msgpack.decode}


def settle(name: int | str) -> dict[str, object]:
    """A frame."""
    return {"id": name, "op": "settle", "lease": "x"}


@settings(deadline=None)
@given(st.lists(IDS, max_size=10, unique=True), st.sampled_from(["text", "bytes"]))
def test_an_array_is_read_and_answered_in_its_own_format(names: list[int | str], form: str):
    """Every frame of it is found, in order, and the answers come back in one array."""
    frames = read(ENCODE[form]([settle(name) for name in names]))
    assert [frame.id for frame in frames] == names
    assert all(isinstance(frame, Frame) and frame.verb is Verb.SETTLE for frame in frames)
    result = BatchResult(status=200, body=Settled(refunded={"tokens": 3}))
    messages = list(write([Answer(frame.id, frame.style, result) for frame in frames]))
    assert len(messages) == (1 if names else 0)
    for message in messages:
        assert message["type"] == "websocket.send"
        told = DECODE[form](message[form])
        assert [each["id"] for each in told] == names
        assert all(each["status"] == 200 and each["settled"] for each in told)
        assert all(each["refunded"] == {"tokens": 3} for each in told)


@pytest.mark.parametrize("form", ["text", "bytes"])
def test_a_single_frame_is_answered_alone(form: str):
    """Who sends no arrays gets none; and a problem says its status once, without empty fields."""
    frames = [read(ENCODE[form](settle(name)))[0] for name in (1, 2)]
    why = refuse(ErrorCode.UNKNOWN_LEASE, "no").problem
    answers = [Answer(f.id, f.style, BatchResult(status=404, body=why)) for f in frames]
    told = [DECODE[form](message[form]) for message in write(answers)]
    assert [each["id"] for each in told] == [1, 2]
    del told[0]["id"]
    assert set(told[0]) == {"type", "title", "status", "code", "detail"}
    assert msgspec.convert(told[0], Problem) == why


BODIES = [
    Settled(refunded={"tokens": 3}),
    Settled(settled=False, degraded=True),
    Granted(lease="x", expires_in=1.5, charged={"tokens": 3}, limits=[]),
    Waiting(
        request_id="r",
        waited=1.0,
        predicted_wait=2.0,
        queue=QueueState(depth=1, predicted_wait=2.0, predicted_wait_p90=3.0),
    ),
    Renewed(lease="x", expires_in=2.0, charged={}),
    refuse(ErrorCode.UNKNOWN_LEASE, "no").problem,
]


@pytest.mark.parametrize("form", ["text", "bytes"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_a_frame_says_what_the_route_says(form: str, body: Wire):
    """Field by field, in its order, behind id and status."""
    (frame,) = read(ENCODE[form](settle("a")))
    answer = Answer(frame.id, frame.style, BatchResult(status=404, body=body))
    (message,) = write([answer])
    told = DECODE[form](message[form])
    assert told == {"id": "a", "status": 404, **msgspec.to_builtins(body)}
    assert list(told) == list({"id": "a", "status": 404, **msgspec.to_builtins(body)})


def test_what_waits_is_told_from_what_ends_soon():
    """Only an acquire with patience waits, whatever else carries the field."""
    for op, wait, expected in [
        ("acquire", 5, True),
        ("acquire", 0.1, True),
        ("acquire", 0, False),
        ("acquire", None, False),
        ("acquire", "long", False),
        ("check", 5, False),
        ("settle", 5, False),
    ]:
        (frame,) = read(ENCODE["bytes"]({"id": 1, "op": op, "max_wait": wait}))
        assert isinstance(frame, Frame)
        assert frame.waits is expected


@pytest.mark.parametrize("form", ["text", "bytes"])
@pytest.mark.parametrize("op", ["burn", None, 7, ["acquire"]])
def test_a_frame_that_cannot_be_served_is_answered_when_its_id_can_be_read(form: str, op: object):
    """Its neighbours are served."""
    bad, good = read(ENCODE[form]([{"id": 1, "op": op}, settle(2)]))
    assert isinstance(good, Frame)
    assert isinstance(bad, Answer)
    assert (bad.id, bad.result.status, bad.result.body.code) == (1, 422, "invalid")


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"\xc1", b"\x91", b"\xdd\xff\xff\xff\xff", b"\x92\x01"),
        *("", "{", "[", "[{}", "]", "\ud7ff"),
        *("7", "null", "[7]", "{}", '{"op": "settle"}', '{"id": null}', '{"id": ""}'),
        *('{"id": -1}', '{"id": 1.5}', '{"id": 9007199254740993}', '[{"id": 1}, {}]'),
    ],
)
def test_a_message_without_a_readable_id_closes_the_channel(message: bytes | str):
    """There is nobody to answer; the reason says what is wrong, and fits a close frame."""
    with pytest.raises(Closed) as caught:
        read(message)
    assert caught.value.code is Closing.UNREADABLE
    assert 10 < len(caught.value.reason.encode()) <= 123


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_message_breaks_the_reader(message: bytes | str):
    """Whatever comes is frames, answers or the end."""
    with contextlib.suppress(Closed):
        assert all(isinstance(each, Frame | Answer) for each in read(message))


def test_a_message_has_a_bounded_number_of_frames():
    """As many as a batch has operations."""
    frames = [settle(name) for name in range(MOST_FRAMES)]
    assert len(read(ENCODE["bytes"](frames))) == MOST_FRAMES
    with pytest.raises(Closed) as caught:
        read(ENCODE["bytes"]([*frames, settle("x")]))
    assert caught.value.code is Closing.MISUSED


def test_many_answers_are_several_messages():
    """An array that is answered is no larger than one that is asked."""
    (frame,) = read(ENCODE["bytes"]([settle(1)]))
    answer = Answer(1, frame.style, BatchResult(status=200, body=Settled()))
    told = [DECODE["bytes"](message["bytes"]) for message in write([answer] * 600)]
    assert [len(each) for each in told] == [256, 256, 88]
