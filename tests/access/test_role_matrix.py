"""Every route, every kind of caller, own and others' tenants and pools, at two replicas.

The table says what each route asks for; a route without a row fails, and a row without a route.
"""

import asyncio
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
from fastapi.routing import APIRoute
from tests_support.keys import ADMIN, Fleet, bearer, make, put, revoke
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from limiter_service.app import create_app
from limiter_service.door import HOT_ROLES, routes_of
from limiter_service.pools import Pools
from limiter_service.settings import Settings

OPEN = "open"
"""Everybody may call."""
KEYED = "any key"
ALL = "what is another's is left out"
POOL = "a pool's"
OWN = "a pool's and a tenant's"
TENANT = "a tenant's"
SHARED = "of all tenants of a pool"
FLEET = "of the whole fleet"

ROUTES: dict[tuple[str, str], tuple[str, str]] = {
    ("POST", "/v1/acquire"): ("acquire", OWN),
    ("POST", "/v1/settle"): ("acquire", OWN),
    ("POST", "/v1/renew"): ("acquire", OWN),
    ("POST", "/v1/check"): ("acquire read", OWN),
    ("POST", "/v1/observe"): ("acquire", POOL),
    ("POST", "/v1/batch"): ("acquire", OWN),
    ("GET", "/v1/channel"): ("acquire", OWN),
    ("GET", "/v1/resources"): ("read", TENANT),
    ("GET", "/v1/resources/{pool}/{model:path}"): ("read", OWN),
    ("GET", "/v1/breakers"): ("read", ALL),
    ("GET", "/v1/breakers/{pool}/{model:path}"): ("read", POOL),
    ("PUT", "/v1/breakers/{pool}/{model:path}/override"): ("admin", SHARED),
    ("DELETE", "/v1/breakers/{pool}/{model:path}/override"): ("admin", SHARED),
    ("POST", "/v1/breakers/{pool}/{model:path}/reset"): ("admin", SHARED),
    ("PUT", "/v1/limits/{pool}/{model:path}/{name}/override"): ("admin", SHARED),
    ("DELETE", "/v1/limits/{pool}/{model:path}/{name}/override"): ("admin", SHARED),
    ("GET", "/v1/queue/{pool}"): ("read", POOL),
    ("GET", "/v1/stats"): ("read", ALL),
    ("GET", "/v1/events"): ("read", ALL),
    ("GET", "/v1/live"): ("read", ALL),
    ("GET", "/"): ("", OPEN),
    ("GET", "/docs"): ("", OPEN),
    ("GET", "/dashboard/{name:path}"): ("", OPEN),
    ("GET", "/v1/keys"): ("admin", FLEET),
    ("POST", "/v1/keys"): ("admin", FLEET),
    ("DELETE", "/v1/keys/{key_id}"): ("admin", FLEET),
    ("GET", "/v1/replicas"): ("read", ALL),
    ("GET", "/v1/config"): ("read", FLEET),
    ("POST", "/v1/config/validate"): ("admin", FLEET),
    ("POST", "/v1/config/reload"): ("admin", FLEET),
    ("PUT", "/v1/drain"): ("admin", FLEET),
    ("DELETE", "/v1/drain"): ("admin", FLEET),
    ("PUT", "/v1/log-level"): ("admin", FLEET),
    ("DELETE", "/v1/log-level"): ("admin", FLEET),
    ("GET", "/metrics"): ("read", FLEET),
    ("GET", "/openapi.json"): ("acquire read admin", KEYED),
    ("GET", "/livez"): ("", OPEN),
    ("GET", "/readyz"): ("", OPEN),
}
TAKE = {"resource": "p/m", "tokens": 1, "tenant": "own"}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/acquire"): TAKE,
    ("POST", "/v1/check"): TAKE,
    ("POST", "/v1/observe"): {"resource": "p/m", "headers": {}, "status": 200},
    ("POST", "/v1/batch"): {"ops": [{"op": "acquire", **TAKE}]},
    ("PUT", "/v1/breakers/{pool}/{model:path}/override"): {"mode": "observe", "ttl": 1},
    ("PUT", "/v1/limits/{pool}/{model:path}/{name}/override"): {"limit": 1e6, "ttl": 1},
    ("POST", "/v1/keys"): {"name": "made", "roles": ["read"], "ttl": 1},
    ("POST", "/v1/config/validate"): {"text": "pools: {}", "format": "yaml"},
    ("POST", "/v1/config/reload"): {"reason": "seen"},
    ("PUT", "/v1/drain"): {"replica": "nobody", "ttl": 1, "reason": "seen"},
    ("PUT", "/v1/log-level"): {"replica": "nobody", "level": "info", "ttl": 1, "reason": "seen"},
}
QUERIES = {
    "/v1/events": {"follow": "false"},
    "/v1/live": {"follow": "false"},
    "/v1/resources": {"tenant": "own"},
    "/v1/resources/{pool}/{model:path}": {"tenant": "own"},
}
ROLES = ("acquire", "read", "admin", "acquire read")
BOUNDS: dict[str, dict[str, list[str]]] = {
    "free": {},
    "own tenant": {"tenants": ["own"]},
    "other tenant": {"tenants": ["other"]},
    "own pool": {"pools": ["p"]},
    "other pool": {"pools": ["q"]},
    "own pool, other tenant": {"pools": ["p"], "tenants": ["other"]},
}


class Caller(NamedTuple):
    """A kind of caller: its key, and what it may do; without roles it is nobody."""

    name: str
    headers: dict[str, str]
    roles: frozenset[str] = frozenset()
    pools: tuple[str, ...] | None = None
    tenants: tuple[str, ...] | None = None


def served() -> set[tuple[str, str]]:
    """Every method and path of the application."""
    front = create_app(Settings(), "unix:///nowhere", Pools(None))
    found = {
        (method, route.path)
        for route in routes_of(front._inner)  # type: ignore[arg-type]  # a FastAPI application
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    sockets = {("GET", path) for path in front._sockets}
    return found | {("POST", path) for path in front._routes} | sockets


def test_every_route_has_a_row_and_every_row_a_route():
    """Whoever adds a route says who may call it, here too."""
    assert served() == set(ROUTES)
    assert {path for _, path in ROUTES} >= set(HOT_ROLES)


def callers(fleet: Fleet) -> Iterator[Caller]:
    """Everybody who might call."""
    url, store = fleet.urls[0], fleet.store
    gone = make(url, "gone", "admin")
    revoke(url, gone)
    good = make(url, "good", "admin")
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    yield Caller("nobody", {})
    yield Caller("no bearer", {"authorization": f"Basic {good}"})
    yield Caller("no key", bearer("sesame"))
    yield Caller("unknown", bearer("sg_ffff_" + "k" * 43))
    yield Caller("wrong secret", bearer(wrong))
    yield Caller("expired", bearer(put(store, "admin", expires=1.0)))
    yield Caller("revoked", bearer(gone))
    yield Caller("without roles", bearer(put(store)))._replace(roles=frozenset({"none"}))
    for roles, (name, bound) in itertools.product(ROLES, BOUNDS.items()):
        # A service makes no admin for a tenant: such a key must still open nothing that is shared.
        key = put(store, *roles.split(), **bound)
        pools, tenants = bound.get("pools"), bound.get("tenants")
        yield Caller(
            f"{roles}, {name}",
            bearer(key),
            frozenset(roles.split()),
            None if pools is None else tuple(pools),
            None if tenants is None else tuple(tenants),
        )


def expected(route: tuple[str, str], caller: Caller) -> int | None:
    """401, 403, or None: it is let in."""
    roles, reach = ROUTES[route]
    if reach == OPEN:
        return None
    if not caller.roles:
        return 401
    wanted = set(roles.split())
    if reach != KEYED and not caller.roles & (wanted | {"admin"}):
        return 403
    in_pool = caller.pools is None or "p" in caller.pools
    for_tenant = caller.tenants is None or "own" in caller.tenants
    bound = caller.pools is not None or caller.tenants is not None
    let_in = {
        KEYED: True,
        ALL: True,
        POOL: in_pool,
        TENANT: for_tenant,
        OWN: in_pool and for_tenant,
        SHARED: in_pool and caller.tenants is None,
        FLEET: not bound,
    }
    return None if let_in[reach] else 403


class Probe:
    """Asks the replicas in turn, each time from another address."""

    def __init__(self, fleet: Fleet, client: httpx.AsyncClient, lease: str, spare: str) -> None:
        self._fleet, self._client = fleet, client
        self._values = {
            "pool": "p",
            "model:path": "m",
            "name": "m.rpm",
            "name:path": "app.js",
            "key_id": spare,
        }
        self._bodies = BODIES | {
            ("POST", f"/v1/{verb}"): {"lease": lease} for verb in ("settle", "renew")
        }
        self.count = 0

    async def ask(self, route: tuple[str, str], caller: Caller) -> int:
        """The status that decides."""
        self.count += 1
        url = self._fleet.urls[self.count % 2]
        address = f"10.0.{self.count // 250}.{self.count % 250}"
        headers = {**caller.headers, "x-forwarded-for": address}
        method, path = route
        if path == "/v1/channel":
            return await self._over_channel(url, headers)
        path = re.sub(r"{([^}]+)}", lambda name: self._values[name[1]], path)
        answer = await self._client.request(
            method,
            url + path,
            headers=headers,
            json=self._bodies.get(route),
            params=QUERIES.get(route[1]),
        )
        if path == "/v1/batch" and answer.status_code == 200:
            return int(answer.json()["results"][0]["status"])
        return answer.status_code

    async def _over_channel(self, url: str, headers: dict[str, str]) -> int:
        uri = f"ws{url.removeprefix('http')}/v1/channel"
        try:
            async with connect(
                uri, additional_headers=headers, compression=None, open_timeout=60
            ) as channel:
                await channel.send(
                    httpx.Request(
                        "POST", "http://x", json={"id": 1, "op": "acquire", **TAKE}
                    ).content.decode()
                )
                return int(httpx.Response(200, content=await channel.recv()).json()["status"])
        except InvalidStatus as refused:
            return refused.response.status_code
        except ConnectionClosed:
            return 401


async def test_who_may_call_what(fleet: Fleet):
    """No caller is let in where the table keeps it out, and none is kept out elsewhere."""
    everybody = await asyncio.to_thread(lambda: list(callers(fleet)))
    spare = await asyncio.to_thread(make, fleet.urls[0], "spare", "read")
    wrong: list[str] = []
    async with httpx.AsyncClient(timeout=60) as client:
        url = f"{fleet.urls[0]}/v1/acquire"
        lease = (await client.post(url, json=TAKE, headers=bearer(ADMIN))).json()["lease"]
        probe = Probe(fleet, client, lease, spare.split("_")[1])
        for route, caller in itertools.product(ROUTES, everybody):
            status, wanted = await probe.ask(route, caller), expected(route, caller)
            if wanted != (status if status in {401, 403} else None) or status >= 500:
                wrong.append(f"{' '.join(route)} as {caller.name}: {status}, not {wanted}")
    assert not wrong, "\n".join(wrong)
    assert probe.count == len(ROUTES) * len(everybody) >= 800
