"""The door of one replica, in process."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs
from tests_support.calls import EXACT
from tests_support.keys import ADMIN, bearer
from tests_support.servers import Server, valkey_binary
from tests_support.service import http_client, in_process
from tests_support.waiting import until

from limiter_service.door import is_loopback
from limiter_service.engine.turnstile import Why

TAKE = {"resource": "p/m", "tokens": 1}


@pytest.fixture
def store(tmp_path: Path) -> Server:
    """A server that a test may kill."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    return Server(binary, tmp_path)


@pytest.fixture
async def client(
    store: Server, write_config: Callable[[str], Path], request: pytest.FixtureRequest
) -> AsyncIterator[httpx.AsyncClient]:
    """A replica over it, with the settings that the test asks for."""
    settings = getattr(request, "param", {"admin_key": ADMIN})
    with store:
        async with (
            in_process(store.url, write_config(EXACT), **settings) as app,
            http_client(app) as client,
        ):
            yield client


async def made(client: httpx.AsyncClient, *roles: str, **more: object) -> dict[str, str]:
    """The headers of a caller with a new key."""
    body = {"name": "made", "roles": roles, **more}
    answer = await client.post("/v1/keys", json=body, headers=bearer(ADMIN))
    return bearer(answer.json()["key"])


async def test_a_caller_without_a_key_is_told_how_to_send_one(client: httpx.AsyncClient):
    """As RFC 6750 has it, and with a problem."""
    for path in ("/v1/acquire", "/v1/batch"):
        answer = await client.post(path, json=TAKE)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="sluicegate"'
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "unauthenticated"
        assert "Authorization: Bearer" in answer.json()["detail"]


async def test_the_body_of_a_stranger_is_not_read(client: httpx.AsyncClient):
    """Who it is decides before how much it sends, and in what."""
    huge = await client.post("/v1/acquire", content=b"x" * 10_000_000)
    odd = await client.post("/v1/settle", content=b"x", headers={"content-type": "image/png"})
    slow = await client.put("/v1/log-level", content=b"x" * 10_000_000)
    assert (huge.status_code, odd.status_code, slow.status_code) == (401, 401, 401)


async def test_many_failures_of_an_address_are_refused_for_a_while(client: httpx.AsyncClient):
    """With the time after which to try again; whoever has a key there passes."""
    reader = await made(client, "read")
    codes = [(await client.get("/v1/stats")).status_code for _ in range(25)]
    assert codes[:20] == [401] * 20
    assert codes[-1] == 429
    refused = await client.get("/v1/stats", headers=bearer("sg_ffff_" + "k" * 43))
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_failures"
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert (await client.get("/v1/stats", headers=reader)).status_code == 200
    assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("client", [{"admin_key": ADMIN}], indirect=True)
async def test_strangers_cannot_fill_the_log(client: httpx.AsyncClient):
    """A line for each failure would be a way to fill a disk."""
    with capture_logs() as lines:
        for i in range(60):
            await client.get("/v1/stats", headers=bearer(f"sg_{i:04}_" + "k" * 43))
    told = [line for line in lines if line["event"] == "a caller without a valid key"]
    assert 1 <= len(told) <= 35  # twenty at once, then one in three seconds
    assert not any("kkkk" in str(line) for line in lines)


async def test_known_keys_are_served_while_the_store_is_away(
    client: httpx.AsyncClient, store: Server
):
    """And unknown ones neither let in nor called wrong: nobody knows."""
    reader = await made(client, "read")
    store.kill()
    assert (await client.get("/v1/stats", headers=reader)).status_code == 200
    assert (await client.get("/v1/stats", headers=bearer(ADMIN))).status_code == 200
    other = await client.get("/v1/stats", headers=bearer("sg_ffff_" + "k" * 43))
    assert (other.status_code, other.json()["code"]) == (503, "store_unavailable")
    assert other.headers["retry-after"] == "1"
    wrong = reader["authorization"][:-1] + "%"
    assert (await client.get("/v1/stats", headers={"authorization": wrong})).status_code == 401
    assert (await client.get("/v1/stats")).status_code == 401


@pytest.mark.parametrize("client", [{"admin_key": ADMIN, "key_grace": 0.7}], indirect=True)
async def test_known_keys_are_not_served_for_ever(client: httpx.AsyncClient, store: Server):
    """After `key_grace` a key of the store may have been revoked long ago; a given one was not."""
    reader = await made(client, "read")
    store.kill()

    async def refused() -> bool:
        return (await client.get("/v1/stats", headers=reader)).status_code == 503

    await until(refused, "it is served on")
    assert (await client.get("/v1/stats", headers=bearer(ADMIN))).status_code == 200
    store.start()

    async def served() -> bool:
        # The store comes back empty: the key is unknown, and that is known again.
        return (await client.get("/v1/stats", headers=reader)).status_code == 401

    await until(served, "the store is not heard again")


@pytest.mark.parametrize("client", [{}], indirect=True)
async def test_on_loopback_everybody_has_every_role_until_there_is_a_key(
    client: httpx.AsyncClient,
):
    """The first key closes the door, and it stays closed when that key is gone."""
    assert (await client.post("/v1/acquire", json=TAKE)).status_code == 200
    assert (await client.get("/v1/stats", headers=bearer("whatever"))).status_code == 200
    body = {"name": "first", "roles": ["admin"]}
    key = (await client.post("/v1/keys", json=body)).json()
    assert key["created_by"] == "anonymous"
    assert (await client.post("/v1/acquire", json=TAKE)).status_code == 401
    admin = bearer(key["key"])
    assert (await client.delete(f"/v1/keys/{key['id']}", headers=admin)).status_code == 200
    assert (await client.post("/v1/acquire", json=TAKE)).status_code == 401


@pytest.mark.parametrize("client", [{"allow_anonymous": True}], indirect=True)
async def test_who_allows_anonymous_callers_serves_them_beside_keys(client: httpx.AsyncClient):
    """So that a fleet can change over; a key still means what it says."""
    body = {"name": "reader", "roles": ["read"]}
    reader = bearer((await client.post("/v1/keys", json=body)).json()["key"])
    assert (await client.post("/v1/acquire", json=TAKE)).status_code == 200
    assert (await client.post("/v1/acquire", json=TAKE, headers=reader)).status_code == 403
    wrong = await client.post("/v1/acquire", json=TAKE, headers=bearer("sesame"))
    assert wrong.status_code == 401


@pytest.mark.parametrize("client", [{}, {"allow_anonymous": True}], indirect=True)
async def test_pages_of_other_sites_cannot_use_an_open_service(client: httpx.AsyncClient):
    """A browser would let them: the request comes from the operator's own machine."""
    path = "/v1/breakers/p/m/reset"
    foreign = await client.post(path, headers={"origin": "http://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "forbidden")
    assert (await client.get("/v1/stats", headers={"origin": "null"})).status_code == 403
    own = {"origin": "http://localhost:8080", "host": "localhost:8080"}
    assert (await client.post(path, headers=own)).status_code == 200


@pytest.mark.parametrize("client", [{}], indirect=True)
async def test_a_name_that_was_made_to_lead_here_is_foreign(client: httpx.AsyncClient):
    """DNS rebinding: the page's own name resolves to this host."""
    rebound = {"origin": "http://evil.example:8080", "host": "evil.example:8080"}
    answer = await client.post("/v1/breakers/p/m/reset", headers=rebound)
    assert answer.status_code == 403


async def test_a_page_with_a_key_may_come_from_anywhere(client: httpx.AsyncClient):
    """Browsers add no key by themselves, so nobody is tricked into sending one."""
    headers = bearer(ADMIN) | {"origin": "https://tools.example"}
    assert (await client.get("/v1/stats", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("client", "status"),
    [({"admin_key": ADMIN}, 401), ({"admin_key": ADMIN, "metrics_open": True}, 200)],
    indirect=["client"],
)
async def test_metrics_are_open_where_settings_say_so(client: httpx.AsyncClient, status: int):
    """Scrapers without keys are common; everything else stays closed."""
    assert (await client.get("/metrics")).status_code == status
    assert (await client.get("/v1/stats")).status_code == 401


async def test_who_is_turned_away_is_counted_by_the_reason(
    client: httpx.AsyncClient, store: Server
):
    """Each caller once, also of an operation in a batch; what is served is not counted."""
    reader, mine = await made(client, "read"), await made(client, "acquire", tenants=["own"])
    made_once = await made(client, "read")
    gone = made_once["authorization"].split("_")[1]
    await client.delete(f"/v1/keys/{gone}", headers=bearer(ADMIN))
    brief = await made(client, "read", ttl=0.001)
    right = reader["authorization"].split()[1]
    wrong = bearer(right[:-1] + ("A" if right[-1] != "A" else "B"))
    strange = bearer(ADMIN) | {"origin": "http://evil.example", "host": "here.example"}
    foreign = {"ops": [{"op": "acquire", "tenant": "other", **TAKE}]}
    before = await counts(client)
    assert set(before.values()) == {0}
    asked: list[tuple[str, dict[str, str], int]] = [
        ("no_key", {}, 401),
        ("not_a_key", bearer("sesame"), 401),
        ("invalid", wrong, 401),
        ("invalid", bearer("sg_ffff_" + "k" * 43), 401),
        ("expired", brief, 401),
        ("revoked", made_once, 401),
        ("role", mine, 403),
    ]
    for _, headers, status in asked:
        assert (await client.get("/v1/stats", headers=headers)).status_code == status
    assert (await client.get("/v1/stats", headers=strange)).status_code == 200
    answer = await client.post("/v1/batch", json=foreign, headers=mine)
    assert answer.json()["results"][0]["status"] == 403
    store.kill()
    unknown = await client.get("/v1/stats", headers=bearer("sg_eeee_" + "k" * 43))
    assert unknown.status_code == 503
    expected = Counter([reason for reason, *_ in asked] + ["bounds", "unheard"])
    assert await counts(client) == dict.fromkeys(map(str, Why), 0) | expected


@pytest.mark.parametrize("client", [{}], indirect=True)
async def test_foreign_pages_are_counted(client: httpx.AsyncClient):
    """Where no key is needed; they are refused by what their browser says."""
    answer = await client.get("/v1/stats", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert (await counts(client))["foreign_page"] == 1


async def counts(client: httpx.AsyncClient) -> dict[str, int]:
    """What the metric says by now."""
    text = (await client.get("/metrics", headers=bearer(ADMIN))).text
    found = re.findall(
        r'^sluicegate_callers_refused_total{reason="(\w+)"} (\d+)', text, re.MULTILINE
    )
    return {reason: int(count) for reason, count in found}


async def test_answers_are_guarded(client: httpx.AsyncClient):
    """No answer may be sniffed, framed, scripted, or kept by a cache."""
    for path in ("/livez", "/v1/stats", "/v1/keys", "/nowhere", "/openapi.json"):
        headers = (await client.get(path, headers=bearer(ADMIN))).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert policy == "default-src 'none'; frame-ancestors 'none'"
        assert "strict-transport-security" not in headers
        assert "server" not in headers
    hot = (await client.post("/v1/acquire", json=TAKE, headers=bearer(ADMIN))).headers
    assert (hot["x-content-type-options"], hot["cache-control"]) == ("nosniff", "no-store")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_this_host(host: str):
    """Only its own programs reach it."""
    assert is_loopback(host)
    assert not is_loopback("10.0.0.1")
