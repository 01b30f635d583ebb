"""Limits that providers state and operators hold, as callers and operators meet them."""

import json
from typing import Any

import httpx
import pytest
import redis
from dirty_equals import IsFloat, IsPartialDict
from tests_support.calls import ask, refused

CONFIG = """
pools:
  p:
    provider: openai
    limits: [{name: all, meter: tokens, limit: 900000, per: minute}]
    models:
      m: {tpd: 60000, limits: [{name: calls, meter: requests, limit: 600, per: minute, burst: 100}]}
      a/b: {rpm: 60}
      guess: {limits: [{name: tpd, meter: tokens, limit: 60000, per: day, learn: both}]}
      mine: {limits: [{name: tpd, meter: tokens, limit: 60000, per: day, learn: never}]}
      bursty:
        limits: [{name: rpm, meter: requests, limit: 600, per: minute, adaptive_burst: true}]
      unknown:
        limits:
          - {name: tpd, meter: tokens, limit: 64000, per: day, aimd: true}
          - {name: rpd, meter: requests, limit: 6400, per: day}
    tenants:
      team: {tpd: 60000}
"""


@pytest.fixture
async def service(serve: Any) -> httpx.AsyncClient:
    """The pools above."""
    client: httpx.AsyncClient = await serve(CONFIG)
    return client


def said(limit: int, remaining: int, meter: str = "tokens", **more: str) -> dict[str, str]:
    """Headers of an answer; of tokens, those of a day, which hardly refill during a test."""
    kind = f"{meter}-day" if meter == "tokens" else meter
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(remaining),
        **more,
    }


async def call(client: httpx.AsyncClient, headers: dict[str, str], **fields: Any) -> Any:
    """One call whose provider answers with *headers*."""
    asked = {"resource": "p/m", "tokens": 100} | fields.pop("asked", {})
    lease = (await ask(client, "acquire", **asked))["lease"]
    return await ask(client, "settle", lease=lease, headers=headers, **fields)


async def limit(client: httpx.AsyncClient, name: str, resource: str = "p/m") -> dict[str, Any]:
    """The view of one limit."""
    view = (await client.get(f"/v1/resources/{resource}")).json()
    (found,) = [each for each in view["limits"] if each["name"] == name]
    return dict(found)


async def events(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """What has happened so far."""
    answer = await client.get("/v1/events?follow=false", headers={"Last-Event-ID": "0"})
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_a_lower_limit_is_adopted_when_three_answers_state_it(service: Any) -> None:
    """Not before; and the fleet is told once, however often it is stated."""
    for left in (59_900, 59_900):
        await call(service, said(30_000, left))
    assert (await limit(service, "m.tpd"))["limit"] == 60_000
    for _ in range(3):
        await call(service, said(30_000, 59_900))

    view = await limit(service, "m.tpd")
    assert view == IsPartialDict(limit=30_000, configured=60_000, learned=30_000, override=None)
    assert view["remaining"] <= 30_000
    granted = await ask(service, "acquire", resource="p/m", tokens=100)
    (told,) = [each for each in granted["limits"] if each["name"] == "m.tpd"]
    assert told["limit"] == 30_000
    lowered = {"type": "limit_lowered", "limit": "m.tpd", "from": "60000", "to": "30000"}
    assert await events(service) == [IsPartialDict(resource="p/m", reason="stated", **lowered)]


async def test_a_refusal_that_states_less_is_believed_at_once(service: Any) -> None:
    """And the level is what the provider says remains."""
    await call(service, said(20_000, 50), outcome="rate_limited", asked={"tokens": 1000})

    view = await limit(service, "m.tpd")
    assert view["limit"] == 20_000
    assert view["remaining"] < 1000
    await refused(service, "acquire", 429, "rate_limited", resource="p/m", tokens=15_000)


async def test_what_can_never_fit_is_judged_by_what_is_learned(service: Any) -> None:
    """The provider would refuse it for ever."""
    await call(service, said(20_000, 50), outcome="rate_limited")
    answer = await refused(service, "acquire", 422, "never_fits", resource="p/m", tokens=30_000)
    assert "20000" in answer["detail"]


async def test_others_use_of_the_account_lowers_the_level_once(service: Any) -> None:
    """Answers that were under way at the same time say the same and are not added up."""
    leases = [
        (await ask(service, "acquire", resource="p/m", tokens=100))["lease"] for _ in range(5)
    ]
    for n, lease in enumerate(leases, start=1):
        headers = said(60_000, 40_000 - 100 * n)
        await ask(service, "settle", lease=lease, headers=headers)
    remaining = (await limit(service, "m.tpd"))["remaining"]
    assert 39_400 <= remaining <= 60_000 - 19_000


async def test_more_that_remains_raises_nothing(service: Any) -> None:
    """A provider that forgives is not trusted with our books."""
    await ask(service, "acquire", resource="p/m", tokens=50_000)
    await call(service, said(60_000, 60_000))
    assert (await limit(service, "m.tpd"))["remaining"] < 30_000


async def test_a_higher_limit_is_not_believed_within_seconds(service: Any) -> None:
    """Not even where the file says that it is a guess: an old answer may come late."""
    for _ in range(4):
        await call(service, said(120_000, 119_000))
        await call(service, said(120_000, 119_000), asked={"resource": "p/guess"})
    assert (await limit(service, "m.tpd"))["limit"] == 60_000
    assert (await limit(service, "guess.tpd", "p/guess"))["limit"] == 60_000  # 10 s have to pass


async def test_a_limit_that_never_learns_is_left_alone(service: Any) -> None:
    """Neither limit nor level."""
    told = said(10_000, 0)
    asked = {"resource": "p/mine"}
    await call(service, told, outcome="rate_limited", asked=asked)
    assert await limit(service, "mine.tpd", "p/mine") == IsPartialDict(limit=60_000, learned=None)


async def test_tenants_and_the_pool_learn_nothing_from_a_model(service: Any) -> None:
    """What a header says is about the model alone."""
    await call(service, said(10_000, 0), outcome="rate_limited", asked={"tenant": "team"})
    view = (await service.get("/v1/resources/p/m?tenant=team")).json()
    limits = {each["name"]: each["limit"] for each in view["limits"]}
    assert limits == {"p.all": 900_000, "m.calls": 600, "m.tpd": 10_000, "team.tpd": 60_000}


async def test_an_observation_needs_no_lease(service: Any) -> None:
    """It sets limits, levels, and the pause that a refusal asks for."""
    headers = said(30_000, 100, **{"Retry-After": "20"})
    body = {"resource": "p/m", "status": 429, "headers": headers}
    answer = await ask(service, "observe", **body)

    assert answer == IsPartialDict(resource="p/m", taken=1, changed=1)
    assert (await limit(service, "m.tpd"))["limit"] == 30_000
    paused = await refused(service, "acquire", 503, "cooldown", resource="p/m", tokens=1)
    assert paused["retry_after"] == IsFloat(gt=10, le=20)
    await refused(service, "observe", 404, "unknown_resource", resource="q/m")


async def test_headers_of_a_settle_say_how_long_to_pause(service: Any) -> None:
    """Where `retry_after` is not given by itself."""
    await call(service, {"retry-after-ms": "20000"}, outcome="rate_limited")
    paused = await refused(service, "acquire", 503, "cooldown", resource="p/m", tokens=1)
    assert paused["retry_after"] == IsFloat(gt=10, le=20)


async def test_figures_in_the_text_of_a_refusal_count(service: Any) -> None:
    """OpenAI and Groq say there what was used."""
    spent = {"meter": "tokens", "per": 86_400, "limit": 30_000, "used": 29_900, "requested": 500}
    await call(service, {}, outcome="rate_limited", spent=spent, asked={"tokens": 500})
    view = await limit(service, "m.tpd")
    assert view["limit"] == 30_000
    assert view["remaining"] < 1000


async def test_an_early_report_carries_headers_too(service: Any) -> None:
    """A stream of minutes does not keep what its first byte said."""
    lease = (await ask(service, "acquire", resource="p/m", tokens=100))["lease"]
    await ask(service, "settle", lease=lease, phase="first_token", headers=said(60_000, 5_000))
    assert (await limit(service, "m.tpd"))["remaining"] < 10_000
    assert (await ask(service, "settle", lease=lease))["settled"]


async def test_a_burst_shrinks_when_the_provider_refuses_though_calls_remain(service: Any) -> None:
    """600 a minute are five at once by the profile; then half of it, also of what is left."""
    asked = {"resource": "p/bursty"}
    assert (await limit(service, "bursty.rpm", "p/bursty"))["remaining"] == 5
    await call(service, said(600, 500, "requests"), outcome="rate_limited", asked=asked)
    view = await limit(service, "bursty.rpm", "p/bursty")
    assert view == IsPartialDict(limit=600, burst=IsFloat(ge=0.5, lt=0.6))
    assert view["remaining"] <= 2.5


UNKNOWN = {"resource": "p/unknown"}


async def test_a_rate_is_cut_when_the_provider_refuses_without_a_word(service: Any) -> None:
    """To 0.7 of itself; what was left of the level is gone, and other limits are as before."""
    await call(service, {}, outcome="rate_limited", asked=UNKNOWN)
    view = await limit(service, "unknown.tpd", "p/unknown")
    assert view == IsPartialDict(limit=44_000, configured=64_000, share=0.6875, learned=None)
    assert view["remaining"] <= 110
    assert (await limit(service, "unknown.rpd", "p/unknown"))["share"] == 1


async def test_a_refusal_without_headers_cuts_as_well(service: Any) -> None:
    """It needs nothing but the outcome, which every settle has."""
    lease = (await ask(service, "acquire", **UNKNOWN, tokens=100))["lease"]
    await ask(service, "settle", lease=lease, outcome="rate_limited")
    assert (await limit(service, "unknown.tpd", "p/unknown"))["share"] == 0.6875


async def test_calls_that_were_under_way_together_cut_a_rate_once(service: Any) -> None:
    """They were all granted before anybody was slower; the next one counts again."""
    leases = [(await ask(service, "acquire", **UNKNOWN, tokens=100))["lease"] for _ in range(5)]
    for lease in leases:
        await ask(service, "settle", lease=lease, outcome="rate_limited")
    assert (await limit(service, "unknown.tpd", "p/unknown"))["share"] == 0.6875

    override = "/v1/limits/p/unknown/tpd/override"
    await service.put(override, json={"limit": 64e9, "ttl": 600, "reason": "room for one"})
    lease = (await ask(service, "acquire", **UNKNOWN, tokens=100))["lease"]
    await service.delete(override)
    await ask(service, "settle", lease=lease, outcome="rate_limited")
    assert (await limit(service, "unknown.tpd", "p/unknown"))["share"] == 0.46875


async def test_a_refusal_that_speaks_of_a_limit_does_not_cut_it(service: Any) -> None:
    """What the provider says counts before guesses."""
    told = said(64_000, 30_000)
    await call(service, told, outcome="rate_limited", asked=UNKNOWN)
    view = await limit(service, "unknown.tpd", "p/unknown")
    assert view == IsPartialDict(limit=64_000, share=1)


async def test_an_observed_refusal_cuts_once_in_ten_seconds(service: Any) -> None:
    """Nobody knows when a call without a lease began."""
    for _ in range(3):
        await ask(service, "observe", **UNKNOWN, status=429, headers={})
    assert (await limit(service, "unknown.tpd", "p/unknown"))["share"] == 0.6875


async def test_an_operators_limit_is_not_cut(service: Any) -> None:
    """It is what the operator says, up or down, and so it was when it is cleared."""
    path = "/v1/limits/p/unknown/tpd/override"
    await service.put(path, json={"limit": 32_000, "ttl": 600, "reason": "known better"})
    await call(service, {}, outcome="rate_limited", asked=UNKNOWN)
    assert (await limit(service, "unknown.tpd", "p/unknown"))["limit"] == 32_000
    await service.delete(path)
    assert await limit(service, "unknown.tpd", "p/unknown") == IsPartialDict(limit=64_000, share=1)


async def test_an_operator_holds_a_limit(service: Any, db: redis.Redis) -> None:
    """Above what the provider states and the file says, for a time, with a name and a reason."""
    await call(service, said(20_000, 19_000), outcome="rate_limited")
    order = {"limit": 90_000, "ttl": 600, "reason": "the account was upgraded"}
    held = await service.put("/v1/limits/p/m/tpd/override", json=order)

    assert held.status_code == 200, held.text
    view = {"limit": 90_000, "configured": 60_000, "learned": 20_000}
    why = {"limit": 90_000, "actor": "anonymous", "reason": "the account was upgraded"}
    assert held.json() == IsPartialDict(name="m.tpd", override=IsPartialDict(**why), **view)
    assert (await events(service))[-1] == IsPartialDict(
        type="limit_override", limit="m.tpd", to="90000", actor="anonymous", **{"from": "none"}
    )
    released = await service.delete("/v1/limits/p/m/tpd/override")
    assert released.json() == IsPartialDict(limit=20_000, override=None)
    assert (await events(service))[-1] == IsPartialDict(type="limit_override", to="none")
    assert not db.keys("sg:{p}:o:*")


async def test_a_limit_may_be_held_to_less_at_once(service: Any) -> None:
    """What a bucket has beyond that is gone."""
    order = {"limit": 6_000, "ttl": 60}
    await service.put("/v1/limits/p/m/m.tpd/override", json=order)
    await refused(service, "acquire", 422, "never_fits", resource="p/m", tokens=7_000)
    view = await limit(service, "m.tpd")
    assert view == IsPartialDict(limit=6_000, remaining=6_000)


async def test_models_with_slashes_and_limits_of_the_pool_can_be_held(service: Any) -> None:
    """A bare name means the model's limit before the pool's."""
    order = {"limit": 30, "ttl": 60}
    assert (await service.put("/v1/limits/p/a/b/rpm/override", json=order)).status_code == 200
    assert (await limit(service, "a/b.rpm", "p/a/b"))["limit"] == 30
    order = {"limit": 30_000, "ttl": 60}
    assert (await service.put("/v1/limits/p/m/all/override", json=order)).status_code == 200
    assert (await limit(service, "p.all"))["limit"] == 30_000


@pytest.mark.parametrize(
    ("path", "order", "status"),
    [
        ("p/m/nothing", {"limit": 1, "ttl": 1}, 404),
        ("q/m/tpm", {"limit": 1, "ttl": 1}, 404),
        ("p/m/tpd", {"limit": 0, "ttl": 1}, 422),
        ("p/m/tpd", {"limit": 1}, 422),
        ("p/m/tpd", {"limit": 1, "ttl": -1}, 422),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(
    service: Any, path: str, order: dict[str, float], status: int
) -> None:
    """Nothing is held."""
    answer = await service.put(f"/v1/limits/{path}/override", json=order)
    assert answer.status_code == status
    assert await events(service) == []


async def test_an_override_without_an_end_outlives_idle_keys(service: Any, db: redis.Redis) -> None:
    """It is kept until it is cleared; so is who ordered it."""
    order = {"limit": 6_000, "ttl": None, "reason": "for good"}
    held = (await service.put("/v1/limits/p/m/tpd/override", json=order)).json()
    assert held["override"] == IsPartialDict(until=None, reason="for good")
    assert db.pttl("sg:{p}:s:model:m") > 365 * 86_400_000
    await service.delete("/v1/limits/p/m/tpd/override")
