"""The breaker as callers meet it: outcomes go in with settles, refusals come out of acquires."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import redis
from dirty_equals import IsFloat, IsPartialDict
from tests_support.calls import ask, refused
from tests_support.waiting import until

CONFIG = """
pools:
  p:
    models:
      m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}
      n: {}
      one: {concurrency: 1}
    breaker:
      {window: 30s, min_calls: 4, consecutive: 0, open: 250ms, max_open: 5s, jitter: 0,
       probe_ttl: 10s, retry_floor: 0.0001}
"""
LONG = CONFIG.replace("open: 250ms", "open: 60s").replace("max_open: 5s", "max_open: 60s")


@pytest.fixture
async def service(serve: Any) -> httpx.AsyncClient:
    """Circuits that open for a quarter of a second."""
    client: httpx.AsyncClient = await serve(CONFIG)
    return client


async def take(client: httpx.AsyncClient, resource: str = "p/m", **fields: object) -> Any:
    """A grant."""
    return await ask(client, "acquire", resource=resource, tokens=1, **fields)


async def end(client: httpx.AsyncClient, outcome: str, count: int = 1, **fields: object) -> Any:
    """Calls that end alike; the answer to the last settle."""
    resource = str(fields.pop("resource", "p/m"))
    worker = fields.pop("worker", None)
    leases = [(await take(client, resource, worker=worker))["lease"] for _ in range(count)]
    settled = None
    for lease in leases:
        settled = await ask(client, "settle", lease=lease, outcome=outcome, **fields)
    return settled


async def state(client: httpx.AsyncClient, resource: str = "p/m") -> Any:
    """The view of a circuit."""
    return (await client.get(f"/v1/breakers/{resource}")).json()


async def paused(client: httpx.AsyncClient, code: str, **fields: object) -> dict[str, Any]:
    """An acquire that the breaker must refuse."""
    asked = {"resource": "p/m", "tokens": 1} | fields
    return await refused(client, "acquire", 503, code, **asked)


async def probe(client: httpx.AsyncClient) -> Any:
    """The first grant of a circuit whose time is over."""
    granted: list[Any] = []

    async def passes() -> bool:
        answer = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
        granted.append(answer.json())
        return answer.status_code == 200

    await until(passes, "the circuit lets nobody probe")
    return granted[-1]


@pytest.mark.parametrize(
    "outcome",
    [
        *("server_error", "overloaded", "timeout", "connection"),
        *("stream_interrupted", "malformed_stream"),
    ],
)
async def test_failures_open_the_circuit(serve: Any, outcome: str):
    """The fleet stops, is told why and when to come back, and other models go on."""
    client = await serve(LONG)
    assert (await end(client, outcome, 3))["breaker"] == "closed"
    assert (await end(client, outcome))["breaker"] == "open"
    found = await paused(client, "breaker_open")
    assert found["reason"] == "open"
    assert found["retry_after"] == IsFloat(ge=50, le=60)
    answer = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
    assert int(answer.headers["retry-after"]) == pytest.approx(60, abs=10)
    assert (await take(client, "p/n"))["breaker"] == "closed"
    view = await state(client)
    assert view == IsPartialDict(state="open", reason="open", open_count=1, generation=2)
    assert view["last_errors"][0]["outcome"] == outcome
    assert (await client.get("/v1/resources/p/m")).json()["breaker"] == "open"


@pytest.mark.parametrize(
    "outcome",
    ["invalid_request", "context_length_exceeded", "not_found", "content_filtered", "cancelled"],
)
async def test_what_is_nobodys_fault_counts_for_nothing(serve: Any, outcome: str):
    """Neither as a failure nor as a success."""
    client = await serve(LONG)
    await end(client, outcome, 12)
    view = await state(client)
    assert (view["state"], view["window"]["ok"], view["window"]["fail"]) == ("closed", 0, 0)


async def test_a_throttled_call_is_no_failure_but_pauses_the_model(serve: Any):
    """As long as the provider asked for; a shorter wish does not shorten a longer one."""
    client = await serve(LONG)
    first, second = await take(client), await take(client)
    for lease, pause in ((first, 40), (second, 2)):
        await ask(client, "settle", lease=lease["lease"], outcome="rate_limited", retry_after=pause)
    found = await paused(client, "cooldown")
    assert (found["reason"], found["retry_after"]) == ("cooldown", IsFloat(ge=30, le=40))
    view = await state(client)
    assert (view["state"], view["window"]["throttle"], view["window"]["fail"]) == ("closed", 2, 0)
    await take(client, "p/n")


async def test_a_cooldown_can_be_the_whole_pools(serve: Any):
    """Where the provider counts the account, not the model."""
    client = await serve(LONG.replace("window: 30s", "cooldown: pool, window: 30s"))
    await end(client, "rate_limited", retry_after=30)
    await paused(client, "cooldown", resource="p/n")


async def test_a_throttled_call_without_a_wish_pauses_nobody(service: httpx.AsyncClient):
    """There is nothing to wait for."""
    await end(service, "rate_limited", 8)
    await take(service)


async def test_an_exhausted_quota_latches_the_pool(serve: Any):
    """Every model, with clear words, until somebody resets."""
    client = await serve(CONFIG)
    await end(client, "quota_exhausted")
    found = await paused(client, "latched", resource="p/n")
    assert "quota of pool p is exhausted" in found["detail"]
    assert (found["reason"], found["retry_after"]) == ("latched", IsFloat(ge=3500))
    (provider,) = (await client.get("/v1/breakers")).json()["providers"]
    assert (provider["verdict"], provider["latch"]) == ("down", "quota_exhausted")
    await client.post("/v1/breakers/p/m/reset")
    await take(client, "p/n")


async def test_refused_credentials_in_a_row_latch_the_pool(service: httpx.AsyncClient):
    """A success between them shows that the key is good."""
    await end(service, "auth", 2)
    await end(service, "success")
    await end(service, "permission", 2)
    await take(service)
    await end(service, "auth")
    found = await paused(service, "latched")
    assert "refuses the credentials of pool p" in found["detail"]
    assert (await state(service))["state"] == "closed"


async def test_one_call_tries_whether_a_latch_still_holds(serve: Any):
    """All others wait for it; its success lifts the latch."""
    client = await serve(CONFIG.replace("window: 30s", "quota_latch: 200ms, window: 30s"))
    await end(client, "quota_exhausted")
    trial = await probe(client)
    found = await paused(client, "latched")
    assert found["retry_after"] <= 1
    await ask(client, "settle", lease=trial["lease"])
    await take(client)


async def test_retries_draw_on_a_budget_of_the_fleet(service: httpx.AsyncClient):
    """A share of first attempts and a floor; first attempts always pass."""
    for _ in range(20):
        await take(service)  # a fifth of a retry each
    granted = 0
    question = {"resource": "p/m", "tokens": 1, "attempt": 3}
    assert (await ask(service, "check", **question))["would_grant"]
    while granted < 50:
        answer = await service.post(
            "/v1/acquire", json={"resource": "p/n", "tokens": 1, "attempt": 2}
        )
        if answer.status_code != 200:
            break
        granted += 1
    assert 1 <= granted <= 4  # less when much time passes: first attempts are forgotten
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (429, "retry_budget")
    assert problem["retry_after"] > 0
    assert not (await ask(service, "check", **question))["would_grant"]
    await take(service)


async def test_one_probe_at_a_time_closes_the_circuit_again(service: httpx.AsyncClient):
    """Two successes are needed; whoever asks meanwhile is told to wait a moment."""
    await end(service, "server_error", 4)
    for expected in ("half_open", "closed"):
        granted = await probe(service)
        assert (granted["probe"], granted["breaker"]) == (True, "half_open")
        found = await paused(service, "breaker_open")
        assert (found["reason"], found["retry_after"]) == ("probing", IsFloat(gt=0, le=1))
        settled = await ask(service, "settle", lease=granted["lease"])
        assert settled["breaker"] == expected
    assert not (await take(service))["probe"]
    assert (await state(service))["ramp"] < 1


async def test_a_probe_that_fails_opens_for_longer(service: httpx.AsyncClient):
    """Twice as long each time."""
    await end(service, "server_error", 4)
    granted = await probe(service)
    await ask(service, "settle", lease=granted["lease"], outcome="overloaded")
    view = await state(service)
    assert (view["state"], view["open_count"], view["next_open_duration"]) == ("open", 2, 1)


async def test_an_outcome_without_a_verdict_frees_the_probe(service: httpx.AsyncClient):
    """The next caller may try at once."""
    await end(service, "server_error", 4)
    granted = await probe(service)
    await ask(service, "settle", lease=granted["lease"], outcome="cancelled")
    assert (await take(service))["probe"]


async def test_the_first_token_of_a_probe_is_its_success(service: httpx.AsyncClient):
    """Recovery does not wait for the end of a long answer, and the end is no second vote."""
    await end(service, "server_error", 4)
    for expected in ("half_open", "closed"):
        granted = await probe(service)
        early = {"lease": granted["lease"], "phase": "first_token", "ttft": 0.4}
        answer = await ask(service, "settle", **early)
        assert (answer["settled"], answer["breaker"]) == (False, expected)
        again = await ask(service, "settle", **early)
        assert again == answer
        settled = await ask(service, "settle", lease=granted["lease"])
        assert settled["settled"]
    assert (await state(service))["window"]["ok"] == 0


async def test_a_stream_that_breaks_off_after_its_first_token_is_one_failed_call(serve: Any):
    """Providers that accept and then drop are down too."""
    client = await serve(LONG)
    for nth in range(3):
        lease = (await take(client))["lease"]
        await ask(client, "settle", lease=lease, phase="first_token", ttft=0.1)
        assert (await state(client))["window"]["ok"] == 1
        settled = await ask(client, "settle", lease=lease, outcome="stream_interrupted")
        assert settled["breaker"] == "closed"
        view = await state(client)
        assert (view["window"]["ok"], view["window"]["fail"]) == (0, nth + 1)
    await end(client, "stream_interrupted")
    assert (await state(client))["state"] == "open"


async def test_slow_first_tokens_open_the_circuit(serve: Any):
    """Where most calls are slow; a slow end of a long answer is none."""
    client = await serve(LONG.replace("window: 30s", "slow_ttft: 2s, window: 30s"))
    await end(client, "success", 8, ttft=1.9, latency=300)
    assert (await state(client))["window"]["slow"] == 0
    await client.post("/v1/breakers/p/m/reset")
    await end(client, "success", 4, ttft=2.0)
    assert (await state(client))["state"] == "open"


async def test_one_bad_worker_does_not_open_for_all(serve: Any):
    """While others succeed, it is the one that is broken."""
    client = await serve(LONG)
    await end(client, "success", 3, worker="well")
    await end(client, "timeout", 20, worker="ill")
    assert (await state(client))["state"] == "closed"
    await end(client, "timeout", 1, worker="well")
    assert (await state(client))["state"] == "open"


async def test_a_limit_that_refuses_takes_no_probe(service: httpx.AsyncClient, db: redis.Redis):
    """The circuit stays open until somebody who fits asks: nothing is written."""
    await end(service, "server_error", 4)
    granted = await probe(service)
    await ask(service, "settle", lease=granted["lease"], outcome="cancelled")
    before = {key: db.dump(key) for key in db.scan_iter("sg:{p}*")}
    large = {"resource": "p/m", "tokens": 999}
    await refused(service, "acquire", 429, "rate_limited", **large)
    assert {key: db.dump(key) for key in db.scan_iter("sg:{p}*")} == before
    assert (await state(service))["probes"]["held"] == 0
    assert (await take(service))["probe"]


async def test_a_repeated_settle_votes_once(service: httpx.AsyncClient):
    """And tells the same again."""
    await end(service, "server_error", 4)
    granted = await probe(service)
    first = await ask(service, "settle", lease=granted["lease"])
    again = await ask(service, "settle", lease=granted["lease"])
    assert again == first | {"already_settled": True}
    assert (await state(service))["probes"]["ok"] == 1


async def test_reports_from_before_an_outage_change_nothing(service: httpx.AsyncClient):
    """A late success closes no circuit, and a late failure prolongs none."""
    old = [(await take(service))["lease"] for _ in range(2)]
    await end(service, "server_error", 4)
    seen = await state(service)
    await ask(service, "settle", lease=old[0])
    await ask(service, "settle", lease=old[1], outcome="server_error")
    now = await state(service)
    told = ("state", "generation", "open_count", "since")
    assert [now[name] for name in told] == [seen[name] for name in told]


async def test_a_replayed_acquire_is_the_same_probe(service: httpx.AsyncClient):
    """A lost answer takes no second probe."""
    await end(service, "server_error", 4)
    asked = {"resource": "p/m", "tokens": 1, "request_id": "r"}

    async def passes() -> bool:
        return (await service.post("/v1/acquire", json=asked)).status_code == 200

    await until(passes, "the circuit lets nobody probe")
    again = await ask(service, "acquire", **asked)
    assert again["probe"]
    assert (await state(service))["probes"]["held"] == 1


async def test_a_check_says_what_the_breaker_does(serve: Any, db: redis.Redis):
    """And changes nothing, also when the circuit is due for a probe."""
    client = await serve(CONFIG)
    await end(client, "server_error", 4)

    async def due() -> bool:
        found = await ask(client, "check", resource="p/m", tokens=1)
        assert found["breaker"] == "open"
        return bool(found["would_grant"])

    await until(due, "the opening does not end")
    before = {key: db.dump(key) for key in db.scan_iter("sg:{p}*")}
    await due()
    assert {key: db.dump(key) for key in db.scan_iter("sg:{p}*")} == before


async def test_a_circuit_that_is_held_open_refuses_and_one_held_closed_passes(serve: Any):
    """Whatever its own state is, and for whichever replica."""
    one, other = await serve(LONG), await serve(LONG)
    path = "/v1/breakers/p/m/override"
    await one.put(path, json={"mode": "open", "ttl": None, "reason": "drill"})
    found = await paused(other, "breaker_open")
    assert (found["reason"], found["retry_after"]) == ("forced_open", 60)
    await one.delete(path)
    await end(other, "server_error", 4)
    await paused(one, "breaker_open")
    await one.put(path, json={"mode": "closed", "ttl": 60})
    assert (await take(other))["breaker"] == "closed"
    await end(other, "server_error", 4)
    await take(one)


async def test_who_waits_waits_through_an_opening(service: httpx.AsyncClient):
    """The first becomes the probe, and the circuit lets the others follow."""
    await end(service, "server_error", 4)

    async def call() -> Any:
        granted = await take(service, max_wait=15)
        await ask(service, "settle", lease=granted["lease"])
        return granted

    answers = await asyncio.gather(*(call() for _ in range(6)))
    assert sum(each["probe"] for each in answers) == 2
    assert all(each["waited"] > 0 for each in answers)
    assert (await state(service))["state"] == "closed"


async def test_who_cannot_wait_for_the_end_of_an_opening_is_told_at_once(serve: Any):
    """An opening of a minute is not waited for with three seconds."""
    client = await serve(LONG)
    await end(client, "server_error", 4)
    assert (await paused(client, "breaker_open", max_wait=3))["reason"] == "open"


async def test_waiters_of_a_circuit_that_opens_are_told_when_they_ask_again(serve: Any):
    """Who waits for a limit, and then for a provider that is down for longer than that."""
    client = await serve(LONG)
    held = await take(client, "p/one")
    waiting = asyncio.create_task(
        client.post("/v1/acquire", json={"resource": "p/one", "tokens": 1, "max_wait": 20})
    )

    async def depth() -> int:
        return int((await client.get("/v1/queue/p")).json()["depth"])

    await until(depth, "nobody waits")
    await client.put("/v1/breakers/p/one/override", json={"mode": "open", "ttl": 600})
    await ask(client, "settle", lease=held["lease"], outcome="rate_limited")
    answer = await waiting
    assert (answer.status_code, answer.json()["code"]) == (503, "breaker_open")
    assert await depth() == 0


async def test_every_transition_is_told_once(service: httpx.AsyncClient):
    """From closed to open, half-open, and closed."""
    await end(service, "server_error", 4)
    for _ in range(2):
        await ask(service, "settle", lease=(await probe(service))["lease"])
    answer = await service.get("/v1/events?follow=false", headers={"last-event-id": "0"})
    told = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [(each["from"], each["to"], each["reason"]) for each in told] == [
        ("closed", "open", "failure_rate"),
        ("open", "half_open", "expired"),
        ("half_open", "closed", "recovered"),
    ]
    assert {each["resource"] for each in told} == {"p/m"}
    assert told[0]["lasts"] == 0.25


async def test_a_breaker_that_is_off_does_nothing(serve: Any):
    """Outcomes do not count, and nobody can hold it."""
    client = await serve(CONFIG.replace("window: 30s", "enabled: false, window: 30s"))
    await end(client, "server_error", 12)
    await end(client, "quota_exhausted")
    await take(client, attempt=9)
    order = {"mode": "open", "ttl": 5}
    answer = await client.put("/v1/breakers/p/m/override", json=order)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
