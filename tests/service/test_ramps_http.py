"""A limit that may not grow too fast, as callers and operators meet it."""

import asyncio
from typing import Any

import httpx
import pytest
from tests_support.calls import ask, refused, view

# Within a test no slot of these ramps ends, but those of `fast`.
CONFIG = """
pools:
  p:
    models:
      m:
        limits:
          - {name: tpm, meter: tokens, limit: 100000, per: minute,
             ramp: {start: 100, factor: 2, period: 300d}}
      calls:
        limits:
          - {name: rpm, meter: requests, limit: 1000, per: minute,
             ramp: {start: 2, factor: 1.5, period: 300d}}
      watched:
        limits:
          - {name: tpm, meter: tokens, limit: 100000, per: minute, mode: shadow,
             ramp: {start: 100, period: 300d}}
      fast:
        limits:
          - {name: rpm, meter: requests, limit: 6000, per: minute,
             ramp: {start: 2, factor: 3, period: 200ms}}
"""
DAY = 86_400


@pytest.fixture
async def service(serve: Any) -> httpx.AsyncClient:
    """The pool above."""
    client: httpx.AsyncClient = await serve(CONFIG)
    return client


async def test_a_refusal_names_the_ramp_and_says_when_it_fits(service: httpx.AsyncClient):
    """The limit itself has room for a thousand times that."""
    await ask(service, "acquire", resource="p/m", tokens=70)
    problem = await refused(service, "acquire", 429, "rate_limited", resource="p/m", tokens=40)
    assert problem["limit"] == "m.tpm.ramp"
    assert problem["would_fit"] == 30
    assert 300 * DAY <= problem["retry_after"] <= 315 * DAY
    assert problem["detail"].startswith(
        "m.tpm.ramp lets use grow 2-fold in 300d, to 100 tokens at present; of these 30 "
        "are left and 40 are asked for; it fits in "
    )


async def test_a_grant_charges_both(service: httpx.AsyncClient):
    """The limit and its ramp; what a settle gives back comes back to both."""
    granted = await ask(service, "acquire", resource="p/m", tokens=70)
    assert granted["charged"] == {"tokens": 70}
    assert [(each["name"], each["window"]) for each in granted["limits"]] == [
        ("m.tpm", "bucket"),
        ("m.tpm.ramp", "ramp"),
    ]
    usage = {"input_tokens": 20, "output_tokens": 0}
    settled = await ask(service, "settle", lease=granted["lease"], usage=usage)
    assert settled["refunded"] == {"tokens": 50}
    assert (await view(service))["m.tpm.ramp"]["remaining"] == 80


async def test_a_view_shows_what_a_ramp_allows(service: httpx.AsyncClient):
    """Where it starts, what it allows at present, what is left of that, its period."""
    await ask(service, "acquire", resource="p/m", tokens=70)
    ramp = (await view(service))["m.tpm.ramp"]
    assert (ramp["configured"], ramp["limit"], ramp["remaining"]) == (100, 100, 30)
    assert (ramp["meter"], ramp["scope"], ramp["per"], ramp["window"], ramp["learn"]) == (
        "tokens",
        "model",
        300 * DAY,
        "ramp",
        "never",
    )
    assert 615 * DAY <= ramp["reset_after"] <= 630 * DAY


async def test_a_request_that_is_larger_passes_alone(service: httpx.AsyncClient):
    """Otherwise it never could; a check says so too."""
    checked = await ask(service, "check", resource="p/m", tokens=5000)
    assert checked["would_grant"]
    assert checked["would_fit"] > 5000
    await ask(service, "acquire", resource="p/m", tokens=5000)
    problem = await refused(service, "acquire", 429, "rate_limited", resource="p/m", tokens=1)
    assert problem["limit"] == "m.tpm.ramp"
    assert problem["would_fit"] == 0


async def test_an_operator_holds_where_a_ramp_starts(service: httpx.AsyncClient):
    """By its name, as any limit."""
    for _ in range(2):
        await ask(service, "acquire", resource="p/calls", tokens=1)
    await refused(service, "acquire", 429, "rate_limited", resource="p/calls", tokens=1)
    path = "/v1/limits/p/calls/calls.rpm.ramp/override"
    held = await service.put(path, json={"limit": 3, "ttl": 60, "reason": "a launch"})
    assert held.status_code == 200, held.text
    assert (held.json()["limit"], held.json()["configured"]) == (3, 2)
    await ask(service, "acquire", resource="p/calls", tokens=1)
    problem = await refused(service, "acquire", 429, "rate_limited", resource="p/calls", tokens=1)
    assert problem["would_fit"] == 0


async def test_a_limit_in_shadow_has_a_ramp_in_shadow(service: httpx.AsyncClient):
    """It refuses nobody and says that it would have."""
    await ask(service, "acquire", resource="p/watched", tokens=70)
    granted = await ask(service, "acquire", resource="p/watched", tokens=70)
    found = {each["name"]: each for each in granted["limits"]}
    assert found["watched.tpm.ramp"]["shadow"]
    assert found["watched.tpm.ramp"]["refused"]
    assert not found["watched.tpm"]["refused"]


async def test_who_may_wait_is_let_in_as_the_ramp_rises(service: httpx.AsyncClient):
    """Twenty at once are served in waves, each larger than the one before."""
    calls = [
        ask(service, "acquire", resource="p/fast", tokens=1, max_wait=30, request_id=f"r{n}")
        for n in range(20)
    ]
    waited = sorted(each["waited"] for each in await asyncio.gather(*calls))
    assert waited[1] == 0
    assert waited[2] > 0
    ramp = (await view(service, "p/fast"))["fast.rpm.ramp"]
    assert ramp["configured"] == 2
