"""POST /v1/acquire: all limits or none, once per request id, with honest answers."""

import asyncio
import math
import uuid
from typing import Any

import http_sf
import httpx
import msgspec
import pytest
from dirty_equals import IsFloat, IsStr
from tests_support.calls import JSON, MSGPACK, ask, body_of, left, problem, refused, view
from tests_support.waiting import until

TINY = """
pools:
  p:
    lease_ttl: 1s
    remember: {remember}
    models:
      m:
        limits:
          - {{name: budget, meter: tokens, limit: 1000, per: 366d}}
          - {{name: slots, meter: concurrency, limit: 1}}
"""
TWENTY = range(20)
FORMATS = [(JSON, JSON), (JSON, MSGPACK), (MSGPACK, JSON), (MSGPACK, MSGPACK)]


async def test_a_grant_says_what_was_charged_and_what_is_left(client: httpx.AsyncClient):
    """The answer has the fields of the contract, with every limit of the chain."""
    answer = await ask(client, "acquire", resource="p/m", tokens=120)
    limits = answer.pop("limits")
    assert answer == {
        "granted": True,
        "lease": IsStr(min_length=10),
        "waited": 0.0,
        "expires_in": 600.0,
        "block": None,
        "charged": {"tokens": 120, "requests": 1, "concurrency": 1},
        "breaker": "closed",
        "probe": False,
        "suggested_max_tokens": None,
        "degraded": False,
        "settled": False,
    }
    assert limits[0] == {
        "name": "m.budget",
        "meter": "tokens",
        "limit": 1000,
        "remaining": 880,
        "reset_after": IsFloat(gt=0, le=366 * 86_400 * 0.12 + 1),
        "per": 366 * 86_400.0,
        "window": "bucket",
        "scope": "model",
        "shadow": False,
        "refused": False,
    }
    assert {limit["name"]: limit["remaining"] for limit in limits} == {
        "m.budget": 880,
        "m.calls": 99,
        "m.slots": 9,
    }


async def test_every_limit_is_charged_or_none(serve: Any):
    """A refusal by the last limit of the chain leaves the first ones as they were."""
    client = await serve("""
pools:
  p:
    rpd: 50
    models:
      m: {tpd: 1000}
    tenants:
      default: {tpd: 500, models: {m: {concurrency: 1}}}
""")
    await ask(client, "acquire", resource="p/m", tokens=100)
    before = await view(client)
    found = await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=100)
    assert found["limit"] == "default.m.concurrency"
    after = await view(client)
    refilled = {name: limit["remaining"] for name, limit in after.items()}
    assert refilled == {name: limit["remaining"] for name, limit in before.items()}


async def test_a_refusal_says_which_limit_binds_and_when_it_fits(client: httpx.AsyncClient):
    """A 429 carries the binding limit, what would fit now, and the wait, also as headers."""
    await ask(client, "acquire", resource="p/m", tokens=900)
    answer = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 200})
    found = problem(answer, 429, "rate_limited")
    # 100 tokens are missing, and 1000 come in 366 days.
    assert found["retry_after"] == pytest.approx(366 * 8640, rel=1e-3)
    assert (found["limit"], found["would_fit"]) == ("m.budget", 100)
    assert found["resource"] == "p/m"
    assert "m.budget has 100 tokens left and 200 are asked for" in found["detail"]
    assert [limit["remaining"] for limit in found["limits"]] == [100, 99, 9]
    assert int(answer.headers["retry-after"]) == math.ceil(found["retry_after"])
    assert int(answer.headers["retry-after-ms"]) == math.ceil(found["retry_after"] * 1000)
    await ask(client, "acquire", resource="p/m", tokens=found["would_fit"])


async def test_the_longest_wait_binds(client: httpx.AsyncClient):
    """Of two limits without room, the answer names the one that takes longer."""
    await ask(client, "acquire", resource="p/m", tokens=1000)
    for _ in range(9):
        await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
    found = await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=1)
    assert found["limit"] == "m.budget"
    assert found["would_fit"] == 0


async def test_retry_after_is_at_least_a_second_in_the_header(serve: Any):
    """Whole seconds are rounded up; the exact wait stands beside them."""
    client = await serve("""
pools: {p: {models: {m: {limits: [{meter: requests, limit: 4, per: second, burst: 2}]}}}}
""")
    while True:  # asking takes a fraction of what a request needs to refill
        answer = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
        if answer.status_code == 429:
            break
    assert 0 < problem(answer, 429, "rate_limited")["retry_after"] <= 0.25
    assert answer.headers["retry-after"] == "1"
    assert 1 <= int(answer.headers["retry-after-ms"]) <= 250


async def test_what_can_never_fit_is_said_at_once(client: httpx.AsyncClient):
    """More than a limit holds is a 422 with the largest request that fits, and no wait."""
    await ask(client, "acquire", resource="p/m", tokens=100)
    answer = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 1001})
    found = problem(answer, 422, "never_fits")
    assert (found["limit"], found["would_fit"]) == ("m.budget", 900)
    assert "retry_after" not in found
    assert "retry-after" not in answer.headers
    assert await left(client) == 900


async def test_a_burst_smaller_than_the_limit_bounds_one_request(serve: Any):
    """What exceeds the capacity of a bucket can never fit, however large its limit."""
    client = await serve("""
pools: {p: {models: {m: {limits: [{meter: tokens, limit: 1000, per: 366d, burst: 50}]}}}}
""")
    await refused(client, "acquire", 422, "never_fits", resource="p/m", tokens=51)
    await ask(client, "acquire", resource="p/m", tokens=50)


async def test_rate_limit_headers_are_structured_fields(client: httpx.AsyncClient):
    """`RateLimit` and `RateLimit-Policy` parse, and agree with the body."""
    granted = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 300})
    denied = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 900})
    for answer in (granted, denied):
        body = {limit["name"]: limit for limit in answer.json()["limits"]}
        counted = {name: limit for name, limit in body.items() if limit["per"] is not None}
        states = dict(http_sf.parse(answer.headers["ratelimit"].encode(), tltype="list"))
        policies = dict(http_sf.parse(answer.headers["ratelimit-policy"].encode(), tltype="list"))
        assert states.keys() == policies.keys() == counted.keys() == {"m.budget", "m.calls"}
        for name, limit in counted.items():
            assert states[name] == {"r": limit["remaining"], "t": math.ceil(limit["reset_after"])}
            assert policies[name] == {
                "q": limit["limit"],
                "w": int(limit["per"]),
                "qu": limit["meter"],
            }


@pytest.mark.parametrize(("sent", "accepted"), FORMATS)
async def test_every_combination_of_formats_works(
    client: httpx.AsyncClient, sent: str, accepted: str
):
    """The body is read as its media type says and answered in the one that is asked for."""
    encode = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}[sent]
    headers = {"content-type": sent, "accept": accepted}
    body = encode({"resource": "p/m", "tokens": 10, "request_id": "r"})
    answer = await client.post("/v1/acquire", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, accepted)
    assert body_of(answer)["charged"]["tokens"] == 10
    bad = await client.post("/v1/acquire", content=encode({"resource": "p/m"}), headers=headers)
    assert bad.status_code == 422
    expected = {JSON: "application/problem+json", MSGPACK: MSGPACK}[accepted]
    assert bad.headers["content-type"] == expected
    decode = {JSON: msgspec.json.decode, MSGPACK: msgspec.msgpack.decode}[accepted]
    assert decode(bad.content)["code"] == "invalid"


async def test_without_accept_the_answer_has_the_format_of_the_body(client: httpx.AsyncClient):
    """msgpack is answered in msgpack; a body without a media type is JSON."""
    del client.headers["accept"]
    body = {"resource": "p/m", "tokens": 1}
    headers = {"content-type": MSGPACK}
    packed = msgspec.msgpack.encode(body)
    answer = await client.post("/v1/acquire", content=packed, headers=headers)
    assert answer.headers["content-type"] == MSGPACK
    plain = await client.post("/v1/acquire", content=msgspec.json.encode(body))
    assert plain.headers["content-type"] == JSON


async def test_unknown_fields_are_ignored(client: httpx.AsyncClient):
    """A newer client may send more than this service knows."""
    await ask(client, "acquire", resource="p/m", tokens=1, colour="blue", nested={"a": [1]})


async def test_the_request_id_of_the_transport_comes_back(client: httpx.AsyncClient):
    """`X-Request-Id` is echoed, in refusals also in the body; a bad one is replaced."""
    for path, body in (("/v1/acquire", {}), ("/nowhere", {}), ("/v1/settle", {"lease": "x"})):
        answer = await client.post(path, json=body, headers={"x-request-id": "abc-1"})
        assert answer.headers["x-request-id"] == "abc-1"
        assert answer.json()["request_id"] == "abc-1"
    ok = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
    assert ok.headers["x-request-id"]
    for bad in ("a b", "x" * 201, "\x7f"):
        answer = await client.get("/livez", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"] not in {"", bad}


async def test_input_and_output_are_reserved_on_their_own_limits(serve: Any):
    """Each meter holds its share of `input_tokens` and `max_output_tokens`."""
    client = await serve("""
pools:
  p:
    models:
      m:
        limits:
          - {meter: tokens, limit: 1000, per: 366d}
          - {meter: input_tokens, limit: 1000, per: 366d}
          - {meter: output_tokens, limit: 1000, per: 366d}
""")
    answer = await ask(client, "acquire", resource="p/m", input_tokens=100, max_output_tokens=40)
    assert answer["charged"] == {"tokens": 140, "input_tokens": 100, "output_tokens": 40}
    answer = await ask(client, "acquire", resource="p/m", tokens=10)
    assert answer["charged"] == {"tokens": 10, "input_tokens": 10, "output_tokens": 10}


async def test_a_ttl_of_the_request_replaces_the_pools(client: httpx.AsyncClient):
    """`expires_in` follows `ttl`."""
    assert (await ask(client, "acquire", resource="p/m", tokens=1, ttl=7))["expires_in"] == 7.0


async def test_a_shadow_limit_never_refuses(serve: Any):
    """It is charged while it has room, reported as refused when it has none, and in nobody's way.

    What it could not hold is not charged and not refunded.
    """
    client = await serve("""
pools:
  p:
    models:
      m:
        limits:
          - {name: watched, meter: tokens, limit: 100, per: 366d, mode: shadow}
          - {name: slots, meter: concurrency, limit: 1, mode: shadow}
          - {name: real, meter: tokens, limit: 1000, per: 366d}
""")
    first = await ask(client, "acquire", resource="p/m", tokens=80)
    assert [(limit["shadow"], limit["refused"]) for limit in first["limits"]] == [
        (True, False),
        (True, False),
        (False, False),
    ]
    second = await ask(client, "acquire", resource="p/m", tokens=80)
    assert [limit["refused"] for limit in second["limits"]] == [True, True, False]
    assert second["charged"] == {"tokens": 80}
    third = await ask(client, "acquire", resource="p/m", tokens=101)
    assert third["limits"][0]["refused"]
    await ask(client, "settle", lease=second["lease"], usage={"input_tokens": 10})
    levels = await view(client)
    assert levels["m.watched"]["remaining"] == 20
    assert levels["m.real"]["remaining"] == 1000 - 80 - 10 - 101


async def test_a_slot_of_an_abandoned_lease_comes_back(serve: Any):
    """A lease that nobody settles gives its slot back when it expires, its tokens never."""
    client = await serve(TINY.format(remember="60s"))
    await ask(client, "acquire", resource="p/m", tokens=10)
    found = await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=10)
    assert found["limit"] == "m.slots"
    assert 0 < found["retry_after"] <= 1

    async def granted() -> bool:
        answer = await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 10})
        return answer.status_code == 200

    await until(granted, "the slot of a dead lease does not come back")
    assert await left(client) == 980


async def test_the_same_request_id_charges_once(client: httpx.AsyncClient):
    """A replay is the original answer, also after others have moved the levels."""
    body = {"resource": "p/m", "tokens": 100, "request_id": "r1"}
    first = await ask(client, "acquire", **body)
    await ask(client, "acquire", resource="p/m", tokens=50)
    assert await ask(client, "acquire", **body) == first
    assert await left(client) == 850


async def test_the_idempotency_key_is_the_request_id(client: httpx.AsyncClient):
    """Header and field name the same request; sent together they must agree."""
    body = {"resource": "p/m", "tokens": 100}
    key = {"idempotency-key": "r1"}
    first = (await client.post("/v1/acquire", json=body, headers=key)).json()
    assert await ask(client, "acquire", **body, request_id="r1") == first
    both = await client.post("/v1/acquire", json=body | {"request_id": "r1"}, headers=key)
    assert both.json() == first
    assert await left(client) == 900


async def test_a_request_id_belongs_to_its_tenant_and_pool(serve: Any):
    """Another tenant or pool may use the same id for something else."""
    client = await serve("pools: {p: {models: {m: {tpd: 1000}}}, q: {models: {m: {tpd: 1000}}}}")
    leases = {
        (await ask(client, "acquire", resource=resource, tokens=1, tenant=tenant, request_id="r"))[
            "lease"
        ]
        for resource in ("p/m", "q/m")
        for tenant in ("a", "b")
    }
    assert len(leases) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"tokens": 101},
        {"resource": "p/n"},
        {"tokens": None, "input_tokens": 100},
        {"cost_usd": 1.0},
        {"ttl": 60},
    ],
)
async def test_a_request_id_with_other_parameters_is_a_conflict(
    serve: Any, other: dict[str, object]
):
    """Reusing an id for another request is a 409 and charges nothing."""
    client = await serve("""
pools: {p: {models: {"*": {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}}}}
""")
    body: dict[str, object] = {"resource": "p/m", "tokens": 100, "request_id": "r1"}
    await ask(client, "acquire", **body)
    found = await refused(client, "acquire", 409, "request_conflict", **(body | other))
    assert "'r1'" in found["detail"]
    assert await left(client) == 900


async def test_what_does_not_change_the_charge_is_no_conflict(client: httpx.AsyncClient):
    """A retry may wait longer, count its attempts, and come from another worker."""
    body: dict[str, object] = {"resource": "p/m", "tokens": 100, "request_id": "r1"}
    first = await ask(client, "acquire", **body)
    again = body | {"attempt": 2, "max_wait": 3, "worker": "w2", "priority": 1}
    assert await ask(client, "acquire", **again) == first


async def test_a_denied_request_id_may_try_again(client: httpx.AsyncClient):
    """A refusal is not remembered: the same id is granted once there is room."""
    hog = await ask(client, "acquire", resource="p/m", tokens=1000)
    body = {"resource": "p/m", "tokens": 100, "request_id": "r1"}
    await refused(client, "acquire", 429, "rate_limited", **body)
    await ask(client, "settle", lease=hog["lease"], usage={"input_tokens": 1})
    await ask(client, "acquire", **body)


async def test_a_replay_after_the_settle_says_so(client: httpx.AsyncClient):
    """The original grant comes back with `settled`, and charges nothing."""
    body = {"resource": "p/m", "tokens": 100, "request_id": "r1"}
    first = await ask(client, "acquire", **body)
    await ask(client, "settle", lease=first["lease"], usage={"input_tokens": 10})
    assert await ask(client, "acquire", **body) == first | {"settled": True}
    assert await left(client) == 990


async def test_a_replay_after_the_lease_expired_is_the_original(serve: Any):
    """Within `remember` an expired request id still charges nothing new."""
    client = await serve(TINY.format(remember="60s"))
    body = {"resource": "p/m", "tokens": 100, "request_id": "r1"}
    first = await ask(client, "acquire", **body)
    await until(lambda: _free(client), "the lease does not expire")
    await refused(client, "renew", 410, "lease_expired", lease=first["lease"])
    assert await ask(client, "acquire", **body) == first
    assert await left(client) == 900


async def _free(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/v1/resources/p/m")).json()["in_flight"] == 0)


async def test_a_request_id_is_forgotten_after_remember(serve: Any):
    """Memory is bounded: later, the same id is a new request."""
    client = await serve(TINY.format(remember="100ms"))
    body = {"resource": "p/m", "tokens": 100, "request_id": "r1", "ttl": 30}
    first = await ask(client, "acquire", **body)
    await ask(client, "settle", lease=first["lease"])

    async def new() -> bool:
        return (await ask(client, "acquire", **body))["lease"] != first["lease"]

    await until(new, "the request id is never forgotten")
    assert await left(client) == 800


async def test_twenty_equal_requests_at_once_are_one(serve: Any):
    """However they race, through two replicas: one charge, twenty equal answers."""
    replicas = [await serve(), await serve()]
    body = {"resource": "p/m", "tokens": 30, "request_id": "r1"}
    answers = await asyncio.gather(*(ask(replicas[i % 2], "acquire", **body) for i in TWENTY))
    assert all(answer == answers[0] for answer in answers)
    levels = await view(replicas[0])
    assert [levels[name]["remaining"] for name in ("m.budget", "m.calls", "m.slots")] == [
        970,
        99,
        9,
    ]


async def test_replicas_share_one_budget(serve: Any):
    """What one grants, the other cannot grant again, to the token."""
    replicas = [await serve(), await serve()]
    bodies = [{"resource": "p/m", "tokens": 170, "request_id": uuid.uuid4().hex} for _ in TWENTY]
    answers = await asyncio.gather(
        *(replicas[i % 2].post("/v1/acquire", json=body) for i, body in enumerate(bodies))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 15
    assert await left(replicas[0]) == await left(replicas[1]) == 150


async def test_tenants_meet_their_own_limits(serve: Any):
    """A tenant's limit binds that tenant only; the wildcard is one limit per tenant."""
    client = await serve("""
pools:
  p:
    models: {m: {}}
    tenants:
      "*": {limits: [{name: own, meter: tokens, limit: 10, per: 366d}]}
      big: {limits: [{name: own, meter: tokens, limit: 100, per: 366d}]}
""")
    for tenant, amount in (("a", 10), ("b", 10), ("big", 100)):
        await ask(client, "acquire", resource="p/m", tokens=amount, tenant=tenant)
        found = await refused(
            client, "acquire", 429, "rate_limited", resource="p/m", tokens=1, tenant=tenant
        )
        assert found["limit"] == f"{tenant}.own"


async def test_names_with_colons_and_slashes_stay_apart(serve: Any):
    """No pair of tenant and model shares its state with another pair."""
    client = await serve("""
pools:
  p:
    models: {"*": {}}
    tenants:
      "*": {models: {"*": {limits: [{name: own, meter: tokens, limit: 10, per: 366d}]}}}
""")
    for tenant, model in (("a", "b:c"), ("a:b", "c"), ("1:a", "b"), ("a", "b/c"), ("a/b", "c")):
        await ask(client, "acquire", resource=f"p/{model}", tokens=10, tenant=tenant)


async def test_a_model_without_limits_is_granted(serve: Any):
    """No limit means no refusal, and still a lease that settles once."""
    client = await serve("pools: {p: {models: {m: {}}}}")
    answer = await ask(client, "acquire", resource="p/m", tokens=10**12)
    assert (answer["charged"], answer["limits"]) == ({}, [])
    settled = await ask(client, "settle", lease=answer["lease"], usage={"input_tokens": 5})
    assert settled["refunded"] == settled["debited"] == {}
    assert (await ask(client, "settle", lease=answer["lease"]))["already_settled"]


async def test_a_money_limit_needs_a_price_or_a_cost(serve: Any):
    """Without either, the request is invalid; with one, dollars are charged."""
    limit = "{limits: [{name: spend, meter: cost_usd, limit: 1, per: 366d}]}"
    client = await serve(
        f"pools: {{p: {{models: {{m: {limit}, free: {limit}}},"
        " cost_in_requests: true, prices: {m: {input: 2, output: 10}}}}"
    )
    answer = await ask(client, "acquire", resource="p/m", input_tokens=1000, max_output_tokens=100)
    assert answer["charged"] == {"cost_usd": 0.003}
    assert answer["limits"][0]["remaining"] == 0.997
    found = await refused(client, "acquire", 422, "invalid", resource="p/free", tokens=1)
    assert "free.spend" in found["detail"]
    answer = await ask(client, "acquire", resource="p/free", tokens=1, cost_usd=0.25)
    assert answer["limits"][0]["remaining"] == 0.75
