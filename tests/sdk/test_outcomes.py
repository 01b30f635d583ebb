"""What an exception says about the provider call, and options that cannot be."""

import asyncio

import httpx
import pytest

from client_sdk import LimiterOptions, Outcome
from client_sdk.outcomes import outcome_of


def failed(status: int) -> httpx.HTTPStatusError:
    """What `raise_for_status` raises."""
    request = httpx.Request("POST", "http://provider")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.SUCCESS),
        (failed(400), Outcome.INVALID_REQUEST),
        (failed(401), Outcome.AUTH),
        (failed(402), Outcome.QUOTA_EXHAUSTED),
        (failed(403), Outcome.PERMISSION),
        (failed(404), Outcome.NOT_FOUND),
        (failed(408), Outcome.TIMEOUT),
        (failed(413), Outcome.INVALID_REQUEST),
        (failed(418), Outcome.INVALID_REQUEST),
        (failed(422), Outcome.INVALID_REQUEST),
        (failed(429), Outcome.RATE_LIMITED),
        (failed(500), Outcome.SERVER_ERROR),
        (failed(502), Outcome.SERVER_ERROR),
        (failed(503), Outcome.OVERLOADED),
        (failed(529), Outcome.OVERLOADED),
        (TimeoutError(), Outcome.TIMEOUT),
        (httpx.ReadTimeout(""), Outcome.TIMEOUT),
        (httpx.ConnectError(""), Outcome.CONNECTION),
        (httpx.RemoteProtocolError(""), Outcome.CONNECTION),
        (ConnectionResetError(), Outcome.CONNECTION),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (KeyboardInterrupt(), Outcome.CANCELLED),
        (ValueError("of the caller's own code"), Outcome.CANCELLED),
    ],
    ids=repr,
)
def test_an_exception_tells_the_outcome(error: BaseException | None, outcome: Outcome):
    """Status first, then the kind; what is not the provider's is neutral."""
    assert outcome_of(error) is outcome


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("timeout", [0, -1, 3601, float("nan"), float("inf")]),
        ("connect_timeout", [0, -1, 3601, float("nan")]),
        ("backoff", [0, -1, 3601]),
        ("max_backoff", [0, -1, 3601]),
        ("attempts", [0, -1, 21]),
        ("connections", [0, -1, 65]),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, values: list[float]):
    """The message names the option, the value and what is allowed."""
    for value in values:
        with pytest.raises(ValueError, match=f"{name}=.*allowed is"):
            LimiterOptions(**{name: value})
