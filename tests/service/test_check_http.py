"""POST /v1/check: what an acquire would answer, and nothing changes."""

import asyncio

import httpx
import pytest
import redis
from tests_support.calls import ask, refused, view
from tests_support.leavings import left_in


async def test_a_check_that_fits_says_so(client: httpx.AsyncClient):
    """It lists every limit as it is, and the largest request that fits."""
    answer = await ask(client, "check", resource="p/m", tokens=400)
    limits = answer.pop("limits")
    assert answer == {
        "would_grant": True,
        "retry_after": 0.0,
        "limit": None,
        "would_fit": 1000,
        "never_fits": False,
        "breaker": "closed",
        "degraded": False,
    }
    assert [limit["remaining"] for limit in limits] == [1000, 100, 10]


async def test_a_check_agrees_with_the_refusal(client: httpx.AsyncClient):
    """Binding limit, wait and room are those of the 429 that acquire gives."""
    await ask(client, "acquire", resource="p/m", tokens=900)
    answer = await ask(client, "check", resource="p/m", tokens=200)
    found = await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=200)
    assert not answer["would_grant"]
    assert answer["limit"] == found["limit"] == "m.budget"
    assert answer["would_fit"] == found["would_fit"] == 100
    assert answer["retry_after"] == pytest.approx(found["retry_after"], abs=60)


async def test_a_check_of_what_never_fits_says_so(client: httpx.AsyncClient):
    """It is an answer, not an error."""
    answer = await ask(client, "check", resource="p/m", tokens=1001)
    assert (answer["would_grant"], answer["never_fits"]) == (False, True)
    assert (answer["limit"], answer["retry_after"]) == ("m.budget", 0.0)


async def test_checks_leave_no_trace(client: httpx.AsyncClient, db: redis.Redis):
    """Neither a charge nor a key, however many are asked, and with any request id."""
    before = await view(client)
    await asyncio.gather(
        *(
            ask(client, "check", resource="p/m", tokens=900, request_id=f"r{i % 3}", tenant="t")
            for i in range(50)
        )
    )
    assert await view(client) == before
    assert left_in(db) == set()


async def test_a_check_carries_the_rate_limit_headers(client: httpx.AsyncClient):
    """A caller may pace itself by them."""
    answer = await client.post("/v1/check", json={"resource": "p/m", "tokens": 1})
    assert answer.headers["ratelimit"].startswith('"m.budget";r=1000;t=0')
