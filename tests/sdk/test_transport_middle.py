"""What a tap skips of a stream changes nothing of what is reported."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client_sdk.streaming import StreamAccumulator, StreamOutcome
from client_sdk.transports import middle
from limiter_wire import Usage


def chat(pieces: int, *, choices: int = 1, end: str = "stop", usage: bool = True) -> bytes:
    """An answer in so many pieces per choice; all choices but the last end early."""
    frames = []
    for choice in range(choices):
        said = b'{"choices":[{"index":%d,"delta":{"content":"water "}}]}' % choice
        frames += [said] * pieces
        if end:
            done = b'{"choices":[{"index":%d,"delta":{},"finish_reason":"%s"}]}'
            frames.append(done % (choice, end.encode()))
    if usage:
        frames.append(b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9}}')
    frames.append(b"[DONE]" if end else b'{"choices":[]}')
    return b"".join(b"data: %s\n\n" % frame for frame in frames)


def ended(stream: StreamAccumulator) -> tuple[StreamOutcome, Usage]:
    return stream.finish(1.0), stream.estimated_usage(5)


@pytest.mark.parametrize("choices", [1, 2])
@pytest.mark.parametrize("end", ["stop", "length", "content_filter", ""])
@pytest.mark.parametrize("usage", [True, False])
@settings(deadline=None, max_examples=20)
@given(st.integers(1, 2500), st.integers(1, 400))
def test_skipping_the_middle_changes_no_report(
    choices: int, end: str, usage: bool, pieces: int, head: int
):
    """Outcome and usage are those of a stream that was read to the last byte."""
    body = chat(pieces, choices=choices, end=end, usage=usage)
    whole, tapped = StreamAccumulator("openai-chat"), StreamAccumulator("openai-chat")
    whole.feed(body, 0.0)
    tapped.feed(body[:head], 0.0)
    middle.read_end(
        tapped,
        body[head:],
        lambda data: tapped.feed(data, 0.0),
        lambda: StreamAccumulator("openai-chat"),
    )
    assert ended(tapped) == ended(whole)


def test_the_middle_of_a_long_stream_is_not_read():
    """Only its ends are."""
    body = chat(2000)
    before, between, after = middle.parts(body, "openai-chat")
    assert before + between + after == body
    assert len(before) + len(after) < middle.TAIL + 500
    stream = StreamAccumulator("openai-chat")
    stream.feed(body[:100], 0.0)
    assert stream.committed
    middle.read_end(
        stream,
        body[100:],
        lambda data: stream.feed(data, 0.0),
        lambda: StreamAccumulator("openai-chat"),
    )
    assert stream.finish(1.0) is StreamOutcome.COMPLETED
    assert stream.statistics.events < 500


def test_frames_of_another_framing_are_all_read():
    """Bedrock's have no boundary that could be looked for."""
    assert middle.parts(b"x" * 100_000, "bedrock") == (b"x" * 100_000, b"", b"")
