"""What a bound caller is shown: its own, and nothing that tells of others."""

import json
from typing import Any

import httpx
import pytest
from tests_support.keys import ADMIN, Fleet, bearer, make, only_slot

REASON = "seen by whom it concerns"


def get(url: str, path: str, key: str, **more: Any) -> httpx.Response:
    """What a caller with the key is shown."""
    headers = bearer(key) | more.pop("headers", {})
    return httpx.get(url + path, headers=headers, timeout=20, **more)


def spend(url: str, resource: str, tenant: str) -> None:
    """One call, settled with its cost."""
    take = {"resource": resource, "tokens": 5, "tenant": tenant}
    lease = httpx.post(f"{url}/v1/acquire", json=take, headers=bearer(ADMIN)).json()["lease"]
    usage = {"input_tokens": 3, "output_tokens": 2}
    report = {"lease": lease, "usage": usage, "cost_usd": 0.5}
    assert httpx.post(f"{url}/v1/settle", json=report, headers=bearer(ADMIN)).status_code == 200


@pytest.fixture(scope="module")
def url(fleet: Fleet) -> str:
    """A replica that has served two tenants in two pools."""
    for resource in ("p/m", "q/m"):
        for tenant in ("own", "other"):
            spend(fleet.urls[0], resource, tenant)
    for pool in ("p", "q"):
        path = f"{fleet.urls[0]}/v1/breakers/{pool}/m/override"
        body = {"mode": "observe", "ttl": 1, "reason": REASON}
        assert httpx.put(path, json=body, headers=bearer(ADMIN)).status_code == 200
    return fleet.urls[0]


def test_costs_are_those_of_own_tenants_and_pools(url: str):
    """Whoever is bound to both sees only where they meet."""
    key = make(url, "accounts", "read", pools=["p"], tenants=["own"])
    costs = get(url, "/v1/stats", key).json()["costs"]
    assert {(each["resource"], each["tenant"]) for each in costs} == {("p/m", "own")}
    everything = get(url, "/v1/stats", ADMIN).json()["costs"]
    assert {(e["resource"], e["tenant"]) for e in everything} >= {("q/m", "own"), ("p/m", "other")}


def test_resources_are_those_of_own_pools_for_an_own_tenant(url: str):
    """Who names no tenant is shown its first."""
    key = make(url, "looker", "read", pools=["p"], tenants=["own"])
    views = get(url, "/v1/resources", key).json()["resources"]
    assert {view["resource"] for view in views} == {"p/m", "p/one"}
    assert {view["tenant"] for view in views} == {"own"}
    assert get(url, "/v1/resources/p/m", key).json()["tenant"] == "own"
    assert get(url, "/v1/resources/p/m", ADMIN).json()["tenant"] == "default"


def test_circuits_are_those_of_own_pools(url: str):
    """Circuits know no tenants."""
    key = make(url, "pager", "read", pools=["q"])
    shown = get(url, "/v1/breakers", key).json()
    assert {each["resource"] for each in shown["breakers"]} == {"q/m"}
    assert {each["pool"] for each in shown["providers"]} == {"q"}
    assert get(url, "/v1/breakers?provider=p", key).json()["breakers"] == []


def test_events_are_those_of_own_pools_and_none_of_the_fleet(url: str):
    """Not even ids of other pools' events, which say how much happens there."""
    key = make(url, "listener", "read", pools=["q"])
    told = get(url, "/v1/events?follow=false", key, headers={"last-event-id": "0"}).text
    assert REASON in told
    assert '"q/m"' in told
    assert "p/m" not in told
    assert "p=" not in told
    assert "key_created" not in told
    everything = get(url, "/v1/events?follow=false", ADMIN, headers={"last-event-id": "0"}).text
    assert '"p/m"' in everything
    assert "key_created" in everything


async def test_the_queue_shows_own_tenants_lines(url: str):
    """How many wait in all of the pool is known to every waiter anyway."""
    take = {"resource": "p/one", "tokens": 1, "max_wait": 60, "hold": 0}
    async with httpx.AsyncClient(headers=bearer(ADMIN), timeout=20) as client:
        lease = await only_slot(client, url)
        for tenant in ("own", "other"):
            answer = await client.post(f"{url}/v1/acquire", json=take | {"tenant": tenant})
            assert answer.status_code == 202
        key = make(url, "waiter", "read", tenants=["own"])
        view = (await client.get(f"{url}/v1/queue/p", headers=bearer(key))).json()
        assert {line["tenant"] for line in view["lines"]} == {"own"}
        whole = (await client.get(f"{url}/v1/queue/p")).json()
        assert {line["tenant"] for line in whole["lines"]} == {"own", "other"}
        await client.post(f"{url}/v1/settle", json={"lease": lease})


def test_the_live_picture_is_of_own_pools_and_tenants(url: str):
    """Neither levels, nor queues, nor events, nor the past tell of others."""
    for key, pools in ((make(url, "watcher", "read", pools=["q"]), {"q"}), (ADMIN, {"p", "q"})):
        text = get(url, "/v1/live?follow=false", key).text
        data = [line.removeprefix("data: ") for line in text.splitlines() if "data: " in line]
        (moment,) = [json.loads(each) for each in data if '"uptime"' in each]
        assert {each["resource"].split("/")[0] for each in moment["resources"]} == pools
        for name in ("providers", "queues"):
            assert {each["pool"] for each in moment[name]} == pools
        assert {each["resource"].split("/")[0] for each in moment["breakers"]} == pools
        assert ("p/m" in text) == ("p" in pools)
        assert ("key_created" in text) == ("p" in pools)
        assert REASON in text
    key = make(url, "tenant", "read", tenants=["own"])
    text = get(url, "/v1/live?follow=false", key).text
    assert "default." not in text
    assert "other." not in text
