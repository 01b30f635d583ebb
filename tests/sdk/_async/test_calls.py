"""Calls of a provider under a lease: acquired, made, reported, made again if that is asked."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from client_sdk import (
    BreakerOpen,
    Limiter,
    LimiterOptions,
    RateLimited,
    ServiceUnavailable,
    Usage,
)

SAID = {"usage": {"prompt_tokens": 70, "completion_tokens": 5}, "text": "hello"}


def failure(status: int, **headers: str) -> httpx.HTTPStatusError:
    """What a client raises for a refusal of the provider."""
    request = httpx.Request("POST", "http://provider")
    response = httpx.Response(status, headers=headers, json={"error": {"message": "no"}})
    return httpx.HTTPStatusError("no", request=request, response=response)


class Provider:
    """Fails as it is told to, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.heard = list(failures), list[Any]()

    async def answer(self, *words: str, temperature: float = 0) -> dict[str, Any]:
        """One call."""
        self.heard.append((words, temperature))
        if self.failures:
            raise self.failures.pop(0)
        return SAID


async def test_a_call_is_made_under_a_lease(limiter: Limiter, left: Callable[..., float]):
    """Its result comes back, and what it used is charged in place of what was reserved."""
    provider = Provider()
    result = await limiter.call(provider.answer, "hi", temperature=1, resource="p/m", tokens=400)
    assert result is SAID
    assert provider.heard == [(("hi",), 1)]
    assert left() == 925


async def test_what_was_used_may_be_told(limiter: Limiter, left: Callable[..., float]):
    """By a function of the result."""

    def usage(result: dict[str, Any]) -> Usage:
        return Usage(input_tokens=len(result["text"]))

    await limiter.call(Provider().answer, resource="p/m", tokens=400, usage=usage)
    assert left() == 995


async def test_a_failure_is_reported_and_raised(limiter: Limiter):
    """The circuit hears of it, with the status; nothing is tried again unasked."""
    provider = Provider(failure(503))
    with pytest.raises(httpx.HTTPStatusError):
        await limiter.call(provider.answer, resource="frail/m", tokens=1)
    assert len(provider.heard) == 1
    (error,) = (await limiter.breaker("frail/m")).last_errors
    assert (error.outcome, error.status) == ("overloaded", 503)
    assert error.digest is not None


async def test_a_failure_that_may_pass_is_tried_again(limiter: Limiter, left: Callable[..., float]):
    """Each attempt is a call of its own for limits that count calls."""
    provider = Provider(failure(503, **{"retry-after-ms": "5"}), failure(500))
    result = await limiter.call(provider.answer, resource="p/m", tokens=100, attempts=3)
    assert result is SAID
    assert len(provider.heard) == 3
    assert left("m.calls") == 997


async def test_a_failure_that_stays_is_not_tried_again(limiter: Limiter):
    """However often it may be."""
    provider = Provider(failure(400), failure(400))
    with pytest.raises(httpx.HTTPStatusError):
        await limiter.call(provider.answer, resource="p/m", tokens=1, attempts=5)
    assert len(provider.heard) == 1


async def test_attempts_come_to_an_end(limiter: Limiter):
    """With the last failure."""
    provider = Provider(*(failure(503, **{"retry-after-ms": "1"}) for _ in range(9)))
    with pytest.raises(httpx.HTTPStatusError):
        await limiter.call(provider.answer, resource="p/m", tokens=1, attempts=2)
    assert len(provider.heard) == 2


async def test_retries_draw_on_the_budget_of_the_fleet(limiter: Limiter):
    """Where that is spent, the failure itself is raised, with a note that says so."""
    provider = Provider(failure(503, **{"retry-after-ms": "1"}))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await limiter.call(provider.answer, resource="frugal/m", tokens=1, attempts=5)
    assert caught.value.response.status_code == 503
    assert "not tried again" in caught.value.__notes__[0]
    assert len(provider.heard) == 1


async def test_a_refused_acquire_calls_nobody(limiter: Limiter):
    """The refusal is raised as it is."""
    provider = Provider()
    async with limiter.acquire("p/slot-mine", tokens=1):
        with pytest.raises(RateLimited):
            await limiter.call(provider.answer, resource="p/slot-mine", tokens=1)
    assert provider.heard == []


async def test_an_open_circuit_is_told_with_its_reason(limiter: Limiter):
    """And `breaker` shows it."""
    with pytest.raises(httpx.HTTPStatusError):
        await limiter.call(Provider(failure(500)).answer, resource="unforgiving/m", tokens=1)
    with pytest.raises(BreakerOpen) as caught:
        await limiter.call(Provider().answer, resource="unforgiving/m", tokens=1)
    assert caught.value.reason == "open"
    assert caught.value.retry_after is not None
    assert 30 < caught.value.retry_after <= 60
    view = await limiter.breaker("unforgiving/m")
    assert (view.state, view.reason, view.generation) == ("open", "open", 2)
    assert view.retry_after is not None
    assert 30 < view.retry_after <= 60


async def test_a_stream_is_no_result(limiter: Limiter, left: Callable[..., float]):
    """It is not over when it is returned: what it will use is not given back."""

    async def stream() -> Any:
        return iter([1])

    with pytest.raises(TypeError, match="stream"):
        await limiter.call(stream, resource="p/m", tokens=100)
    assert left() == 900


async def test_a_function_may_be_limited(limiter: Limiter, left: Callable[..., float]):
    """Its arguments may say how much it needs."""

    @limiter.limited("p/m", tokens=lambda text, size=1: size * len(text))
    async def shout(text: str, size: int = 1) -> str:
        """Loud."""
        return text.upper() * size

    assert await shout("ab", size=2) == "ABAB"
    assert (shout.__name__, shout.__doc__) == ("shout", "Loud.")
    assert left() == 996


async def test_statistics_are_those_of_the_fleet_and_of_this_limiter(limiter: Limiter):
    """Side by side: what the service has counted, and what has happened here."""
    who = uuid.uuid4().hex
    async with limiter.acquire("p/m", tokens=100, tenant=who) as lease:
        lease.used(input_tokens=30, output_tokens=5)
        lease.observed(latency=2.0, ttft=0.5)
    with pytest.raises(RateLimited):
        await limiter.acquire("p/m", tokens=999, tenant=who)
    found = await limiter.stats("minute")
    (fleet,) = [each for each in found.tenants if each.tenant == who]
    assert (fleet.granted, fleet.outcomes, fleet.refused) == (
        1,
        {"success": 1},
        {"rate_limited": 1},
    )
    (local,) = found.local
    assert (local.resource, local.granted, local.outcomes) == ("p/m", 1, {"success": 1})
    assert (local.refused, local.input_tokens) == ({"rate_limited": 1}, 30)
    assert local.latency is not None
    assert local.latency.median == 2.0
    assert local.time_to_first_token is not None
    assert 60 <= found.since <= 65


async def test_without_a_service_statistics_are_those_of_this_limiter():
    """And that the others are missing."""
    async with Limiter("http://127.0.0.1:9", options=LimiterOptions(attempts=1)) as alone:
        with pytest.raises(ServiceUnavailable):
            await alone.acquire("p/m", tokens=1)
        found = await alone.stats()
    assert found.degraded
    assert [(each.resource, each.refused) for each in found.local] == [("p/m", {"unreachable": 1})]
