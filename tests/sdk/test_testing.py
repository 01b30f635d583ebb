"""What is offered for the tests of others: the real clients over fakes in memory."""

import pytest

from client_sdk import (
    BreakerOpen,
    LLMClient,
    Outcome,
    Provenance,
    ProviderError,
    RateLimited,
    RetryPolicy,
    StreamInterrupted,
    SyncLLMClient,
)
from client_sdk.estimate import Estimator
from client_sdk.testing import (
    DROP,
    STALL,
    FakeLimiter,
    FakeSyncLimiter,
    ScriptedProvider,
    refuses,
    says,
)
from limiter_wire import ErrorCode

ASKED = [{"role": "user", "content": "Hello"}]
AT_ONCE = RetryPolicy(backoff=0)
INPUT = Estimator().request(ASKED, "gpt-4o").tokens


async def test_a_fake_limiter_keeps_books():
    """A budget that is shared by all calls, and reports that can be looked at."""
    async with FakeLimiter(tokens=1000) as limiter:
        async with limiter.acquire("openai/gpt-4o", tokens=600) as lease:
            assert limiter.books.left == 400
            with pytest.raises(RateLimited):
                await limiter.acquire("openai/gpt-4o", tokens=600)
            lease.used(input_tokens=100, output_tokens=50)
        assert limiter.books.left == 850
        (report,) = limiter.books.settled
    assert (report.outcome, limiter.books.open) == (Outcome.SUCCESS, {})


def test_a_fake_limiter_refuses_as_it_is_told():
    """Any refusal, so many times."""
    with FakeSyncLimiter() as limiter:
        limiter.books.refuse(ErrorCode.BREAKER_OPEN, retry_after=7)
        with pytest.raises(BreakerOpen) as caught:
            limiter.acquire("openai/gpt-4o", tokens=1)
        assert caught.value.retry_after == 7
        with limiter.acquire("openai/gpt-4o-mini", tokens=1) as lease:
            assert lease.id == "lease-1"


async def test_a_script_breaks_where_it_says():
    """One reservation, a retry that nobody sees, a break with what arrived."""
    provider = ScriptedProvider(
        refuses(429, retry_after="0"), says("Good ", "day", broken=DROP), says("never")
    )
    async with FakeLimiter() as limiter, provider.async_client() as http:
        llm = LLMClient("gpt-4o", limiter=limiter, http_client=http, retry=AT_ONCE)
        with pytest.raises(StreamInterrupted) as caught:
            await llm.get_streaming_response_with_tools(ASKED).until_done()
        assert (caught.value.partial, caught.value.attempts) == ("Good day", 2)
        first, ticket = limiter.books.acquired
        assert (first.attempt, ticket.attempt, ticket.tokens) == (1, 2, 1)
        assert [report.outcome for report in limiter.books.settled] == [
            Outcome.RATE_LIMITED,
            Outcome.STREAM_INTERRUPTED,
        ]
        assert limiter.books.settled[-1].usage.provenance is Provenance.ESTIMATED
        assert limiter.books.open == {}


def test_a_retry_that_the_limiter_refuses_is_not_sent():
    """The caller gets the provider's failure, and the reservation is settled with it."""
    provider = ScriptedProvider(refuses(503), says("never"))
    with FakeSyncLimiter(tokens=100) as limiter, provider.client() as http:
        llm = SyncLLMClient("gpt-4o", limiter=limiter, http_client=http, retry=AT_ONCE)
        with pytest.raises(ProviderError) as caught:
            # All of the budget is reserved: nothing is left for a ticket.
            llm.get_response_with_tools(ASKED, max_tokens=100 - INPUT)
        assert caught.value.category is Outcome.OVERLOADED
        assert [report.outcome for report in limiter.books.settled] == [Outcome.OVERLOADED]
    assert len(provider.requests) == 1


def test_a_stall_of_a_script_is_tried_again():
    """Nothing came, so nothing is lost."""
    provider = ScriptedProvider(says(broken=STALL), says("Hello"))
    with provider.client() as http:
        llm = SyncLLMClient("gpt-4o", http_client=http, retry=AT_ONCE)
        answer = llm.get_streaming_response_with_tools(ASKED).until_done()
    assert (answer.text, answer.attempts) == ("Hello", 2)
    assert provider.bodies[0]["stream"] is True
