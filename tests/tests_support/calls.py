"""What tests of the service say to it, and the one configuration that most of them use."""

from typing import Any

import httpx
import msgspec

# Refills a thousandth of a token in half a minute: levels are exact while a test runs, and
# no calendar boundary can fall into it.
EXACT = """
pools:
  p:
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000, per: 366d}
          - {name: calls, meter: requests, limit: 100, per: 366d}
          - {name: slots, meter: concurrency, limit: 10}
"""
JSON, MSGPACK = "application/json", "application/msgpack"
PROBLEM = "application/problem+json"


def body_of(response: httpx.Response) -> Any:
    """The decoded body, whichever of the two formats it has."""
    if response.headers["content-type"] == MSGPACK:
        return msgspec.msgpack.decode(response.content)
    return response.json()


async def ask(client: httpx.AsyncClient, route: str, /, **fields: object) -> dict[str, Any]:
    """Post *fields* to a hot route; the answer, which must be a 200."""
    response = await client.post(f"/v1/{route}", json=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def refused(
    client: httpx.AsyncClient, route: str, status: int, code: str, /, **fields: object
) -> dict[str, Any]:
    """Post *fields* to a hot route; the problem, which must have *status* and *code*."""
    return problem(await client.post(f"/v1/{route}", json=fields), status, code)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that *response* must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    found: dict[str, Any] = response.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["title"]
    assert found["type"] == f"urn:sluicegate:problem:{code}"
    return found


async def view(
    client: httpx.AsyncClient, resource: str = "p/m", tenant: str = "default"
) -> dict[str, dict[str, Any]]:
    """Live state of every limit of a resource, by name."""
    response = await client.get(f"/v1/resources/{resource}", params={"tenant": tenant})
    assert response.status_code == 200, response.text
    return {limit["name"]: limit for limit in response.json()["limits"]}


async def left(client: httpx.AsyncClient, limit: str = "m.budget", resource: str = "p/m") -> float:
    """What remains of one limit."""
    amount: float = (await view(client, resource))[limit]["remaining"]
    return amount
