"""GET /v1/live: one look a second for all who watch, bounded, and honest about a lost store."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis
from tests_support.calls import ask
from tests_support.leavings import left_in
from tests_support.servers import Server
from tests_support.service import ServiceProcess, in_process
from tests_support.waiting import until

from limiter_service.engine.broadcast import Broadcast, Message
from limiter_service.engine.figures import Figures
from limiter_service.engine.fleet_traffic import FleetTraffic
from limiter_service.engine.timeline import Step, Timeline, place_of
from limiter_wire import CallStats, ErrorCode, Event, Live, Past, Traffic

CONFIG = """
pools:
  p:
    limits: [{name: whole, meter: tokens, limit: 5000, per: 366d}]
    models:
      m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}], concurrency: 5}
      n: {}
    tenants:
      own:
        limits: [{name: calls, meter: requests, limit: 7, per: 366d}]
        models: {n: {limits: [{name: few, meter: requests, limit: 3, per: 366d}]}}
      "team-*": {limits: [{name: calls, meter: requests, limit: 2, per: 366d}]}
  q:
    models: {"*": {}}
"""


def messages(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Name and data of each message of a stream."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def look(client: httpx.AsyncClient) -> dict[str, list[Any]]:
    """What a new watcher is told, by what it is about."""
    answer = await client.get("/v1/live?follow=false")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, list[Any]] = {"past": [], "happened": [], "live": []}
    for name, data in messages(iter(answer.text.splitlines())):
        found[name].append(data)
    return found


async def test_a_look_has_everything(serve: Any):
    """Levels, tenants' own limits, circuits, queues and decisions, typed as documented."""
    client = await serve(CONFIG)
    await ask(client, "acquire", resource="p/m", tokens=100, tenant="team-a")
    await client.post("/v1/acquire", json={"resource": "p/m", "tokens": 950})
    found = await look(client)
    (live,) = found["live"]
    msgspec.convert(live, Live)
    msgspec.convert(found["past"][0], Past)
    assert (live["store"], live["omitted"]) == (None, 0)
    assert [each["resource"] for each in live["resources"]] == ["p/m", "p/n"]
    levels = {each["name"]: each["remaining"] for each in live["resources"][0]["limits"]}
    assert levels == {"p.whole": 4900, "m.budget": 900, "m.concurrency": 4}
    assert [each["resource"] for each in live["breakers"]] == ["p/m", "p/n"]
    assert [each["pool"] for each in live["providers"]] == ["p"]
    assert [(each["pool"], each["depth"]) for each in live["queues"]] == [("p", 0), ("q", 0)]
    (decided,) = live["traffic"]
    assert (decided["resource"], decided["granted"], decided["no_room"]) == ("p/m", 1, 1)
    assert 10 <= live["traffic_seconds"] <= 16
    times = found["past"][0]["times"]
    assert len(times) >= 180
    assert all(4.9 < b - a < 5.5 for a, b in itertools.pairwise(times))
    assert decided["refusals"] == [{"code": "rate_limited", "limit": "m.budget", "count": 1}]


async def test_tenants_are_told_with_limits_of_their_own(serve: Any):
    """Those that the file names, with limits on single models, and those that came by a pattern."""
    client = await serve(CONFIG)
    await ask(client, "acquire", resource="p/m", tokens=1, tenant="team-a")
    await ask(client, "acquire", resource="p/m", tokens=1, tenant="nobody")
    (live,) = (await look(client))["live"]
    found = {
        (each["pool"], each["tenant"]): {one["name"]: one["remaining"] for one in each["limits"]}
        for each in live["tenants"]
    }
    assert found == {
        ("p", "own"): {"own.calls": 7, "own.n.few": 3},
        ("p", "team-a"): {"team-a.calls": 1},
    }


async def test_what_happened_before_is_told_once_and_in_order(serve: Any):
    """Whoever begins to look hears of the last events."""
    client = await serve(CONFIG)
    path = "/v1/breakers/p/m/override"
    for mode in ("open", "closed"):
        order = {"mode": mode, "ttl": 60, "reason": "drill"}
        (await client.put(path, json=order)).raise_for_status()
    for _ in range(2):
        told = (await look(client))["happened"]
        assert [(each["type"], each["to"]) for each in told] == [
            ("override", "open"),
            ("override", "closed"),
        ]


async def test_a_look_changes_nothing(serve: Any, db: redis.Redis):
    """Watching leaves no key behind."""
    client = await serve(CONFIG)
    await look(client)
    assert left_in(db) == set()


async def test_a_lost_store_is_part_of_the_picture(
    server: Server, write_config: Callable[[str], Path], tmp_path: Path
):
    """What this replica knows by itself is told, and why the rest is not."""
    absent = f"unix://{tmp_path / 'nobody'}"
    async with (
        in_process(
            absent,
            write_config(CONFIG),
            command_timeout=0.2,
            connect_timeout=0.2,
            allow_anonymous=True,
        ) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        (live,) = (await look(client))["live"]
    assert "the store" in live["store"]
    assert (live["resources"], live["queues"]) == ([], [])


def test_a_watcher_hears_every_second_and_is_let_go_when_the_service_stops(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
):
    """Over a real connection: moments go on, events come between them, the stream ends."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", server.url)
    with (
        ServiceProcess(*arguments) as running,
        httpx.Client(base_url=running.url, timeout=20) as client,
        client.stream("GET", "/v1/live") as stream,
    ):
        told = messages(stream.iter_lines())
        assert next(told)[0] == "past"
        first = next(told)[1]
        order = {"mode": "open", "ttl": 60, "reason": "drill"}
        httpx.put(f"{running.url}/v1/breakers/p/m/override", json=order).raise_for_status()
        name, data = next(each for each in told if each[0] == "happened")
        assert (name, data["reason"]) == ("happened", "drill")
        later = next(each for each in told if each[0] == "live")[1]
        assert later["time"] > first["time"]
        assert later["breakers"][0]["override"]["reason"] == "drill"
        assert running.process is not None
        running.process.terminate()
        assert all(name == "live" for name, _ in told)
        assert running.stop() == 0


def moment(time: float, traffic: list[Traffic]) -> Live:
    """A moment in which nothing else is told."""
    return Live(
        time=time,
        uptime=0.0,
        version="0",
        store=None,
        resources=[],
        tenants=[],
        breakers=[],
        providers=[],
        queues=[],
        traffic=traffic,
        traffic_seconds=10.0,
    )


class _Fleet:
    """A look that counts how often it is made, and events that are told of."""

    def __init__(self) -> None:
        self.looks = 0
        self.events: list[Event] = []
        self.broken = False

    async def look(self) -> Live:
        self.looks += 1
        if self.broken:
            raise RuntimeError("planted")
        return moment(float(self.looks), [])

    async def before(self) -> list[Step]:
        return []

    async def after(self, cursor: dict[str, str]) -> AsyncIterator[Event]:
        cursor["p"] = f"{self.looks}-0"
        events, self.events = self.events, []
        for each in events:
            yield each


@pytest.fixture
def fleet() -> _Fleet:
    """Nothing happens in it by itself."""
    return _Fleet()


@pytest.fixture
def broadcast(fleet: _Fleet) -> Broadcast:
    """Ten looks a second are enough for tests."""
    return Broadcast(fleet.look, fleet.before, fleet, Timeline(), every=0.1)


async def moments(broadcast: Broadcast, count: int) -> list[Message]:
    """The first messages of a watcher that are not the past."""
    found: list[Message] = []
    async with contextlib.aclosing(broadcast.follow(5.0)) as told:
        async for message in told:
            if message is not None and message.about != "past":
                found.append(message)
            if len(found) == count:
                break
    return found


async def test_fifty_watchers_cost_one_look(fleet: _Fleet, broadcast: Broadcast):
    """They are handed the same bytes."""
    found = await asyncio.gather(*(moments(broadcast, 3) for _ in range(50)))
    assert fleet.looks == 3
    for nth in range(3):
        assert len({id(each[nth].data) for each in found}) == 1


async def test_nobody_looks_while_nobody_watches(fleet: _Fleet, broadcast: Broadcast):
    """The last who leaves puts out the light."""
    await moments(broadcast, 1)
    assert broadcast.idle
    await moments(broadcast, 1)
    assert fleet.looks == 2


async def test_a_slow_watcher_misses_moments_and_no_event(fleet: _Fleet, broadcast: Broadcast):
    """It is told where things stand now, not what is over."""
    following = broadcast.follow(5.0)
    about = [message async for message in _take(following, 2)]
    assert [each.about for each in about] == ["past", "live"]
    fleet.events = [Event(time=n, type="override", resource="p/m") for n in (2.0, 1.0)]
    looks = fleet.looks

    async def three_more() -> bool:
        return fleet.looks >= looks + 3

    await until(three_more, "the looks stop")
    rest = [message async for message in _take(following, 3)]
    assert [each.about for each in rest] == ["happened", "happened", "live"]
    assert [json.loads(each.data)["time"] for each in rest] == [1.0, 2.0, fleet.looks]
    await following.aclose()


async def test_a_look_that_fails_is_not_the_last(fleet: _Fleet, broadcast: Broadcast):
    """The watcher waits for the next."""
    fleet.broken = True
    watcher = asyncio.create_task(moments(broadcast, 1))

    async def failed() -> bool:
        return fleet.looks >= 2

    await until(failed, "nobody looks again")
    fleet.broken = False
    (told,) = await watcher
    assert told.about == "live"


async def _take(following: AsyncIterator[Message | None], count: int) -> AsyncIterator[Message]:
    for _ in range(count):
        message = await anext(following)
        assert message is not None
        yield message


class _Counted:
    """Counts of a fleet that grants one call a second, and refused as many before the minute."""

    async def of(self, seconds: float) -> Figures:
        """Those of whole slots, the newest of which began two seconds ago."""
        width = 5.0 if seconds <= 60 else 300.0
        reach = 2.0 + width * -(-seconds // width)
        calls = CallStats(
            resource="p/m",
            granted=round(reach),
            refused={"rate_limited": max(0, round(reach) - 62)},
            settled=0,
            outcomes={},
            expired=0,
            reserved_tokens=0,
            refunded_tokens=0,
            debited_tokens=0,
            cost_usd=0.0,
            wait=None,
            covered=None,
            latency=None,
            ttft=None,
        )
        return Figures(reach=reach, resources=[calls], tenants=[], costs=[])


async def test_the_last_minute_is_told_in_steps_and_what_was_before_as_an_average():
    """Each slot of the store is what a reach has more than the next shorter one."""
    steps = await FleetTraffic(_Counted()).steps(1000.0)  # type: ignore[arg-type]  # as History
    assert [step.time for step in steps[-3:]] == [988.0, 993.0, 998.0]
    assert all(b.time - a.time == 5.0 for a, b in itertools.pairwise(steps))
    minute, before = steps[-12:], steps[:-12]
    assert {step.counts["p/m"] for step in minute} == {(5.0, 0.0, 0.0, 0.0)}
    assert {step.counts["p/m"] for step in before} == {(5.0, 5.0, 0.0, 0.0)}
    assert len(before) == 168
    assert await FleetTraffic(_Lost()).steps(1000.0) == []  # type: ignore[arg-type]  # as History


class _Lost:
    """A history whose store is away."""

    async def of(self, seconds: float) -> None:
        """Nothing is known."""


def test_every_code_has_a_place():
    """A refusal counts as want of room, as stopped, or as failed."""
    places = {str(code): place_of(code) for code in ErrorCode}
    assert {places[each] for each in ("rate_limited", "wait_timeout", "retry_budget")} == {1}
    assert {places[each] for each in ("breaker_open", "cooldown", "latched")} == {2}
    assert {places[each] for each in ("store_unavailable", "never_fits", "internal")} == {3}
    assert place_of("granted") == 0


def test_the_past_is_bounded_and_says_what_was_in_each_step():
    """Moments within a step are one; resources that are not told of had nothing."""
    timeline = Timeline()
    timeline.fill([Step(1.0, {"p/m": (5.0, 0.0, 0.0, 0.0)}), Step(6.0, {})])
    assert timeline.past().traffic[0].granted == [5.0, 0.0]
    busy = Traffic(resource="p/m", granted=20.0, no_room=4.0, stopped=0.0, failed=0.0)
    for second in range(7, 2000):
        timeline.note(moment(float(second), [busy] if second % 10 < 5 else []))
    past = timeline.past()
    assert len(past.times) == 180
    assert all(b - a == 5.0 for a, b in itertools.pairwise(past.times))
    (line,) = past.traffic
    assert set(line.granted) == {0.0, 10.0}
    assert max(line.no_room) == 2.0
