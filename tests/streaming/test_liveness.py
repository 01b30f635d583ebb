"""Two clocks, six limits, and whose time it is."""

import pytest
from tests_support.stream_cases import END, HELLO, WHOLE, chat

from client_sdk.streaming import StreamAccumulator, StreamOutcome, StreamTimeouts
from limiter_wire import Outcome

PING = b": ping\n\n"
META = chat(role="assistant", content="")
LIMITS = StreamTimeouts(first_byte=5, first_token=20, idle_bytes=10, idle_content=30, total=100)


def stream(**limits: float | None) -> StreamAccumulator:
    """A stream that starts at 0."""
    every = dict.fromkeys(StreamTimeouts.__struct_fields__) | limits
    accumulator = StreamAccumulator("openai-chat", timeouts=StreamTimeouts(**every))
    accumulator.start(0.0)
    return accumulator


def test_without_a_start_there_is_no_deadline_and_the_first_bytes_are_one():
    """Who does not tell the start gets the limits from then on."""
    accumulator = StreamAccumulator("openai-chat", timeouts=LIMITS)
    assert accumulator.deadline() is None
    assert accumulator.stall(1e9) is None
    accumulator.feed(META, 50.0)
    assert accumulator.deadline() == 60.0


def test_silence_from_the_start():
    """No head in time."""
    accumulator = stream(first_byte=5, first_token=20)
    assert accumulator.deadline() == 5
    assert accumulator.stall(4.9) is None
    assert accumulator.stall(5) is StreamOutcome.STALLED_FIRST_TOKEN
    assert accumulator.category is Outcome.TIMEOUT
    assert accumulator.done
    assert accumulator.deadline() is None


def test_metadata_and_pings_are_no_first_token():
    """They prove the connection, not the answer."""
    accumulator = stream(first_byte=5, first_token=20, idle_bytes=10)
    accumulator.opened(1.0)
    for now in range(2, 20, 2):
        assert accumulator.feed(PING if now % 4 else META, float(now)) == []
        assert accumulator.stall(float(now)) is None
    assert accumulator.deadline() == 20
    assert accumulator.stall(20.0) is StreamOutcome.STALLED_FIRST_TOKEN


def test_tokens_and_then_silence():
    """The clock of bytes."""
    accumulator = stream(idle_bytes=10, idle_content=30)
    accumulator.feed(HELLO, 3.0)
    assert accumulator.deadline() == 13
    assert accumulator.stall(13.0) is StreamOutcome.STALLED_BYTES
    assert accumulator.text == "Hello"
    assert accumulator.category is Outcome.STREAM_INTERRUPTED


def test_tokens_and_then_nothing_but_pings():
    """The clock of content."""
    accumulator = stream(idle_bytes=10, idle_content=30)
    accumulator.feed(HELLO, 3.0)
    for now in range(8, 33, 5):
        accumulator.feed(PING, float(now))
        assert accumulator.stall(float(now)) is None
    assert accumulator.deadline() == 33
    assert accumulator.stall(33.0) is StreamOutcome.STALLED_CONTENT


def test_reasoning_and_tool_pieces_are_progress():
    """Whatever the model produces counts."""
    accumulator = stream(idle_content=30)
    accumulator.feed(chat(reasoning="hm"), 0.0)
    accumulator.feed(chat(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]), 29.0)
    assert accumulator.deadline() == 59


def test_a_clock_that_jumped_is_seen_on_waking():
    """After a night of sleep the stream is stuck, whatever the timer did."""
    accumulator = stream(idle_bytes=10)
    accumulator.feed(HELLO, 3.0)
    assert accumulator.stall(30_000.0) is StreamOutcome.STALLED_BYTES


def test_the_limit_that_was_over_first_names_the_stall():
    """Asked late, the answer is still the same."""
    accumulator = stream(first_token=20, idle_bytes=10)
    accumulator.feed(META, 3.0)
    assert accumulator.stall(500.0) is StreamOutcome.STALLED_BYTES
    assert "idle_bytes" in str(accumulator.error())


def test_the_time_of_the_consumer_is_not_the_provider_s():
    """While it holds a chunk only `total` runs, and gaps do not grow."""
    accumulator = stream(idle_bytes=10, idle_content=30, total=1000)
    accumulator.feed(HELLO, 1.0)
    accumulator.pause(1.0)
    assert accumulator.deadline() == 1000
    assert accumulator.stall(500.0) is None
    accumulator.resume(501.0)
    assert accumulator.deadline() == 511
    accumulator.feed(chat("!"), 502.0)
    accumulator.finish(503.0)
    figures = accumulator.statistics
    assert figures.gaps is not None
    assert (figures.held, figures.gaps.max, figures.duration) == (500, 1, 503)


def test_a_consumer_that_holds_metadata_moves_the_first_token():
    """Also before content its time is its own."""
    accumulator = stream(first_token=20)
    accumulator.feed(META, 1.0)
    accumulator.pause(1.0)
    accumulator.resume(50.0)
    assert accumulator.deadline() == 69
    accumulator.pause(60.0)
    accumulator.feed(META, 70.0)
    assert accumulator.deadline() == 79


def test_the_total_is_the_caller_s_limit():
    """It says nothing about the provider."""
    accumulator = stream(total=100)
    accumulator.feed(HELLO, 99.0)
    accumulator.pause(99.0)
    assert accumulator.deadline() == 100
    assert accumulator.stall(100.0) is StreamOutcome.CANCELLED
    assert accumulator.category is Outcome.CANCELLED
    assert "total" in str(accumulator.error())


def test_an_answer_that_is_whole_does_not_stall():
    """A server that finished and keeps the connection open has done its work."""
    accumulator = stream(idle_bytes=10)
    accumulator.feed(WHOLE, 1.0)
    assert accumulator.stall(11.0) is StreamOutcome.COMPLETED
    accumulator = stream(idle_bytes=10)
    accumulator.feed(WHOLE + END, 1.0)
    assert (accumulator.done, accumulator.deadline()) == (True, None)


def test_a_body_that_says_why_is_believed_when_it_stalls():
    """An error body whose connection stays open is that error."""
    accumulator = stream(idle_bytes=10)
    accumulator.feed(b'{"error":{"code":"rate_limit_exceeded"}}', 1.0)
    assert accumulator.stall(11.0) is StreamOutcome.PROVIDER_ERROR
    assert accumulator.category is Outcome.RATE_LIMITED


def test_a_consumer_that_leaves_cancels():
    """Neither failure nor success, unless all was said."""
    accumulator = stream()
    accumulator.feed(HELLO, 1.0)
    assert accumulator.cancel(2.0) is StreamOutcome.CANCELLED
    assert accumulator.feed(WHOLE, 3.0) == []
    assert accumulator.interrupt(4.0) is StreamOutcome.CANCELLED
    accumulator = stream()
    accumulator.feed(WHOLE, 1.0)
    assert accumulator.cancel(2.0) is StreamOutcome.COMPLETED


@pytest.mark.parametrize("name", StreamTimeouts.__struct_fields__)
@pytest.mark.parametrize("value", [0, -1, 86_401, float("nan")])
def test_a_limit_is_positive_and_at_most_a_day(name: str, value: float):
    """Or None."""
    with pytest.raises(ValueError, match=name):
        StreamTimeouts(**{name: value})
    StreamTimeouts(**{name: None})


def test_a_dialect_that_nobody_knows_is_refused_with_the_list():
    """The message names what is allowed."""
    with pytest.raises(ValueError, match="anthropic, bedrock"):
        StreamAccumulator("openai")
