"""What a provider says of its limits reaches the fleet: with a lease, and without one."""

from collections.abc import Callable

import httpx
import pytest

from client_sdk import Limiter
from client_sdk.outcomes import limits_told, telling

Left = Callable[..., float]


def answer(status: int, body: object = None, **headers: str) -> httpx.Response:
    """An answer of a provider."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx.Request("POST", "https://api.openai.com/v1/chat/completions")
    return httpx.Response(status, headers=names, json=body, request=request)


async def test_headers_go_with_the_settle(limiter: Limiter, left: Left):
    """The level of the whole fleet follows what the provider says remains."""
    async with limiter.acquire("p/told", tokens=100) as lease:
        lease.observed(answer(200, x_ratelimit_remaining_tokens_day="700").headers)
    assert left("told.tpd") < 2000


async def test_a_refusal_brings_its_own_headers(limiter: Limiter, left: Left):
    """They hang on the exception, as the figures in its text do."""
    text = "Rate limit reached for m on tokens per day (TPD): Limit 30000, Used 29000, Requested 1"
    body = {"error": {"message": text, "code": "rate_limit_exceeded"}}
    with pytest.raises(httpx.HTTPStatusError):
        async with limiter.acquire("p/told", tokens=100):
            answer(429, body).raise_for_status()
    assert left("told.tpd") < 3000


async def test_an_observation_without_a_lease(limiter: Limiter, left: Left):
    """It says how many limits were meant, and how they stand."""
    told = {"x_ratelimit_limit_tokens_day": "60000", "x_ratelimit_remaining_tokens_day": "9"}
    noticed = await limiter.observe("p/told", answer(200, None, **told).headers)
    assert (noticed.resource, noticed.taken, noticed.changed) == ("p/told", 1, 0)
    assert left("told.tpd") < 1000


def test_only_headers_about_limits_leave_the_process():
    """Cookies and identities are nobody's business."""
    headers = {"X-RateLimit-Limit-Tokens": "1", "Set-Cookie": "s", "Retry-After": "2", "x": "y"}
    assert telling(headers) == {"x-ratelimit-limit-tokens": "1", "retry-after": "2"}


def test_what_is_no_answer_of_a_provider_says_nothing():
    """A local failure has no headers."""
    assert limits_told(ValueError("no")) == ({}, None)
