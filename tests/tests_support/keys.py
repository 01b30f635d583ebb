"""API keys for tests: made over HTTP, or put into the store as no service would make them."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx

from limiter_service.engine import credentials, ids
from limiter_service.store.access_commands import AccessCommands, KeyRecord
from limiter_service.store.client import Client
from limiter_service.store.keys import DEFAULT_PREFIX
from tests_support.waiting import until

ADMIN = "sg_0ad0_" + "a" * 43
"""The key that services of tests are given."""


class Fleet(NamedTuple):
    """Where two replicas listen, and where their store is."""

    urls: tuple[str, str]
    store: str


def bearer(key: str) -> dict[str, str]:
    """The headers of a caller with a key."""
    return {"authorization": f"Bearer {key}"}


def make(url: str, name: str, *roles: str, **more: object) -> str:
    """A key that a service has made."""
    body = {"name": name, "roles": roles, **more}
    answer = httpx.post(f"{url}/v1/keys", json=body, headers=bearer(ADMIN), timeout=20)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["key"])


async def only_slot(client: httpx.AsyncClient, url: str) -> str:
    """The lease on `p/one`, as soon as those of other tests who are gone have lost their places."""
    said: list[Any] = []

    async def granted() -> bool:
        body = {"resource": "p/one", "tokens": 1}
        answer = await client.post(f"{url}/v1/acquire", json=body, headers=bearer(ADMIN))
        said.append(answer.json())
        return answer.status_code == 200

    await until(granted, "the slot stays taken")
    return str(said[-1]["lease"])


def id_of(key: str) -> str:
    """The id in a key."""
    return key.split("_")[1]


def revoke(url: str, key: str) -> None:
    """Revoke a key at a service."""
    path = f"{url}/v1/keys/{id_of(key)}"
    answer = httpx.delete(path, headers=bearer(ADMIN), timeout=20)
    assert answer.status_code == 200, answer.text


def put(
    store: str,
    *roles: str,
    pools: Sequence[str] | None = None,
    tenants: Sequence[str] | None = None,
    expires: float | None = None,
) -> str:
    """A key that is in the store, whether a service would have made it or not."""
    shown = credentials.draw()
    proof = credentials.prove(shown.secret)
    record = KeyRecord(
        id=shown.id,
        name="put",
        roles=list(roles),
        pools=None if pools is None else list(pools),
        tenants=None if tenants is None else list(tenants),
        salt=proof.salt,
        digest=proof.digest,
        created=0.0,
        created_by="a test",
        expires=expires,
    )

    async def write() -> bool:
        client = Client(store, connect_timeout=20, command_timeout=20)
        try:
            commands = AccessCommands(client, DEFAULT_PREFIX)
            return await commands.put(record, "a test", "", ids.new_nonce())
        finally:
            await client.aclose()

    assert asyncio.run(write())
    return shown.text
