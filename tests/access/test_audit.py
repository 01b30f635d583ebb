"""Who did what, and why: in the events of the fleet and in the log. And what stands in neither."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from tests_support.keys import ADMIN, Fleet, bearer, id_of, make
from tests_support.waiting import wait_until

from limiter_service.app import create_app
from limiter_service.door import Needs, need_of, routes_of
from limiter_service.pools import Pools
from limiter_service.settings import Settings
from limiter_wire import Role

WHY = "drill-in-the-north-wing"
BREAKER, LIMIT = "/v1/breakers/{pool}/{model:path}", "/v1/limits/{pool}/{model:path}/{name}"
SOMEBODY = "{replica}"
ONE: dict[str, object] = {"replica": SOMEBODY, "ttl": 60}
# Each action of an admin in an order in which it has an effect: its route, what is sent, what
# the log calls it, and which event tells of it.
ACTIONS: list[tuple[str, str, dict[str, object] | None, str, str]] = [
    ("PUT", f"{BREAKER}/override", {"mode": "open", "ttl": 60}, "breaker.hold open", "override"),
    ("DELETE", f"{BREAKER}/override", None, "breaker.release", "override"),
    ("POST", f"{BREAKER}/reset", None, "breaker.reset", "reset"),
    ("PUT", f"{LIMIT}/override", {"limit": 9, "ttl": 60}, "limit.hold 9", "limit_override"),
    ("DELETE", f"{LIMIT}/override", None, "limit.release", "limit_override"),
    ("POST", "/v1/keys", {"name": "k", "roles": ["read"]}, "key.create", "key_created"),
    ("PUT", "/v1/drain", ONE, "drain.begin", "drain"),
    ("DELETE", "/v1/drain", None, "drain.end", "drain"),
    ("PUT", "/v1/log-level", {**ONE, "level": "info"}, "log-level.set", "log_level"),
    ("DELETE", "/v1/log-level", None, "log-level.clear", "log_level"),
    ("POST", "/v1/config/reload", {}, "config.reload", "config_reload"),
    ("DELETE", "/v1/keys/{key_id}", None, "key.revoke", "key_revoked"),
]
OF = {"/v1/drain": {"replica": SOMEBODY}, "/v1/log-level": {"replica": SOMEBODY}}
HARMLESS = {("POST", "/v1/config/validate")}
"""For admins, since it costs work, and changes nothing."""


def routes() -> list[APIRoute]:
    """Every ordinary route of the application."""
    front = create_app(Settings(), "unix:///nowhere", Pools(None))
    found = routes_of(front._inner)  # type: ignore[arg-type]  # a FastAPI application
    return [route for route in found if isinstance(route, APIRoute)]


def changes(route: APIRoute) -> bool:
    """Whether a route is for admins, and changes something."""
    need = need_of(route)
    return isinstance(need, Needs) and need.roles == (Role.ADMIN,) and route.methods != {"GET"}


def test_every_action_of_an_admin_is_tried_below():
    """Whoever adds one says how it is told."""
    found = {
        (method, route.path)
        for route in routes()
        if changes(route)
        for method in route.methods or ()
    }
    assert found - HARMLESS == {(method, path) for method, path, *_ in ACTIONS}


def events(url: str, since: str) -> list[dict[str, Any]]:
    """What has happened after an event."""
    headers = bearer(ADMIN) | {"last-event-id": since}
    answer = httpx.get(f"{url}/v1/events?follow=false", headers=headers, timeout=20)
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def newest(url: str) -> str:
    """The id of the last event."""
    answer = httpx.get(f"{url}/v1/events?follow=false", headers=bearer(ADMIN), timeout=20)
    return next(line[4:] for line in answer.text.splitlines() if line.startswith("id: "))


@pytest.fixture(scope="module")
def told(fleet: Fleet, fleet_log: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Who has done all of them, and for each action its event and its line of the log."""
    one, two = fleet.urls
    key = make(one, "operator", "admin")
    values = {"pool": "p", "model:path": "m", "name": "m.rpm", "key_id": ""}
    replicas = httpx.get(f"{one}/v1/replicas", headers=bearer(key), timeout=20).json()["replicas"]
    replica = replicas[0]["name"]

    def named(fields: dict[str, Any]) -> dict[str, Any]:
        return {k: replica if v == SOMEBODY else v for k, v in fields.items()}

    happened: dict[str, Any] = {}
    for method, route, body, action, kind in ACTIONS:
        since, path = newest(one), route
        for name, value in values.items():
            path = path.replace("{" + name + "}", value)
        answer = httpx.request(
            method,
            one + path,
            headers=bearer(key),
            json=None if body is None else named(body | {"reason": WHY}),
            params=named({"reason": WHY, **OF.get(route, {})}) if body is None else None,
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
        if action == "key.create":
            values["key_id"] = answer.json()["id"]
        (happened[action],) = [
            event
            for event in events(two, since)
            if event["type"] == kind and id_of(key) in event.get("actor", "")
        ]
    wait_until(lambda: "key.revoke" in fleet_log.read_text(), "the log is not written")
    lines = [json.loads(line) for line in fleet_log.read_text().splitlines()]
    logged = {
        line["action"]: line
        for line in lines
        if line["event"] == "admin action" and id_of(key) in line["actor"]
    }
    return f"operator ({id_of(key)})", happened, logged


@pytest.mark.parametrize("action", [action for *_, action, _ in ACTIONS])
def test_an_action_is_told_with_who_and_why(
    told: tuple[str, dict[str, Any], dict[str, Any]], action: str
):
    """By any replica to whoever listens, and in the log of the one that did it."""
    actor, happened, logged = told
    assert happened[action]["actor"] == actor
    assert happened[action]["reason"] == WHY
    assert logged[action]["actor"] == actor
    assert logged[action]["reason"] == WHY
    assert logged[action]["request_id"]
    assert logged[action]["target"].startswith(("p/m", "k (", socket.gethostname()))


def test_no_answer_and_no_log_has_a_secret(fleet: Fleet, fleet_log: Path):
    """Wherever callers put their keys: in the header, the path, the query, in names."""
    url, keys = fleet.urls[0], [make(fleet.urls[0], "spoken", "admin") for _ in range(2)]
    made, shown = keys
    secrets = [key.split("_")[2] for key in (*keys, ADMIN)]
    seen = ""
    with httpx.Client(base_url=url, timeout=20) as client:
        for route in routes():
            if "GET" in (route.methods or ()) and "{" not in route.path:
                params = {"follow": "false", "verbose": "true"}
                seen += client.get(route.path, headers=bearer(made), params=params).text
        for path in (f"/v1/keys/{shown}", f"/{shown}", f"/v1/breakers/p/{shown}/reset"):
            for headers in ({}, bearer(shown[:-1]), bearer(made)):
                client.delete(path, headers=headers)
                client.get(f"/v1/stats?key={shown}", headers=headers)
        body = {"resource": f"p/{shown}", "tokens": 1}
        client.post("/v1/acquire", json=body)
        client.post("/v1/acquire", content=shown, headers=bearer(made))
        client.put(
            "/v1/breakers/p/m/override",
            json={"mode": "observe", "ttl": 1, "reason": shown},
            headers=bearer(made),
        )
    wait_until(lambda: "breaker.hold observe" in fleet_log.read_text(), "the log is not written")
    assert not any(secret in seen for secret in secrets)
    assert not any(secret in fleet_log.read_text() for secret in secrets)
    assert "sg_" in fleet_log.read_text()  # crossed out, where there was one
