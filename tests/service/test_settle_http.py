"""POST /v1/settle: the reservation becomes what was used, once."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests_support.calls import EXACT, ask, left, refused, view
from tests_support.waiting import until

NOTHING: dict[str, float] = {}


async def test_what_was_not_used_comes_back(client: httpx.AsyncClient):
    """Fewer tokens than reserved are a refund; the slot returns and the request stays spent."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=100))["lease"]
    usage = {"input_tokens": 30, "output_tokens": 20}
    assert await ask(client, "settle", lease=lease, usage=usage) == {
        "settled": True,
        "already_settled": False,
        "refunded": {"tokens": 50},
        "debited": {},
        "breaker": "closed",
    }
    levels = await view(client)
    assert {name: limit["remaining"] for name, limit in levels.items()} == {
        "m.budget": 950,
        "m.calls": 99,
        "m.slots": 10,
    }


async def test_what_was_used_beyond_the_reservation_is_debited(client: httpx.AsyncClient):
    """The level may go below zero, and denies until it has refilled."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=900))["lease"]
    settled = await ask(client, "settle", lease=lease, usage={"output_tokens": 1300})
    assert (settled["refunded"], settled["debited"]) == ({}, {"tokens": 400})
    assert await left(client) == -300
    found = await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=1)
    assert found["would_fit"] == 0


async def test_an_exact_reservation_moves_nothing(client: httpx.AsyncClient):
    """Neither refund nor debit is reported for a difference of zero."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=70))["lease"]
    settled = await ask(client, "settle", lease=lease, usage={"input_tokens": 70})
    assert (settled["refunded"], settled["debited"]) == ({}, {})


async def test_without_usage_the_reservation_stands(client: httpx.AsyncClient):
    """A success, and any outcome after which tokens may have been processed, keeps the charge."""
    kept = [
        *("server_error", "timeout", "connection", "success", "stream_interrupted"),
        *("malformed_stream", "content_filtered", "cancelled"),  # no failures in a row open it
    ]
    for outcome in kept:
        lease = (await ask(client, "acquire", resource="p/m", tokens=10))["lease"]
        assert (await ask(client, "settle", lease=lease, outcome=outcome))["refunded"] == NOTHING
    assert await left(client) == 1000 - 10 * len(kept)


async def test_what_a_provider_refused_costs_no_tokens(client: httpx.AsyncClient):
    """Outcomes of calls that were not served refund the tokens, and keep the request."""
    refunded = [
        *("rate_limited", "quota_exhausted", "overloaded", "invalid_request"),
        *("context_length_exceeded", "auth", "permission", "not_found"),
    ]
    # All are granted first: an exhausted quota latches the pool.
    leases = [(await ask(client, "acquire", resource="p/m", tokens=10))["lease"] for _ in refunded]
    for lease, outcome in zip(leases, refunded, strict=True):
        settled = await ask(client, "settle", lease=lease, outcome=outcome)
        assert settled["refunded"] == {"tokens": 10}, outcome
    levels = await view(client)
    assert levels["m.budget"]["remaining"] == 1000
    assert levels["m.calls"]["remaining"] == 100 - len(refunded)


async def test_unknown_usage_counts_as_none(client: httpx.AsyncClient):
    """Figures of provenance `unknown` do not move the books; partial ones do."""
    leases = [(await ask(client, "acquire", resource="p/m", tokens=100))["lease"] for _ in "ab"]
    usage = {"input_tokens": 5, "provenance": "unknown"}
    assert (await ask(client, "settle", lease=leases[0], usage=usage))["refunded"] == NOTHING
    usage = {"input_tokens": 5, "provenance": "partial"}
    assert (await ask(client, "settle", lease=leases[1], usage=usage))["refunded"] == {"tokens": 95}


async def test_the_second_settle_gets_the_same_answer(client: httpx.AsyncClient):
    """It moves nothing, whatever it reports."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=100))["lease"]
    first = await ask(client, "settle", lease=lease, usage={"input_tokens": 40})
    second = await ask(client, "settle", lease=lease, usage={"input_tokens": 999})
    assert second == first | {"already_settled": True}
    assert await left(client) == 960


async def test_twenty_settles_at_once_move_the_books_once(serve: Any):
    """However they race, through two replicas: one is first, the others agree with it."""
    replicas = [await serve(), await serve()]
    lease = (await ask(replicas[0], "acquire", resource="p/m", tokens=100))["lease"]
    answers = await asyncio.gather(
        *(
            ask(replicas[i % 2], "settle", lease=lease, usage={"input_tokens": 40})
            for i in range(20)
        )
    )
    assert sorted(answer.pop("already_settled") for answer in answers) == [False] + [True] * 19
    assert all(answer == answers[0] for answer in answers)
    levels = await view(replicas[1])
    assert (levels["m.budget"]["remaining"], levels["m.slots"]["remaining"]) == (960, 10)


TINY = """
pools:
  p:
    lease_ttl: 200ms
    remember: {remember}
    models:
      m:
        limits:
          - {{name: budget, meter: tokens, limit: 1000, per: 366d}}
          - {{meter: concurrency, limit: 9}}
"""


async def test_a_settle_of_an_expired_lease_is_too_late(serve: Any):
    """It is a 410 that moves nothing: the tokens stay spent."""
    client = await serve(TINY.format(remember="60s"))
    lease = (await ask(client, "acquire", resource="p/m", tokens=100))["lease"]

    async def free() -> bool:
        return bool((await client.get("/v1/resources/p/m")).json()["in_flight"] == 0)

    await until(free, "the lease does not expire")
    for _ in range(2):
        await refused(
            client, "settle", 410, "lease_expired", lease=lease, usage={"input_tokens": 1}
        )
    assert await left(client) == 900


async def test_a_settled_lease_is_forgotten_after_remember(serve: Any):
    """Then it is unknown, and nothing moves."""
    client = await serve(TINY.format(remember="100ms"))
    lease = (await ask(client, "acquire", resource="p/m", tokens=100, ttl=30))["lease"]
    await ask(client, "settle", lease=lease, usage={"input_tokens": 40})

    async def unknown() -> bool:
        answer = await client.post("/v1/settle", json={"lease": lease})
        assert answer.status_code in {200, 404}
        return answer.status_code == 404

    await until(unknown, "the lease is never forgotten")
    await refused(client, "settle", 404, "unknown_lease", lease=lease)
    assert await left(client) == 960


async def test_an_old_lease_does_not_touch_the_next_of_its_request_id(serve: Any):
    """After `remember` a request id may be granted anew; the old lease id stays dead."""
    client = await serve(TINY.format(remember="100ms"))
    body = {"resource": "p/m", "tokens": 100, "request_id": "r1", "ttl": 30}
    old = (await ask(client, "acquire", **body))["lease"]
    await ask(client, "settle", lease=old)

    async def new() -> bool:
        return (await ask(client, "acquire", **body))["lease"] != old

    await until(new, "the request id is never forgotten")
    await refused(client, "settle", 404, "unknown_lease", lease=old, usage={"input_tokens": 1})
    assert await left(client) == 800


async def test_a_lease_settles_through_any_replica(serve: Any):
    """The lease id holds all that another replica needs."""
    replicas = [await serve(), await serve()]
    answer = await ask(replicas[0], "acquire", resource="p/m", tokens=100)
    settled = await ask(replicas[1], "settle", lease=answer["lease"], usage={"input_tokens": 1})
    assert settled["refunded"] == {"tokens": 99}


async def test_weights_price_the_components(serve: Any):
    """Each component of the usage counts once, by its weight."""
    client = await serve("""
pools:
  p:
    models:
      m:
        limits:
          - name: weighed
            meter: tokens
            limit: 100000
            per: 366d
            weights: {cache_read: 0, cache_write: 1.25, output: 5, reasoning: 2}
""")
    lease = (await ask(client, "acquire", resource="p/m", tokens=1000))["lease"]
    usage = {
        "input_tokens": 1000,
        "cache_read_tokens": 600,
        "cache_write_tokens": 100,
        "output_tokens": 50,
        "reasoning_tokens": 20,
    }
    await ask(client, "settle", lease=lease, usage=usage)
    spent = 300 + 0 * 600 + 1.25 * 100 + 5 * 30 + 2 * 20
    assert await left(client, "m.weighed") == 100_000 - spent


async def test_a_limit_that_does_not_refund_keeps_the_reservation(serve: Any):
    """`settle: none` neither refunds nor debits, beside a limit that does."""
    client = await serve("""
pools:
  p:
    models:
      m:
        limits:
          - {name: strict, meter: tokens, limit: 1000, per: 366d, settle: none}
          - {name: soft, meter: tokens, limit: 1000, per: 366d}
""")
    for amount in (10, 300):
        lease = (await ask(client, "acquire", resource="p/m", tokens=100))["lease"]
        await ask(client, "settle", lease=lease, usage={"input_tokens": amount})
    assert await left(client, "m.strict") == 800
    assert await left(client, "m.soft") == 690


async def test_money_is_settled_by_cost_or_by_price(serve: Any):
    """`cost_usd` of the report wins; without it the price tells what the usage cost."""
    client = await serve("""
pools:
  p:
    prices: {m: {input: 2, output: 10, cache_read: 1}}
    models: {m: {limits: [{name: spend, meter: cost_usd, limit: 10, per: 366d}]}}
""")
    leases = [
        (await ask(client, "acquire", resource="p/m", tokens=1, cost_usd=1))["lease"] for _ in "abc"
    ]
    settled = await ask(client, "settle", lease=leases[0], cost_usd=0.25)
    assert settled["refunded"] == {"cost_usd": 0.75}
    usage = {"input_tokens": 1_000_000, "cache_read_tokens": 500_000, "output_tokens": 10_000}
    settled = await ask(client, "settle", lease=leases[1], usage=usage)
    assert settled["debited"] == {"cost_usd": 0.6}
    settled = await ask(client, "settle", lease=leases[2], usage=usage, cost_usd=1)
    assert settled["refunded"] == settled["debited"] == {}
    assert await left(client, "m.spend") == pytest.approx(10 - 0.25 - 1.6 - 1)


async def test_a_reload_between_acquire_and_settle_keeps_the_books(
    serve: Any, write_config: Callable[[str], Path]
):
    """A lease settles what it was charged: limits that stayed refund, new and dropped ones not."""
    client = await serve()
    lease = (await ask(client, "acquire", resource="p/m", tokens=100))["lease"]
    write_config("""
pools:
  p:
    models:
      m:
        limits:
          - {name: fresh, meter: tokens, limit: 500, per: 366d}
          - {name: budget, meter: tokens, limit: 2000, per: 366d}
""")

    async def reloaded() -> bool:
        return "m.fresh" in await view(client)

    await until(reloaded, "the new configuration is not taken")
    settled = await ask(client, "settle", lease=lease, usage={"input_tokens": 40})
    assert settled["refunded"] == {"tokens": 60}
    levels = await view(client)
    # The level moves with its limit and is not topped up: 900 were left, 60 came back.
    assert levels["m.budget"]["remaining"] == 960
    assert levels["m.fresh"]["remaining"] == 500


async def test_a_pool_that_a_reload_dropped_makes_its_leases_unknown(
    serve: Any, write_config: Callable[[str], Path]
):
    """There is nothing left to settle on."""
    client = await serve()
    lease = (await ask(client, "acquire", resource="p/m", tokens=100))["lease"]
    write_config(EXACT.replace("p:", "q:"))

    async def reloaded() -> bool:
        return (await client.get("/v1/resources/q/m")).status_code == 200

    await until(reloaded, "the new configuration is not taken")
    await refused(client, "settle", 404, "unknown_lease", lease=lease)


async def test_reports_beside_the_usage_are_taken(client: httpx.AsyncClient):
    """Latency, time to first token and provider headers are part of a report."""
    lease = (await ask(client, "acquire", resource="p/m", tokens=1))["lease"]
    await ask(
        client,
        "settle",
        lease=lease,
        outcome="rate_limited",
        latency=1.5,
        ttft=0.2,
        retry_after=3,
        headers={"x-ratelimit-remaining": "0"},
    )
