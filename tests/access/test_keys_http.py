"""The life of a key, at two replicas over HTTP."""

import httpx
import pytest
import redis
from tests_support.keys import ADMIN, Fleet, bearer, id_of, make, put, revoke
from tests_support.waiting import wait_until


def status(url: str, key: str, path: str = "/v1/stats") -> int:
    """What a caller with the key is answered."""
    return httpx.get(url + path, headers=bearer(key), timeout=20).status_code


def test_a_key_opens_every_replica_at_once(fleet: Fleet):
    """One that was made a moment ago, elsewhere, is looked for."""
    for i in range(4):
        key = make(fleet.urls[i % 2], "reader", "read")
        assert status(fleet.urls[1 - i % 2], key) == 200


def test_a_revoked_key_opens_none_within_a_second(fleet: Fleet):
    """At once where it was revoked, and by the next look elsewhere."""
    one, two = fleet.urls
    key = make(one, "leaver", "read")
    assert (status(one, key), status(two, key)) == (200, 200)
    revoke(one, key)
    assert status(one, key) == 401
    wait_until(lambda: status(two, key) == 401, "the other replica serves it")
    answer = httpx.get(f"{two}/v1/stats", headers=bearer(key))
    assert answer.json()["code"] == "unauthenticated"
    assert answer.json()["detail"] == "the API key was revoked"
    revoke(two, key)  # once more changes nothing


def test_keys_are_replaced_without_a_pause(fleet: Fleet):
    """Two keys of one name live side by side while workers change over."""
    one, two = fleet.urls
    old = make(one, "worker", "acquire")
    new = make(one, "worker", "acquire")
    body = {"resource": "p/m", "tokens": 1}
    for key in (old, new):
        answer = httpx.post(f"{two}/v1/acquire", json=body, headers=bearer(key))
        assert answer.status_code == 200
    revoke(one, old)
    answer = httpx.post(f"{two}/v1/acquire", json=body, headers=bearer(new))
    assert answer.status_code == 200


def test_a_key_expires(fleet: Fleet):
    """By the store's clock, wherever it was made."""
    one, two = fleet.urls
    key = make(one, "visitor", "read", ttl=1.0)
    assert status(two, key) == 200
    wait_until(lambda: status(two, key) == 401, "it lives on")
    answer = httpx.get(f"{one}/v1/stats", headers=bearer(key))
    assert answer.json()["detail"] == "the API key has expired"


def test_keys_are_listed_without_their_secrets(fleet: Fleet):
    """Who made them, what they may do, and how they ended."""
    url = fleet.urls[0]
    key = make(url, "listed", "acquire", "read", pools=["p"], tenants=["own"], ttl=3600)
    gone = make(url, "gone", "read")
    revoke(url, gone)
    answer = httpx.get(f"{url}/v1/keys", headers=bearer(ADMIN))
    views = {view["id"]: view for view in answer.json()["keys"]}
    view = views[id_of(key)]
    assert (view["name"], view["roles"], view["state"]) == ("listed", ["acquire", "read"], "valid")
    assert (view["pools"], view["tenants"]) == (["p"], ["own"])
    assert view["created_by"] == f"given ({id_of(ADMIN)})"
    assert view["expires"] - view["created"] == pytest.approx(3600, abs=0.01)
    assert views[id_of(gone)]["state"] == "revoked"
    assert views[id_of(gone)]["revoked"] > view["created"]
    assert views[id_of(ADMIN)]["created_by"] == "settings"
    for each in (key, gone, ADMIN):
        assert each.split("_")[2] not in answer.text


def test_the_store_knows_no_secret(fleet: Fleet):
    """Nothing in it contains one, and equal roles have unequal digests."""
    secrets = [make(fleet.urls[0], "hidden", "read").split("_")[2].encode() for _ in range(3)]
    with redis.Redis(unix_socket_path=fleet.store.removeprefix("unix://")) as store:
        kept = b"".join(b"".join([*pair]) for pair in store.hgetall("sg:{*}:keyring").items())
        kept += repr(store.xrange("sg:{*}:e")).encode()
    assert b"hidden" in kept
    assert not any(secret in kept for secret in secrets)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"roles": ["read"]}, "`name`"),
        ({"name": "x"}, "`roles`"),
        ({"name": "x", "roles": []}, "roles"),
        ({"name": "x", "roles": ["root"]}, "roles"),
        ({"name": "two words", "roles": ["read"]}, "name"),
        ({"name": "x", "roles": ["read"], "ttl": 0}, "ttl"),
        ({"name": "x", "roles": ["read"], "pools": []}, "pools"),
        ({"name": "x", "roles": ["read"], "pools": ["*"]}, "pools"),
        ({"name": "x", "roles": ["admin"], "tenants": ["own"]}, "cannot be admin"),
    ],
)
def test_what_is_no_key_is_not_made(fleet: Fleet, body: dict[str, object], said: str):
    """The refusal names the field."""
    answer = httpx.post(f"{fleet.urls[0]}/v1/keys", json=body, headers=bearer(ADMIN))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert said in answer.json()["detail"]


def test_an_unknown_key_cannot_be_revoked(fleet: Fleet):
    """Nor can one that a replica was given."""
    for key_id in ("ffff", id_of(ADMIN)):
        answer = httpx.delete(f"{fleet.urls[0]}/v1/keys/{key_id}", headers=bearer(ADMIN))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_role_that_is_not_known_yet_opens_nothing(fleet: Fleet):
    """A replica of this version meets a key of a later one."""
    key = put(fleet.store, "oracle")
    assert status(fleet.urls[0], key) == 403
    assert status(fleet.urls[0], key, "/openapi.json") == 200
