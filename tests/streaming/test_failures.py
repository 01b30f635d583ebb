"""The exception of a stream that ended badly, what is settled, and the public names."""

import importlib
import pickle

import pytest
from tests_support.stream_cases import HELLO, anthropic, chat, said, sse, started

import client_sdk.streaming
from client_sdk.errors import (
    CallFailed,
    EmptyStream,
    NotAnEventStream,
    ProtocolError,
    ProviderError,
    StreamInterrupted,
    StreamStalled,
)
from client_sdk.outcomes import outcome_of
from client_sdk.streaming import (
    ProviderFault,
    StreamAccumulator,
    StreamOutcome,
    StreamTimeouts,
    category_of,
    reported,
)
from client_sdk.streaming.faults import fault_of
from limiter_wire import Outcome, Provenance

SECRET = "sk-proj-0123456789abcdefghijklmnop"


def failed(body: bytes, end: str = "finish", dialect: str = "openai-chat") -> CallFailed:
    """The error of a body."""
    limits = StreamTimeouts(idle_bytes=1)
    accumulator = StreamAccumulator(dialect, timeouts=limits)
    if body:
        accumulator.feed(body, 0.0)
    getattr(accumulator, end)(10.0)
    error = accumulator.error(resource="openai/gpt", retry_after=9.0)
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("body", "end", "kind", "outcome", "category", "retryable"),
    [
        (HELLO, "finish", StreamInterrupted, "truncated", Outcome.STREAM_INTERRUPTED, False),
        (HELLO, "interrupt", StreamInterrupted, "interrupted", Outcome.STREAM_INTERRUPTED, False),
        (b"", "interrupt", StreamInterrupted, "interrupted", Outcome.STREAM_INTERRUPTED, True),
        (HELLO, "stall", StreamStalled, "stalled_bytes", Outcome.STREAM_INTERRUPTED, False),
        (b": x\n\n", "stall", StreamStalled, "stalled_bytes", Outcome.STREAM_INTERRUPTED, True),
        (HELLO, "cancel", StreamInterrupted, "cancelled", Outcome.CANCELLED, False),
        (b"", "cancel", StreamInterrupted, "cancelled", Outcome.CANCELLED, False),
        (b": x\n\n", "finish", EmptyStream, "empty", Outcome.STREAM_INTERRUPTED, True),
        (b"<p>", "finish", NotAnEventStream, "not_an_event_stream", Outcome.MALFORMED_STREAM, True),
        (sse("{"), "finish", ProtocolError, "protocol_error", Outcome.MALFORMED_STREAM, True),
        (
            sse({"error": "overloaded"}),
            "finish",
            ProviderError,
            "provider_error",
            Outcome.OVERLOADED,
            True,
        ),
        (
            sse({"error": {"code": 400}}),
            "finish",
            ProviderError,
            "provider_error",
            Outcome.INVALID_REQUEST,
            False,
        ),
    ],
)
def test_each_bad_end_has_its_exception(body, end, kind, outcome, category, retryable):
    """With what is settled, and whether to try again: only while nothing was delivered."""
    error = failed(body, end)
    assert type(error) is kind
    assert (error.outcome, error.category, error.retryable) == (outcome, category, retryable)
    assert outcome_of(error) is category
    assert error.phase == ("mid_content" if body == HELLO else "pre_content")
    assert error.partial == ("Hello" if body == HELLO else "")
    assert (error.resource, error.retry_after) == ("openai/gpt", 9.0)


def test_every_outcome_has_a_category():
    """And a whole answer is none that failed."""
    for outcome in StreamOutcome:
        assert isinstance(reported(outcome), Outcome)
        good = reported(outcome) in {Outcome.SUCCESS, Outcome.CONTENT_FILTERED}
        assert good is outcome.whole
    assert reported(StreamOutcome.PROVIDER_ERROR, Outcome.AUTH) is Outcome.AUTH


def test_the_partial_usage_goes_with_the_error():
    """What the provider said before it failed."""
    frames = [said(word) for word in "abcdef"]
    error = failed(anthropic(started(50, 2), *frames), "interrupt", "anthropic")
    assert error.usage is not None
    assert (error.usage.input_tokens, error.usage.output_tokens) == (50, 6)
    assert error.usage.provenance is Provenance.PARTIAL
    assert error.request_id == "m1"


def test_what_the_provider_said_is_data_and_not_text():
    """Messages may quote the request; neither text nor excerpt shows a key."""
    error = failed(sse({"error": {"message": f"bad key {SECRET}", "code": "invalid_api_key"}}))
    assert SECRET not in str(error)
    assert "invalid_api_key" in str(error)
    assert error.provider_message == f"bad key {SECRET}"
    assert error.status == 401
    garbled = failed(HELLO + sse("{" + SECRET))
    assert SECRET not in str(garbled) + repr(garbled) + repr(garbled.__cause__)
    page = failed(f"<html>key {SECRET} {'words ' * 100}".encode())
    assert page.excerpt.startswith("<html>key *** words")
    assert len(page.excerpt) == 200


def test_the_provider_s_wait_counts_before_the_header_s():
    """RetryInfo of Google, and numbers beside the error."""
    body = {
        "error": {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "RetryInfo", "retryDelay": "34.07s"}],
        }
    }
    error = failed(sse(body), dialect="gemini")
    assert (error.retry_after, error.status) == (34.07, 429)
    fault = fault_of({"error": {"code": 502, "availability": {"retry_after": 3}}})
    assert fault is not None
    assert fault.retry_after == 3


def test_the_category_of_a_fault_can_be_decided_by_the_caller():
    """The built-in rules are only a default."""
    seen: list[ProviderFault] = []

    def classify(fault: ProviderFault) -> Outcome:
        seen.append(fault)
        return Outcome.QUOTA_EXHAUSTED

    accumulator = StreamAccumulator("openai-chat", classify=classify)
    accumulator.feed(sse({"error": {"code": "odd", "message": "m"}}), 0.0)
    assert accumulator.category is Outcome.QUOTA_EXHAUSTED
    assert seen[0].code == "odd"


@pytest.mark.parametrize(
    ("fault", "category"),
    [
        (ProviderFault(status=429), Outcome.RATE_LIMITED),
        (ProviderFault(status=429, code="insufficient_quota"), Outcome.QUOTA_EXHAUSTED),
        (ProviderFault(status=529), Outcome.OVERLOADED),
        (ProviderFault(status=418), Outcome.INVALID_REQUEST),
        (ProviderFault(code="Throttlingexception"), Outcome.RATE_LIMITED),
        (ProviderFault(type="overloaded_error"), Outcome.OVERLOADED),
        (ProviderFault(code="nobody knows"), Outcome.SERVER_ERROR),
        (ProviderFault(), Outcome.SERVER_ERROR),
    ],
)
def test_the_built_in_categories(fault: ProviderFault, category: Outcome):
    """Code before type before status."""
    assert category_of(fault) is category


def test_limits_of_size_are_protocol_errors():
    """After what came before the event that is too large."""
    accumulator = StreamAccumulator("openai-chat", max_event_bytes=200)
    accumulator.feed(HELLO + chat("x" * 300) + chat("y"), 0.0)
    assert accumulator.outcome is StreamOutcome.PROTOCOL_ERROR
    assert accumulator.text == "Hello"
    assert "max_event_bytes=200" in str(accumulator.error())


def test_lines_that_are_too_large_together_are_found_at_the_end():
    """The last line has no end, and only with it the event is too large."""
    accumulator = StreamAccumulator("openai-chat", max_event_bytes=64)
    accumulator.feed(b"data: " + b"x" * 50 + b"\ndata: " + b"y" * 50, 0.0)
    assert accumulator.finish(1.0) is StreamOutcome.PROTOCOL_ERROR


def test_a_body_without_end_is_given_up():
    """A page of gigabytes is not collected."""
    accumulator = StreamAccumulator("openai-chat")
    for n in range(300):
        accumulator.feed(b"<p>" + b"x" * 8192, float(n))
    assert accumulator.outcome is StreamOutcome.NOT_AN_EVENT_STREAM
    assert sum(map(len, accumulator._body or [])) < 2 << 20


def test_spaces_without_end_are_no_stream_either():
    """The first bytes are looked at only so long."""
    accumulator = StreamAccumulator("openai-chat")
    for n in range(20):
        accumulator.feed(b"\n" * 8192, float(n))
    assert len(accumulator._head) < 1 << 14
    assert accumulator.finish(999.0) is StreamOutcome.EMPTY


def test_errors_survive_pickling_as_far_as_exceptions_do():
    """Worker pools hand exceptions around."""
    error = pickle.loads(pickle.dumps(failed(HELLO)))
    assert (type(error), error.partial) == (StreamInterrupted, "Hello")


def test_the_public_names_are_the_ones_listed():
    """`__all__` is sorted, and each name is found where it is said to be."""
    names = client_sdk.streaming.__all__
    assert names == sorted(names)
    assert set(names) == set(client_sdk.streaming._HOMES)
    for name in names:
        home = importlib.import_module(client_sdk.streaming._HOMES[name])
        assert getattr(client_sdk.streaming, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = client_sdk.streaming.Nothing
