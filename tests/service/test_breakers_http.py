"""/v1/breakers: circuits as operators see and hold them."""

from typing import Any

import httpx
import pytest
import redis
from dirty_equals import IsFloat, IsPartialDict
from tests_support.calls import problem
from tests_support.leavings import left_in

CONFIG = """
pools:
  p:
    models: {m: {}, "deep/model": {}, "star-*": {}}
    breaker: {window: 30s, min_calls: 4, open: 2s, throttle_rate: 0.9}
  q:
    models: {m: {}}
"""
PATH = "/v1/breakers/p/m"


@pytest.fixture
async def service(serve: Any) -> httpx.AsyncClient:
    """The service with two pools."""
    client: httpx.AsyncClient = await serve(CONFIG)
    return client


async def hold(client: httpx.AsyncClient, path: str = PATH, **order: object) -> dict[str, Any]:
    """Hold a circuit; its view afterwards."""
    answer = await client.put(f"{path}/override", json={"mode": "open", "ttl": 60} | order)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def test_a_circuit_that_nobody_has_touched_is_closed(service: httpx.AsyncClient):
    """Its view has every figure that operators steer by."""
    view = (await service.get(PATH)).json()
    assert view == IsPartialDict(
        resource="p/m",
        state="closed",
        effective="closed",
        generation=1,
        since=None,
        retry_after=None,
        reason=None,
        window={
            "seconds": 30,
            "ok": 0,
            "fail": 0,
            "slow": 0,
            "throttle": 0,
            "failing_workers": 0,
            "workers": 0,
        },
        rates={
            "min_calls": 4,
            "failure": {"rate": 0, "threshold": 0.5},
            "slow": {"rate": 0, "threshold": 0.8},
            "throttle": {"rate": 0, "threshold": 0.9},
        },
        probes={"limit": 1, "needed": 2, "held": 0, "expires": None, "ok": 0, "lost": 0},
        open_count=0,
        next_open_duration=2,
        override=None,
        last_errors=[],
    )


async def test_the_list_has_what_is_configured_and_a_verdict_for_each_pool(
    service: httpx.AsyncClient,
):
    """Patterns are no circuits."""
    found = (await service.get("/v1/breakers")).json()
    assert [each["resource"] for each in found["breakers"]] == ["p/deep/model", "p/m", "q/m"]
    assert [(each["pool"], each["verdict"]) for each in found["providers"]] == [
        ("p", "up"),
        ("q", "up"),
    ]


async def test_the_list_can_be_of_one_pool_and_of_one_state(service: httpx.AsyncClient):
    """A circuit that is held open counts as open."""
    await hold(service)
    asked = {"provider": "p", "state": "open"}
    found = (await service.get("/v1/breakers", params=asked)).json()
    assert [each["resource"] for each in found["breakers"]] == ["p/m"]
    found = (await service.get("/v1/breakers", params={"state": "half_open"})).json()
    assert found["breakers"] == []
    problem(await service.get("/v1/breakers", params={"state": "broken"}), 422, "invalid")


async def test_an_override_says_who_holds_the_circuit_and_until_when(service: httpx.AsyncClient):
    """The state is its own, the effect is the override's."""
    view = await hold(service, mode="open", ttl=60, reason="provider maintenance")
    assert (view["state"], view["effective"], view["reason"]) == ("closed", "open", "forced_open")
    assert view["retry_after"] == IsFloat(ge=50, le=60)
    assert view["override"] == {
        "mode": "open",
        "until": IsFloat(gt=1.7e9),
        "actor": "anonymous",
        "reason": "provider maintenance",
    }
    view = await hold(service, mode="observe", ttl=60)
    assert (view["effective"], view["reason"]) == ("closed", None)


async def test_an_override_without_an_end_stays_until_it_is_cleared(
    service: httpx.AsyncClient, db: redis.Redis
):
    """`ttl: null` is the one thing in the store that does not expire, and clearing ends that."""
    view = await hold(service, mode="closed", ttl=None, reason="we know better")
    assert view["override"]["until"] is None
    kept = [key for key in db.scan_iter() if db.ttl(key) == -1]
    assert sorted(kept) == [b"sg:{p}:b:model:m", b"sg:{p}:n:m"]
    answer = await service.delete(f"{PATH}/override")
    assert answer.json()["override"] is None


async def test_an_override_needs_a_ttl(service: httpx.AsyncClient):
    """Nobody holds a circuit for ever by leaving something out."""
    answer = await service.put(f"{PATH}/override", json={"mode": "open"})
    assert "ttl" in problem(answer, 422, "invalid")["detail"]


@pytest.mark.parametrize(
    "order",
    [
        {"mode": "ajar", "ttl": 5},
        {"mode": "open", "ttl": 0},
        {"mode": "open", "ttl": -3},
        {"mode": "open", "ttl": 5, "reason": "x" * 501},
        {"mode": "open", "ttl": 5, "expected_generation": -1},
    ],
)
async def test_a_bad_order_is_refused(service: httpx.AsyncClient, order: dict[str, Any]):
    """With the field that is wrong, and nothing is held."""
    problem(await service.put(f"{PATH}/override", json=order), 422, "invalid")
    assert (await service.get(PATH)).json()["override"] is None


async def test_what_is_no_json_is_malformed(service: httpx.AsyncClient):
    """As on every route."""
    problem(await service.put(f"{PATH}/override", content=b"{"), 400, "malformed")


async def test_an_order_for_another_generation_is_a_conflict(service: httpx.AsyncClient):
    """Two operators do not overwrite each other unseen."""
    seen = (await service.get(PATH)).json()["generation"]
    first = await hold(service, expected_generation=seen, reason="first")
    assert first["generation"] == seen + 1
    late = {"mode": "closed", "ttl": 60, "expected_generation": seen}
    answer = await service.put(f"{PATH}/override", json=late)
    assert "look at the circuit again" in problem(answer, 409, "generation_conflict")["detail"]
    view = (await service.get(PATH)).json()
    assert (view["override"]["reason"], view["generation"]) == ("first", seen + 1)
    asked = {"expected_generation": seen}
    answer = await service.request("DELETE", f"{PATH}/override", params=asked)
    problem(answer, 409, "generation_conflict")
    problem(await service.post(f"{PATH}/reset", params=asked), 409, "generation_conflict")


async def test_a_reset_lets_go_and_begins_anew(service: httpx.AsyncClient):
    """Override gone, a new generation."""
    held = await hold(service)
    view = (await service.post(f"{PATH}/reset")).json()
    assert (view["override"], view["state"]) == (None, "closed")
    assert view["generation"] > held["generation"]


async def test_an_override_holds_for_every_replica(serve: Any):
    """It lives in the store."""
    one, other = await serve(CONFIG), await serve(CONFIG)
    await hold(one, reason="everywhere")
    assert (await other.get(PATH)).json()["override"]["reason"] == "everywhere"


async def test_a_model_with_slashes_has_a_circuit(service: httpx.AsyncClient):
    """What is last is the verb, the rest is the model."""
    path = "/v1/breakers/p/deep/model"
    view = await hold(service, path)
    assert (view["resource"], view["effective"]) == ("p/deep/model", "open")
    assert (await service.get("/v1/breakers/p/deep%2Fmodel")).json()["effective"] == "open"
    assert (await service.post(f"{path}/reset")).json()["effective"] == "closed"


async def test_what_is_not_configured_has_no_circuit(service: httpx.AsyncClient):
    """The answer says what there is."""
    problem(await service.get("/v1/breakers/nowhere/m"), 404, "unknown_resource")
    problem(await service.post("/v1/breakers/q/other/reset"), 404, "unknown_resource")
    answer = await service.put("/v1/breakers/q/other/override", json={"mode": "open", "ttl": 1})
    problem(answer, 404, "unknown_resource")


async def test_looking_changes_nothing(service: httpx.AsyncClient, db: redis.Redis):
    """No key is left behind."""
    await service.get("/v1/breakers")
    await service.get(PATH)
    assert left_in(db) == set()
