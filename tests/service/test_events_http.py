"""GET /v1/events: what happens in the fleet, each thing once, resumable."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests_support.calls import problem
from tests_support.servers import Server
from tests_support.service import ServiceProcess

CONFIG = """
pools:
  p: {models: {m: {}}}
  q: {models: {m: {}}}
"""
ORDER = {"mode": "open", "ttl": 60, "reason": "drill"}


@pytest.fixture
def replicas(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Two services over one store, as processes: events are streams."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", server.url)
    with (
        ServiceProcess(*arguments) as one,
        ServiceProcess(*arguments) as other,
        httpx.Client(base_url=one.url, timeout=20) as first,
        httpx.Client(base_url=other.url, timeout=20) as second,
    ):
        yield first, second


def blocks(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The events of a stream, comments left out."""
    event: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
        elif event:
            yield event
            event = {}


def read(client: httpx.Client, after: str) -> list[dict[str, str]]:
    """What there is after an event."""
    answer = client.get("/v1/events?follow=false", headers={"last-event-id": after})
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [each for each in blocks(iter([*answer.text.splitlines(), ""])) if "data" in each]


def test_every_replica_tells_every_event_once_and_in_order(
    replicas: tuple[httpx.Client, httpx.Client],
):
    """Who changes the state tells it, and everybody hears of it."""
    one, other = replicas
    one.put("/v1/breakers/p/m/override", json=ORDER)
    other.put("/v1/breakers/q/m/override", json=ORDER | {"mode": "closed"})
    one.delete("/v1/breakers/p/m/override")
    for client in replicas:
        told = read(client, "0")
        data = [json.loads(each["data"]) for each in told]
        assert [each["event"] for each in told] == ["override"] * 3
        assert sorted((d["resource"], d["from"], d["to"], d["actor"]) for d in data) == [
            ("p/m", "none", "open", "anonymous"),
            ("p/m", "open", "none", "anonymous"),
            ("q/m", "none", "closed", "anonymous"),
        ]
        assert {d["reason"] for d in data} == {"drill", "cleared"}
        assert all(d["type"] == "override" and d["time"] > 1.7e9 for d in data)


def test_a_listener_hears_of_it_at_once_and_goes_on_where_it_was_cut_off(
    replicas: tuple[httpx.Client, httpx.Client],
):
    """Also at another replica, with what happened meanwhile, and nothing twice."""
    one, other = replicas
    one.put("/v1/breakers/p/m/override", json=ORDER)  # before: not told
    with one.stream("GET", "/v1/events") as stream:
        coming = blocks(stream.iter_lines())
        assert "data" not in next(coming)
        other.put("/v1/breakers/q/m/override", json=ORDER)
        heard = next(coming)
    assert json.loads(heard["data"])["resource"] == "q/m"
    one.delete("/v1/breakers/p/m/override")
    one.delete("/v1/breakers/q/m/override")
    rest = read(other, heard["id"])
    assert {json.loads(each["data"])["resource"] for each in rest} == {"p/m", "q/m"}
    assert read(one, rest[-1]["id"]) == []


def test_who_is_cut_off_before_the_first_event_misses_nothing(
    replicas: tuple[httpx.Client, httpx.Client],
):
    """The stream begins with an id that dispatches nothing."""
    one, other = replicas
    with one.stream("GET", "/v1/events") as stream:
        begun = next(blocks(stream.iter_lines()))
    other.put("/v1/breakers/p/m/override", json=ORDER)
    (told,) = read(one, begun["id"])
    assert told["event"] == "override"


def test_a_service_that_is_asked_to_stop_ends_its_streams(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
):
    """A listener does not hold up a rollout."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", server.url)
    with (
        ServiceProcess(*arguments) as running,
        httpx.Client(base_url=running.url, timeout=20) as client,
        client.stream("GET", "/v1/events") as stream,
    ):
        coming = blocks(stream.iter_lines())
        next(coming)
        assert running.process is not None
        running.process.terminate()
        assert list(coming) == []
        assert running.stop() == 0


async def test_an_id_that_is_none_of_ours_is_as_none(serve: Any):
    """A listener that was told nonsense hears what comes from now on."""
    client = await serve(CONFIG)
    await client.put("/v1/breakers/p/m/override", json=ORDER)
    for nonsense in ("p=1", "7", "p=1-0,q=2-0", ""):
        answer = await client.get("/v1/events?follow=false", headers={"last-event-id": nonsense})
        assert answer.status_code == 200
        assert "data" not in answer.text
    problem(await client.get("/v1/events?follow=maybe"), 422, "invalid")
