"""Refusals in the providers' words."""

import json

import pytest

from client_sdk import (
    BreakerOpen,
    LimiterClosed,
    NeverFits,
    NotAllowed,
    RateLimited,
    RetryBudgetExhausted,
    ServiceUnavailable,
    SluicegateError,
    WaitTimeout,
)
from client_sdk.transports import refusal_of
from client_sdk.transports.refusals import answer_of


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (RateLimited("full", retry_after=0.5), 429, True),
        (RateLimited("full", retry_after=90.0), 429, False),
        (WaitTimeout("waited", retry_after=1.0), 429, False),
        (RetryBudgetExhausted("spent"), 429, False),
        (NeverFits("too large"), 422, False),
        (BreakerOpen("down", retry_after=2.0), 503, True),
        (ServiceUnavailable("away"), 503, True),
        (NotAllowed("no key"), 403, False),
        (LimiterClosed("the limiter is closed"), 503, False),
    ],
)
def test_status_and_retries(error: SluicegateError, status: int, again: bool):
    """An SDK comes back where that is of use, and when there is room."""
    answer = answer_of(error, "openai-chat")
    assert answer.status == status
    assert ("x-should-retry" not in answer.headers) is again
    if error.retry_after is not None:
        assert float(answer.headers["retry-after-ms"]) == error.retry_after * 1000
        assert float(answer.headers["retry-after"]) >= error.retry_after


@pytest.mark.parametrize(
    ("dialect", "path"),
    [
        ("openai-chat", ("error", "message")),
        ("openai-responses", ("error", "message")),
        ("anthropic", ("error", "message")),
        ("gemini", ("error", "message")),
        ("mistral", ("message",)),
        ("cohere", ("message",)),
        ("bedrock", ("message",)),
        ("ollama", ("error",)),
        ("unknown", ("error", "message")),
    ],
)
def test_the_body_is_the_providers(dialect: str, path: tuple[str, ...]):
    """The text stands where its SDK looks for it."""
    said = json.loads(answer_of(RateLimited("full"), dialect).body)
    for name in path:
        said = said[name]
    assert said == "sluicegate: full"


def test_our_error_is_found_behind_others():
    """Also as a cause; elsewhere there is none."""
    ours = RateLimited("full")
    other = RuntimeError("wrapped")
    other.__cause__ = ours
    assert refusal_of(other) is ours
    assert refusal_of(ours) is ours
    assert refusal_of(ValueError()) is None
