"""The loss of the store is told at once by the replica that meets it, and its return after it."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests_support.servers import Server, valkey_binary
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until

CONFIG = """
pools:
  p: {models: {m: {rpm: 100}}}
"""
Told = Iterator[tuple[str, str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Server]:
    """A store that keeps what it was told, to be killed."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    with Server(binary, tmp_path, "--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


@pytest.fixture
def client(store: Server, write_config: Callable[[str], Path]) -> Iterator[httpx.Client]:
    """A replica that knows its share."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", store.url)
    with (
        ServiceProcess(*arguments) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
    ):
        wait_until(lambda: gauge(client, "degraded_replicas") == 1, "the replica has no share")
        yield client


def gauge(client: httpx.Client, name: str) -> float:
    """A metric of the pool."""
    text = client.get("/metrics").text
    found = re.search(rf"^sluicegate_{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else -1.0


def told(lines: Iterator[str]) -> Told:
    """Id, name and data of each message of a stream."""
    name, last = "", ""
    for line in lines:
        if line.startswith("id: "):
            last = line.removeprefix("id: ")
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield last, name, json.loads(line.removeprefix("data: "))


def happened(coming: Told) -> Any:
    """The next event of a live stream."""
    return next(data for _, name, data in coming if name == "happened")


def test_a_loss_is_told_while_it_lasts_and_nothing_twice(client: httpx.Client, store: Server):
    """On both streams: first the loss, then, with what was granted, the return."""
    with contextlib.ExitStack() as stack:
        events = told(stack.enter_context(client.stream("GET", "/v1/events")).iter_lines())
        live = told(stack.enter_context(client.stream("GET", "/v1/live")).iter_lines())
        next(live)
        store.kill()
        at_loss, kind, loss = next(events)
        assert (kind, loss["resource"], loss["from"], loss["to"]) == (
            *("degraded", "p/*"),
            *("store", "degrade"),
        )
        assert happened(live) == loss
        wait_until(lambda: gauge(client, "degraded") == 1, "it is not lost")
        take = {"resource": "p/m", "tokens": 1}
        assert client.post("/v1/acquire", json=take).json()["degraded"]
        store.start()
        _, kind, back = next(events)
        assert (kind, back["from"], back["to"], back["count"]) == (
            *("degraded", "degrade"),
            *("store", 1),
        )
        assert happened(live) == back
    again = client.get("/v1/events?follow=false", headers={"last-event-id": at_loss})
    assert [data for *_, data in told(iter(again.text.splitlines()))] == [back]
    late = client.get("/v1/live?follow=false").text
    every = [data for _, name, data in told(iter(late.splitlines())) if name == "happened"]
    assert every == [loss, back]


def test_a_listener_of_another_replica_is_not_told_again(client: httpx.Client, store: Server):
    """Its id says nothing of this one: what happened here before it came is over for it."""
    begun = client.get("/v1/events?follow=false").text
    elsewhere = re.sub(r"~\d+=", "~7=", begun.partition("id: ")[2].partition("\n")[0])
    assert "~7=" in elsewhere
    store.kill()
    wait_until(lambda: gauge(client, "degraded") == 1, "it is not lost")
    store.start()
    wait_until(lambda: gauge(client, "degraded") == 0, "it does not come back")
    answer = client.get("/v1/events?follow=false", headers={"last-event-id": elsewhere})
    kinds = [(data["from"], data["to"]) for *_, data in told(iter(answer.text.splitlines()))]
    assert kinds == [("degrade", "store")]
