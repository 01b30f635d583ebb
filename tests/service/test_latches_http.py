"""How far a failure reaches, what comes back of it, and what operators see of both."""

import asyncio
from typing import Any

import httpx
import pytest
from dirty_equals import IsFloat, IsPartialDict
from tests_support.calls import ask, refused
from tests_support.waiting import until

from limiter_service.engine import passes

CONFIG = """
pools:
  p:
    limits:
      - {name: calls, meter: requests, limit: 100, per: 366d}
      - {name: money, meter: cost_usd, limit: 100, per: 366d}
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000, per: 366d}
          - {name: kept, meter: tokens, limit: 5000, per: 366d, settle: none}
          - {name: slots, meter: concurrency, limit: 9}
      n: {}
    prices: {"*": {input: 1000, output: 1000}}
    breaker: {consecutive: 0, quota_latch: 90s, credential_latch: 80s, credential_failures: 2}
"""


@pytest.fixture
async def service(serve: Any) -> httpx.AsyncClient:
    """A pool with limits of every kind."""
    client: httpx.AsyncClient = await serve(CONFIG)
    return client


async def end(client: httpx.AsyncClient, outcome: str, resource: str = "p/m", **fields: Any) -> Any:
    """A call that ends so; the answer to its settle."""
    granted = await ask(client, "acquire", resource=resource, tokens=100)
    return await ask(client, "settle", lease=granted["lease"], outcome=outcome, **fields)


async def look(client: httpx.AsyncClient, path: str) -> Any:
    """What a route shows."""
    return (await client.get(f"/v1/{path}")).json()


async def test_a_quota_of_one_model_latches_that_model(service: httpx.AsyncClient):
    """The rest of the pool goes on, and the text says whose quota it is."""
    await end(service, "quota_exhausted", cause={"reach": "model"})
    found = await refused(service, "acquire", 503, "latched", resource="p/m", tokens=1)
    assert (found["reason"], found["retry_after"]) == ("latched", IsFloat(gt=60, le=90))
    assert "model m" in found["detail"]
    await end(service, "success", "p/n")
    view = await look(service, "breakers/p/m")
    assert view == IsPartialDict(
        state="open", latch="quota_exhausted", reason="latched", retry_after=IsFloat(gt=60, le=90)
    )
    (provider,) = (await look(service, "breakers"))["providers"]
    assert provider == IsPartialDict(verdict="degraded", latch=None, open_models=["m"])


async def test_without_a_reach_the_pool_is_latched_and_every_view_says_so(
    service: httpx.AsyncClient,
):
    """A circuit that is closed refuses all the same."""
    await end(service, "quota_exhausted")
    await refused(service, "acquire", 503, "latched", resource="p/n", tokens=1)
    for model in ("m", "n"):
        assert await look(service, f"breakers/p/{model}") == IsPartialDict(
            state="closed", latch=None, reason="latched", retry_after=IsFloat(gt=60, le=90)
        )


async def test_credentials_that_one_model_refuses_latch_it_after_some_in_a_row(
    service: httpx.AsyncClient,
):
    """A success between them begins anew."""
    for outcome in ("permission", "success", "permission"):
        cause = None if outcome == "success" else {"reach": "model"}
        await end(service, outcome, cause=cause)
    assert (await look(service, "breakers/p/m"))["credentials_refused"] == 1
    await end(service, "permission", cause={"reach": "model"})
    found = await refused(service, "acquire", 503, "latched", resource="p/m", tokens=1)
    assert found["retry_after"] == IsFloat(gt=50, le=80)
    assert "model m" in found["detail"]
    await end(service, "success", "p/n")


async def test_a_reset_lifts_the_latch_of_a_model(service: httpx.AsyncClient):
    """Somebody has paid."""
    await end(service, "quota_exhausted", cause={"reach": "model"})
    await service.post("/v1/breakers/p/m/reset")
    await end(service, "success")


async def test_the_last_errors_say_what_the_provider_said(service: httpx.AsyncClient):
    """By status, and by a digest that tells messages apart without showing them."""
    await end(service, "server_error", cause={"status": 502, "digest": 0xDEAD})
    await end(service, "timeout")
    newer, older = (await look(service, "breakers/p/m"))["last_errors"]
    assert newer == IsPartialDict(outcome="timeout", status=None, digest=None)
    assert older == IsPartialDict(outcome="server_error", status=502, digest="0000dead")


# What each outcome gives back of tokens when nothing is known of its usage.
BACK = {
    "success": 0,
    "rate_limited": 100,
    "quota_exhausted": 100,
    "overloaded": 100,
    "server_error": 0,
    "timeout": 0,
    "connection": 0,
    "stream_interrupted": 0,
    "malformed_stream": 0,
    "invalid_request": 100,
    "context_length_exceeded": 100,
    "auth": 100,
    "permission": 100,
    "not_found": 100,
    "content_filtered": 0,
    "cancelled": 0,
}


@pytest.mark.parametrize("outcome", BACK)
async def test_what_comes_back_follows_from_the_outcome(service: httpx.AsyncClient, outcome: str):
    """Where the provider may have served the call, nothing does; and the request never."""
    settled = await end(service, outcome)
    assert settled["refunded"].get("tokens", 0) == BACK[outcome]
    assert "requests" not in settled["refunded"]


@pytest.mark.parametrize("outcome", ["connection", "overloaded"])
@pytest.mark.parametrize(
    ("refund", "refunded"),
    [
        ("all", {"tokens": 100, "requests": 1, "cost_usd": 0.1}),
        ("tokens", {"tokens": 100, "cost_usd": 0.1}),
        ("none", {}),
    ],
)
async def test_or_from_what_the_caller_knows(
    service: httpx.AsyncClient, outcome: str, refund: str, refunded: dict[str, float]
):
    """A connection that was never made has cost nothing, one that broke may have cost all."""
    assert (await end(service, outcome, cause={"refund": refund}))["refunded"] == refunded


async def test_a_call_that_was_not_made_costs_nothing_even_where_nothing_comes_back(
    service: httpx.AsyncClient,
):
    """`settle: none` is about what was asked for and not used."""

    async def left() -> tuple[float, float]:
        limits = {each["name"]: each for each in (await look(service, "resources/p/m"))["limits"]}
        return limits["m.kept"]["remaining"], limits["m.slots"]["remaining"]

    await end(service, "overloaded", cause={"refund": "tokens"})
    assert await left() == (4900, 9)
    await end(service, "connection", cause={"refund": "all"})
    assert await left() == (4900, 9)


async def test_usage_that_is_known_is_charged_whatever_the_cause(service: httpx.AsyncClient):
    """Figures of the provider come first."""
    usage = {"input_tokens": 30, "output_tokens": 10}
    settled = await end(service, "server_error", usage=usage, cause={"refund": "all"})
    assert settled["refunded"] == {"tokens": 60, "cost_usd": 0.06}


@pytest.mark.parametrize(
    "cause",
    [{"reach": "world"}, {"refund": "some"}, {"status": 7}, {"digest": -1}, {"digest": 2**32}],
)
async def test_a_cause_that_cannot_be_is_refused(service: httpx.AsyncClient, cause: Any):
    """The field is named."""
    granted = await ask(service, "acquire", resource="p/m", tokens=1)
    found = await refused(
        service, "settle", 422, "invalid", lease=granted["lease"], outcome="timeout", cause=cause
    )
    assert found["detail"].startswith(f"$.cause.{next(iter(cause))}")


@pytest.mark.parametrize("how", ["clear", "reset", "closed"])
async def test_an_order_reaches_those_who_wait(
    serve: Any, monkeypatch: pytest.MonkeyPatch, how: str
):
    """At once: the next pass over the queue would be when the opening ends."""
    monkeypatch.setattr(passes, "BEAT", 1000.0)
    client = await serve(CONFIG)
    path = "/v1/breakers/p/m"
    await client.put(f"{path}/override", json={"mode": "open", "ttl": 100})
    waiting = asyncio.create_task(
        client.post("/v1/acquire", json={"resource": "p/m", "tokens": 1, "max_wait": 110})
    )

    async def depth() -> int:
        return int((await look(client, "queue/p"))["depth"])

    await until(depth, "nobody waits")
    if how == "clear":
        await client.delete(f"{path}/override")
    elif how == "reset":
        await client.post(f"{path}/reset")
    else:
        await client.put(f"{path}/override", json={"mode": "closed", "ttl": 100})
    answer = await asyncio.wait_for(waiting, 15)
    assert answer.status_code == 200, answer.text
