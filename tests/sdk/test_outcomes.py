"""What an exception says about the provider call, and options that cannot be."""

import asyncio
import subprocess
import sys

import httpx
import pytest

from client_sdk import Lease, LimiterOptions, Outcome
from client_sdk.outcomes import cause_of, failure_of, outcome_of
from limiter_wire import Granted, Renewed, Settle, Settled


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


def refused(status: int, body: object, url: str = "http://provider") -> httpx.HTTPStatusError:
    """What `raise_for_status` raises, with a body that has been read."""
    request = httpx.Request("POST", url)
    response = httpx.Response(status, json=body, request=request)
    return httpx.HTTPStatusError("", request=request, response=response)


class APIError(Exception):
    """As the openai package raises it for an error event: a body, and no response."""

    def __init__(self, message: str, body: object) -> None:
        super().__init__(message)
        self.body, self.request = body, httpx.Request("POST", "https://api.openai.com/v1/x")


class APIConnectionError(APIError):
    """As SDKs raise it around the HTTP client's own error."""


class ClientError(Exception):
    """As botocore raises it: a response that is a mapping."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message)
        metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}}
        self.response = {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": metadata,
        }


class Moody(Exception):
    """An exception whose properties raise."""

    @property
    def response(self) -> object:
        """Not set."""
        raise RuntimeError


def wrapped(inner: Exception) -> APIConnectionError:
    """An SDK's error with its cause."""
    error = APIConnectionError("Connection error.", None)
    error.__cause__ = inner
    return error


TOO_LONG = "prompt is too long: 210000 tokens > 200000 maximum"
STALE = "Server disconnected without sending a response."


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (refused(429, {"error": {"code": "insufficient_quota"}}), Outcome.QUOTA_EXHAUSTED),
        (refused(400, {"error": {"message": TOO_LONG}}), Outcome.CONTEXT_LENGTH_EXCEEDED),
        (
            refused(429, {"error": {"message": "high demand"}}, "https://x.openai.azure.com/y"),
            Outcome.OVERLOADED,
        ),
        (
            refused(429, {"code": "3505"}, "https://api.mistral.ai/v1/chat/completions"),
            Outcome.OVERLOADED,
        ),
        (refused(200, {"error": {"code": 503, "message": "down"}}), Outcome.OVERLOADED),
        (APIError("", {"type": "server_error", "message": "x"}), Outcome.SERVER_ERROR),
        (APIError("", {"code": "rate_limit_exceeded"}), Outcome.RATE_LIMITED),
        (ClientError("ThrottlingException", "slow", 429), Outcome.RATE_LIMITED),
        (ClientError("ModelNotReadyException", "wait", 429), Outcome.OVERLOADED),
        (wrapped(httpx.ConnectError("refused")), Outcome.CONNECTION),
        (wrapped(httpx.ReadTimeout("")), Outcome.TIMEOUT),
        (wrapped(ValueError("what an SDK wraps")), Outcome.CONNECTION),
        (httpx.PoolTimeout(""), Outcome.INVALID_REQUEST),  # never sent: neutral, refunded
        (httpx.RemoteProtocolError(STALE), Outcome.CANCELLED),
        (httpx.RemoteProtocolError("incomplete chunked read"), Outcome.STREAM_INTERRUPTED),
        (ConnectionRefusedError("no"), Outcome.CONNECTION),
        (Moody("whatever"), Outcome.CANCELLED),
    ],
    ids=repr,
)
def test_what_hangs_on_an_exception_is_read(error: BaseException, outcome: Outcome):
    """The body says more than the status, and the host whose words these are."""
    assert outcome_of(error) is outcome


def test_a_body_that_was_not_read_is_not_read_now():
    """The status has to do: settling does not wait for the network."""
    request = httpx.Request("POST", "https://api.anthropic.com/v1/messages")
    response = httpx.Response(529, stream=httpx.ByteStream(b"{}"), request=request)
    error = httpx.HTTPStatusError("", request=request, response=response)
    failure = failure_of(error)
    assert failure is not None
    assert (failure.provider, failure.category) == ("anthropic", Outcome.OVERLOADED)
    assert not response.is_closed


def test_the_time_to_wait_is_found_too():
    """Headers of the response are read with its body."""
    request = httpx.Request("POST", "https://api.groq.com/openai/v1/chat/completions")
    response = httpx.Response(429, headers={"retry-after": "7"}, request=request)
    failure = failure_of(httpx.HTTPStatusError("", request=request, response=response))
    assert failure is not None
    assert (failure.provider, failure.retry_after, failure.retryable) == ("groq", 7.0, True)


async def test_a_lease_reports_the_time_to_wait():
    """What the provider asked for goes to the service with the outcome."""
    reports: list[Settle] = []

    async def settle(_resource: str, report: Settle) -> Settled:
        reports.append(report)
        return Settled()

    async def renew(*_: object) -> Renewed:
        raise AssertionError

    granted = Granted(lease="l", expires_in=1, charged={}, limits=[])
    request = httpx.Request("POST", "https://api.openai.com/v1/responses")
    response = httpx.Response(429, headers={"retry-after-ms": "1500"}, request=request)
    with pytest.raises(httpx.HTTPStatusError):
        async with Lease(granted, "p/m", "r", settle, renew):
            response.raise_for_status()
    assert [(each.outcome, each.retry_after) for each in reports] == [(Outcome.RATE_LIMITED, 1.5)]


def test_knowing_providers_costs_nothing_before_a_call_fails():
    """`import client_sdk` does not load the tables."""
    probe = "import sys, client_sdk; sys.exit('limiter_wire.providers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


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


@pytest.mark.parametrize(
    ("error", "reach", "refund", "status"),
    [
        (failed(500), None, "tokens", 500),
        (failed(504), None, "none", 504),
        (failed(401), "pool", "all", 401),
        (refused(429, {"error": {"code": "insufficient_quota"}}), "pool", "all", 429),
        (
            refused(
                429,
                {"error": {"code": "insufficient_quota"}},
                "https://x.openai.azure.com/openai/deployments/d/chat/completions",
            ),
            "model",
            "all",
            429,
        ),
        (httpx.ConnectError("refused"), None, "all", None),
        (httpx.ReadTimeout(""), None, "none", None),
    ],
    ids=repr,
)
def test_the_cause_says_how_far_it_reaches_and_what_comes_back(
    error: BaseException, reach: str | None, refund: str, status: int | None
):
    """From the provider's words, where the outcome alone would have to guess."""
    cause = cause_of(error)
    assert cause is not None
    assert (cause.reach, cause.refund, cause.status) == (reach, refund, status)


def test_the_cause_tells_messages_apart_and_shows_none():
    """The same message has the same digest."""
    digests = [
        cause.digest
        for text in ("one", "two", "one")
        if (cause := cause_of(refused(500, {"error": {"message": text}})))
    ]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("error", [None, ValueError("of our own"), asyncio.CancelledError()])
def test_what_is_no_failure_of_the_provider_has_no_cause(error: BaseException | None):
    """Then the outcome is all there is to say."""
    assert cause_of(error) is None
