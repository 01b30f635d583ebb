"""One attempt of a provider call under a real lease: it always settles, whatever happens."""

from collections.abc import Callable

import httpx
import pytest
from tests_support.stream_cases import HELLO, WHOLE

from client_sdk import Limiter, Outcome, Provenance, ProviderError, StreamInterrupted
from client_sdk._async.attempts import Attempt
from client_sdk._async.lease import Lease
from client_sdk.streaming import StreamAccumulator, StreamOutcome

Left = Callable[..., float]


class Connection:
    """Counts how often it was given back."""

    def __init__(self) -> None:
        self.released = 0

    async def release(self) -> None:
        self.released += 1


async def attempt_under(limiter: Limiter, **options: object) -> Attempt:
    """An attempt that has its lease, and has been sent."""
    lease = await limiter.acquire("p/m", tokens=100)
    assert isinstance(lease, Lease)
    attempt = Attempt(StreamAccumulator("openai-chat"), lease, provider="openai", **options)  # type: ignore[arg-type]  # keywords
    attempt.start()
    return attempt


async def test_a_whole_stream_settles_with_what_the_provider_counted(limiter: Limiter, left: Left):
    """The connection is given back, the lease has the usage, and nothing is an error."""
    attempt, connection = await attempt_under(limiter), Connection()
    async with attempt:
        headers = {"X-RateLimit-Remaining-Tokens": "9", "set-cookie": "secret", "x-request-id": "r"}
        attempt.opened(200, headers, connection.release)
        attempt.feed(WHOLE)
        assert await attempt.finish() is StreamOutcome.COMPLETED
    assert connection.released == 1
    assert attempt.error() is None
    assert attempt.report().outcome is Outcome.SUCCESS
    assert attempt.headers == {"x-ratelimit-remaining-tokens": "9"}
    assert attempt.provider_request_id == "r"
    assert attempt.lease is not None
    assert attempt.lease.settled is not None
    assert left("m.slots") == 50


async def test_a_caller_that_leaves_settles_as_cancelled(limiter: Limiter, left: Left):
    """What came is estimated; nothing is written as zero."""
    attempt, connection = await attempt_under(limiter, input_tokens=30), Connection()
    async with attempt:
        attempt.opened(200, {}, connection.release)
        attempt.feed(HELLO)
    assert attempt.report().outcome is Outcome.CANCELLED
    usage = attempt.usage
    assert (usage.input_tokens, usage.output_tokens) == (30, 2)
    assert usage.provenance is Provenance.ESTIMATED
    assert (connection.released, left("m.slots")) == (1, 50)
    assert left() == 1000 - 32


async def test_a_broken_connection_before_content_may_be_tried_again(limiter: Limiter, left: Left):
    """Nothing was heard: the outcome is the connection's, and the tokens go back."""
    attempt = await attempt_under(limiter)
    with pytest.raises(httpx.ConnectError):
        async with attempt:
            raise httpx.ConnectError("refused")
    error = attempt.error()
    assert isinstance(error, StreamInterrupted)
    assert (error.category, error.retryable, error.phase) == (
        Outcome.CONNECTION,
        True,
        "pre_content",
    )
    assert attempt.usage.provenance is Provenance.UNKNOWN
    assert (left(), left("m.slots")) == (1000, 50)


async def test_a_broken_connection_behind_content_keeps_what_came(limiter: Limiter):
    """It is not tried again by itself."""
    attempt = await attempt_under(limiter)
    attempt.opened()
    attempt.feed(HELLO)
    await attempt.fail(httpx.ReadError("reset"))
    error = attempt.error()
    assert isinstance(error, StreamInterrupted)
    assert (error.partial, error.chunks, error.retryable) == ("Hello", 2, False)
    assert error.category is Outcome.STREAM_INTERRUPTED


async def test_an_error_status_says_what_it_means(limiter: Limiter, left: Left):
    """The body of the refusal is read, its text stays out of the message."""
    attempt = await attempt_under(limiter)
    body = (
        b'{"error":{"message":"Rate limit of hush-hush","type":"t","code":"rate_limit_exceeded"}}'
    )
    async with attempt:
        attempt.opened(429, {"retry-after": "7"})
        assert attempt.refused
        await attempt.refuse(body)
    error = attempt.error()
    assert isinstance(error, ProviderError)
    assert (error.status, error.category, error.retry_after) == (429, Outcome.RATE_LIMITED, 7)
    assert error.retryable
    assert error.provider_message == "Rate limit of hush-hush"
    assert "hush" not in str(error)
    assert left() == 1000


async def test_who_may_try_again_keeps_the_lease(limiter: Limiter, left: Left):
    """The end releases the connection; the settle is the caller's."""
    attempt, connection = await attempt_under(limiter, settles=False), Connection()
    async with attempt:
        attempt.opened(200, {}, connection.release)
    assert (connection.released, left("m.slots")) == (1, 49)
    await attempt.settle()
    await attempt.settle()
    assert left("m.slots") == 50
