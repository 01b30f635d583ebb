"""What a caller has under way when its key is revoked, at the other replica, or expires."""

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest
from tests_support.keys import ADMIN, Fleet, bearer, make, only_slot, revoke
from tests_support.waiting import until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from client_sdk import Limiter, LimiterOptions, NotAllowed
from limiter_service.engine import ids

TAKE = {"resource": "p/m", "tokens": 1}
PATIENCE = 30.0


def channel(url: str, key: str) -> Any:
    """A connection that is to be entered."""
    uri = f"ws{url.removeprefix('http')}/v1/channel"
    return connect(uri, additional_headers=bearer(key), compression=None, open_timeout=PATIENCE)


async def ask(talk: ClientConnection, **frame: object) -> Any:
    """The answer to a frame."""
    await talk.send(json.dumps({"id": 1, **frame}))
    return json.loads(await talk.recv())


async def post(url: str, **body: object) -> Any:
    """What an admin is answered."""
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        return (await client.post(url, json=body, headers=bearer(ADMIN))).json()


async def closing(talk: ClientConnection) -> tuple[int, str]:
    """How the service ends a connection."""
    async with asyncio.timeout(PATIENCE):
        await talk.wait_closed()
    with pytest.raises(ConnectionClosed) as ended:
        await talk.recv()
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


async def test_a_channel_ends_with_its_key(fleet: Fleet):
    """It is told why, and cannot be opened again."""
    one, two = fleet.urls
    key = make(one, "worker", "acquire")
    async with channel(two, key) as talk:
        assert (await ask(talk, op="acquire", **TAKE))["status"] == 200
        revoke(one, key)
        assert await closing(talk) == (1008, "the API key was revoked")


async def test_a_channel_ends_when_its_key_expires(fleet: Fleet):
    """Nobody has to do anything for it."""
    key = make(fleet.urls[0], "visitor", "acquire", ttl=1.0)
    async with channel(fleet.urls[1], key) as talk:
        assert await closing(talk) == (1008, "the API key has expired")


async def test_a_bound_channel_acts_for_its_own(fleet: Fleet):
    """Each frame is judged; one that is refused does not end the connection."""
    url = fleet.urls[0]
    key = make(url, "worker", "acquire", tenants=["own"])
    others = (await post(f"{url}/v1/acquire", **TAKE, tenant="other"))["lease"]
    async with channel(url, key) as talk:
        own = await ask(talk, op="acquire", **TAKE, tenant="own")
        assert own["status"] == 200
        for verb in ("acquire", "check"):
            refused = await ask(talk, op=verb, **TAKE, tenant="other")
            assert (refused["status"], refused["code"]) == (403, "forbidden")
        for verb in ("settle", "renew"):
            refused = await ask(talk, op=verb, lease=others)
            assert (refused["status"], refused["code"]) == (403, "forbidden")
        assert (await ask(talk, op="settle", lease=own["lease"]))["status"] == 200
    report = await post(f"{url}/v1/settle", lease=others)
    assert report["already_settled"] is False


async def test_a_stream_of_events_ends_with_its_key(fleet: Fleet):
    """Whoever listens hears no more."""
    one, two = fleet.urls
    key = make(one, "listener", "read")
    async with (
        httpx.AsyncClient(timeout=PATIENCE) as client,
        client.stream("GET", f"{two}/v1/events", headers=bearer(key)) as answer,
    ):
        lines = answer.aiter_lines()
        assert (await anext(lines)).startswith("retry")
        revoke(one, key)
        async with asyncio.timeout(PATIENCE):
            told = [line async for line in lines if line.startswith("event")]
    assert told in ([], ["event: key_revoked"])


async def test_who_waits_for_its_turn_is_sent_away(fleet: Fleet):
    """A held acquire is answered 401, and takes nothing when its turn would have come."""
    one, two = fleet.urls
    key = make(one, "waiter", "acquire")
    take = {"resource": "p/one", "tokens": 1}
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        admin = bearer(ADMIN)
        lease = await only_slot(client, one)
        body = take | {"max_wait": 20}
        held = client.post(f"{two}/v1/acquire", json=body, headers=bearer(key))
        waiting = asyncio.create_task(held)

        async def waits() -> bool:
            return bool((await client.get(f"{one}/v1/queue/p", headers=admin)).json()["depth"])

        await until(waits, "nobody waits")
        revoke(one, key)
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        await client.post(f"{one}/v1/settle", json={"lease": lease}, headers=admin)

        async def fits() -> bool:
            asked = await client.post(f"{one}/v1/check", json=take, headers=admin)
            return bool(asked.json()["would_grant"])

        await until(fits, "somebody has taken the slot")


async def test_a_lease_cannot_be_claimed_by_another_name(fleet: Fleet):
    """A lease id with the own tenant written into it leads to no lease."""
    url = fleet.urls[0]
    key = make(url, "worker", "acquire", tenants=["own"])
    others = (await post(f"{url}/v1/acquire", **TAKE, tenant="other"))["lease"]
    ref = ids.decode(others)
    assert ref is not None
    forged = ids.encode(msgspec.structs.replace(ref, tenant="own"))
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        for verb in ("settle", "renew"):
            answer = await client.post(
                f"{url}/v1/{verb}", json={"lease": forged}, headers=bearer(key)
            )
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_lease")
    assert (await post(f"{url}/v1/settle", lease=others))["already_settled"] is False


@pytest.mark.parametrize("way", ["auto", "off", "only"])
async def test_the_sdk_says_that_a_key_is_valid_no_more(
    fleet: Fleet, way: str, monkeypatch: pytest.MonkeyPatch
):
    """The key of the environment opens whatever way it takes; later NotAllowed says why not."""
    one, two = fleet.urls
    key = make(one, "worker", "acquire")
    monkeypatch.setenv("SLUICEGATE_API_KEY", key)
    options = LimiterOptions(channel=way, timeout=PATIENCE)  # type: ignore[arg-type]  # one of three
    async with Limiter(two, options=options) as limiter:
        await limiter.acquire("p/m", tokens=1)
        revoke(two, key)
        with pytest.raises(NotAllowed, match=r"revoked") as refused:
            await limiter.acquire("p/m", tokens=1)
        assert refused.value.code == "unauthenticated"
        assert not refused.value.retryable


async def test_the_sdk_says_what_a_key_does_not_allow(fleet: Fleet):
    """The role that is missing, or whom the key is bound to; a key beats the environment's."""
    url = fleet.urls[0]
    reader, bound = make(url, "reader", "read"), make(url, "bound", "acquire", tenants=["own"])
    async with Limiter(url, api_key=reader) as limiter:
        with pytest.raises(NotAllowed, match="takes the role acquire; the key has read"):
            await limiter.acquire("p/m", tokens=1)
    async with Limiter(url, api_key=bound) as limiter:
        with pytest.raises(NotAllowed, match="bound to tenant own"):
            await limiter.acquire("p/m", tokens=1)
        await limiter.acquire("p/m", tokens=1, tenant="own")
    async with Limiter(url, api_key="") as limiter:
        with pytest.raises(NotAllowed, match="send an API key"):
            await limiter.acquire("p/m", tokens=1)
