"""GET /v1/resources: live levels."""

from typing import Any

import httpx
from tests_support.calls import ask, view
from tests_support.leavings import left_in

CONFIG = """
pools:
  p:
    limits: [{name: whole, meter: tokens, limit: 5000, per: 366d}]
    models:
      m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}
      "large-*": {concurrency: 2}
    tenants:
      team: {limits: [{name: own, meter: requests, limit: 3, per: 366d}]}
  q:
    models:
      a/b: {}
"""


async def test_the_list_has_what_is_configured_and_what_was_asked_for(serve: Any):
    """Patterns are no resources; a model that met one is listed once it was used."""
    client = await serve(CONFIG)
    names = [each["resource"] for each in (await client.get("/v1/resources")).json()["resources"]]
    assert names == ["p/m", "q/a/b"]
    await ask(client, "acquire", resource="p/large-1", tokens=1)
    names = [each["resource"] for each in (await client.get("/v1/resources")).json()["resources"]]
    assert names == ["p/large-1", "p/m", "q/a/b"]


async def test_a_view_shows_the_chain_of_a_tenant(serve: Any):
    """Limits stand in the order pool, model, tenant, with their scopes."""
    client = await serve(CONFIG)
    await ask(client, "acquire", resource="p/m", tokens=10, tenant="team")
    answer = (await client.get("/v1/resources/p/m", params={"tenant": "team"})).json()
    assert (answer["resource"], answer["tenant"], answer["degraded"]) == ("p/m", "team", False)
    assert [(limit["name"], limit["scope"], limit["remaining"]) for limit in answer["limits"]] == [
        ("p.whole", "pool", 4990),
        ("m.budget", "model", 990),
        ("team.own", "tenant", 2),
    ]
    assert "team.own" not in await view(client)


async def test_in_flight_counts_live_leases_where_somebody_counts(serve: Any):
    """Without a concurrency limit there is no count."""
    client = await serve(CONFIG)
    lease = (await ask(client, "acquire", resource="p/large-1", tokens=1))["lease"]
    path = "/v1/resources/p/large-1"
    assert (await client.get(path)).json()["in_flight"] == 1
    await ask(client, "settle", lease=lease)
    assert (await client.get(path)).json()["in_flight"] == 0
    assert (await client.get("/v1/resources/p/m")).json()["in_flight"] is None


async def test_a_model_with_slashes_has_a_view(serve: Any):
    """The first segment is the pool, the rest the model, escaped or not."""
    client = await serve(CONFIG)
    for path in ("q/a/b", "q/a%2Fb"):
        answer = await client.get(f"/v1/resources/{path}")
        assert answer.json()["resource"] == "q/a/b"


async def test_a_view_changes_nothing(client: httpx.AsyncClient, db: Any):
    """Looking leaves no key behind."""
    for _ in range(3):
        await client.get("/v1/resources")
        await view(client)
    assert left_in(db) == set()
