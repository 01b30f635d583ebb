"""GET /v1/stats: figures of the fleet, kept in the store within a fixed size."""

import itertools
import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from tests_support.calls import ask, problem, refused
from tests_support.scripts import CLOCK, FAKE_CLOCK, POOL, START
from tests_support.servers import Server
from tests_support.service import http_client, in_process

from limiter_service.engine import counting
from limiter_service.engine.counting import Counting, pair_name
from limiter_service.engine.figures import figures, ring_for
from limiter_service.engine.histograms import bin_of, quantiles
from limiter_service.engine.series import series
from limiter_service.store.client import Client
from limiter_service.store.count_commands import MOST_PLACES, CountCommands, Counts, News
from limiter_service.store.count_commands import Counted as Counted_
from limiter_service.store.keys import Keys
from limiter_wire import SeriesStats, Stats

CONFIG = """
pools:
  p:
    models: {"*": {limits: [{name: budget, meter: tokens, limit: 1000000, per: 366d}]}}
    prices: {"*": {input: 1, output: 2}}
"""
SECOND, HOUR = 1_000_000, 3_600_000_000
KEY = Keys(POOL).counts()


async def look(client: httpx.AsyncClient, since: str = "hour", **more: str) -> Stats:
    """The figures of the fleet."""
    answer = await client.get("/v1/stats", params={"since": since, **more})
    return msgspec.json.decode(answer.content, type=Stats)


async def call(client: httpx.AsyncClient, *, tenant: str = "default", **report: Any) -> None:
    """One call from acquire to settle."""
    lease = await ask(client, "acquire", resource="p/m", tokens=100, tenant=tenant)
    await ask(client, "settle", lease=lease["lease"], **report)


# Over HTTP


async def test_calls_of_every_replica_are_one_figure(serve: Any):
    """Whoever is asked: decisions, outcomes, tokens, times and money by resource and tenant."""
    one, other = await serve(CONFIG), await serve(CONFIG)
    usage = {"input_tokens": 30, "output_tokens": 20}
    await call(one, tenant="a", usage=usage, latency=2.0, ttft=0.25)
    await call(other, tenant="a", usage=usage, latency=4.0, outcome="timeout")
    await call(other, tenant="b", usage={"input_tokens": 400, "output_tokens": 0})
    await refused(other, "acquire", 429, "rate_limited", resource="p/m", tokens=999_999, tenant="b")
    await look(other)  # which tells the store what it has counted
    found = await look(one)
    (resource,) = found.resources
    assert (resource.resource, resource.tenant, resource.granted) == ("p/m", None, 3)
    assert resource.refused == {"rate_limited": 1}
    assert resource.outcomes == {"success": 2, "timeout": 1}
    assert (resource.settled, resource.reserved_tokens) == (3, 300)
    assert (resource.refunded_tokens, resource.debited_tokens) == (100, 300)
    assert resource.latency is not None
    assert resource.latency.count == 2
    assert resource.latency.p50 == pytest.approx(2.0, rel=0.05)
    assert resource.latency.p99 == pytest.approx(4.0, rel=0.05)
    assert resource.ttft is not None
    assert resource.ttft.p50 == pytest.approx(0.25, rel=0.05)
    assert {each.tenant: (each.granted, each.refused) for each in found.tenants} == {
        "a": (2, {}),
        "b": (1, {"rate_limited": 1}),
    }
    assert [(each.tenant, each.cost_usd) for each in found.costs] == [("b", 4e-4), ("a", 1.4e-4)]
    assert 3600 <= found.since <= 3900


@pytest.mark.parametrize(
    ("since", "least", "most"),
    [
        ("minute", 60, 65),
        ("90", 90, 600),
        ("30s", 30, 35),
        ("1h", 3600, 3900),
        ("2d", 86_400, 90_000),
    ],
)
async def test_figures_reach_as_far_back_as_is_asked(
    serve: Any, since: str, least: float, most: float
):
    """At least, by less than the width of a slot; a day at most."""
    client = await serve(CONFIG)
    assert least <= (await look(client, since)).since <= most


@pytest.mark.parametrize("since", ["", "-1", "later", "1w", "nan", "1e3", "5 m"])
async def test_a_time_that_is_none_is_refused(serve: Any, since: str):
    """422, which names the parameter."""
    client = await serve(CONFIG)
    answer = await client.get("/v1/stats", params={"since": since})
    assert "since" in problem(answer, 422, "invalid")["detail"]


async def test_without_a_store_the_replicas_own_figures_are_told(tmp_path: Path):
    """And that the others are missing."""
    config = tmp_path / "pools.yaml"
    config.write_text(CONFIG)
    async with (
        in_process(f"unix://{tmp_path}/nobody", config, allow_anonymous=True) as app,
        http_client(app) as client,
    ):
        await refused(client, "acquire", 503, "store_unavailable", resource="p/m", tokens=1)
        found = await look(client)
    assert found.degraded
    assert found.resources == []


async def test_names_that_are_not_configured_are_not_counted(serve: Any):
    """Callers could make up any."""
    client = await serve(CONFIG)
    await refused(client, "acquire", 404, "unknown_resource", resource="q/m", tokens=1)
    assert (await look(client)).resources == []


@pytest.mark.parametrize(
    ("since", "step", "count"),
    [("minute", 5.0, 13), ("20s", 5.0, 5), ("hour", 300.0, 13), ("day", 3600.0, 25)],
)
async def test_a_series_has_the_figures_step_by_step(
    serve: Any, since: str, step: float, count: int
):
    """By resource, as many steps as the time has, and together what the figures say."""
    client = await serve(CONFIG)
    await call(client, usage={"input_tokens": 30, "output_tokens": 20}, latency=2.0)
    await call(client, tenant="b", usage={"input_tokens": 400, "output_tokens": 0})
    await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=999_999)
    found = await look(client, since, series="true")
    assert (found.step, len(found.times)) == (step, count)
    assert {b - a for a, b in itertools.pairwise(found.times)} == {step}
    assert all(begin % step == 0 for begin in found.times)
    ((resource,), (series,)) = found.resources, found.series
    assert series.resource == "p/m"
    assert {len(each) for each in columns(series).values()} == {count}
    assert sum(series.granted) == resource.granted == 2
    assert sum(series.refused) == 1
    assert sum(series.settled) == resource.settled == 2
    assert (sum(series.input_tokens), sum(series.output_tokens)) == (430, 20)
    assert sum(series.cost_usd) == pytest.approx(resource.cost_usd)
    plain = await look(client, since)
    assert (plain.step, plain.times, plain.series) == (0.0, [], [])


def columns(series: SeriesStats) -> dict[str, list[float]]:
    """What a series has in each step."""
    return {
        name: value for name, value in msgspec.to_builtins(series).items() if name != "resource"
    }


# What the store keeps


class Counted:
    """The counts of a pool, by a clock that the test moves."""

    def __init__(self, server: Server, db: redis.Redis) -> None:
        self._db = db
        self.client = Client(server.url, connect_timeout=20, command_timeout=20)
        self.commands = CountCommands(self.client, {"lib/clock": FAKE_CLOCK})
        self._tag = 0
        self.at(0)

    def at(self, after: float) -> None:
        """Set the clock to so many microseconds after START."""
        self._db.set(CLOCK, int(START + after), ex=3600)

    async def tell(self, *news: News, tag: int | None = None) -> None:
        """One report."""
        self._tag += 1
        await self.commands.count(KEY, self._tag if tag is None else tag, news)

    async def read(self, seconds: float = 3600) -> Counts:
        """Everything of the last *seconds*."""
        return await self.commands.counts(KEY, 1.0, *ring_for(seconds))

    async def sums(self, seconds: float = 3600, level: int = 2) -> dict[str, float]:
        """How much was counted, by name."""
        found = await self.read(seconds)
        return {e.name: sum(e.sums.values()) for e in found.places if e.level == level}


@pytest.fixture
async def counted(server: Server, db: redis.Redis) -> Any:
    """Empty counts."""
    counted = Counted(server, db)
    yield counted
    await counted.client.aclose()


def news(level: int, name: str, much: float = 1, claim: float | None = None) -> News:
    """So many grants of somebody."""
    return level, name, much if claim is None else claim, [counting.GRANTED, much]


async def test_a_report_that_comes_twice_counts_once(counted: Counted):
    """An answer may be lost on the way, and the report is sent again."""
    for _ in range(2):
        await counted.tell(news(2, "m", 5), tag=77)
    assert await counted.sums() == {"m": 5}


async def test_slots_end(counted: Counted):
    """What is older than a window is not in it, and comes back in no other turn of the ring."""
    await counted.tell(news(2, "m", 1))
    counted.at(65 * SECOND)  # the same place in the ring
    await counted.tell(news(2, "m", 10))
    assert await counted.sums(60) == {"m": 10}
    assert await counted.sums(3600) == {"m": 11}
    counted.at(2 * HOUR)
    await counted.tell(news(2, "m", 100))
    assert await counted.sums(60) == {"m": 100}
    assert await counted.sums(3600) == {"m": 100}
    assert await counted.sums(86_400) == {"m": 111}
    counted.at(26 * HOUR)
    assert await counted.sums(86_400) == {"m": 100}


async def test_figures_are_those_of_every_window(counted: Counted):
    """A random history against sums over its events: never less than the window, never more
    than a slot beyond it.
    """
    chance, events, now = random.Random(4), [], 0.0
    for _ in range(60):
        now += chance.choice([0.5, 3, 40, 700, 5000]) * SECOND * chance.random()
        counted.at(now)
        much = chance.randint(1, 9)
        events.append((now, much))
        await counted.tell(news(2, "m", much))
        for seconds, width in ((60, 5), (3600, 300), (86_400, 3600)):
            inside = sum(m for at, m in events if now - at < seconds * SECOND)
            around = sum(m for at, m in events if now - at < (seconds + width) * SECOND)
            found = (await counted.sums(seconds)).get("m", 0)
            assert inside <= found <= around


async def test_steps_are_those_in_which_it_happened(counted: Counted):
    """A random history, with models that have lost their places: each step has what happened in
    it, and all of them together what the figures say.
    """
    chance, events, now = random.Random(5), [], 0.0
    models = [f"m{i}" for i in range(MOST_PLACES[1] + 9)]
    for _ in range(240):
        now += chance.choice([0.5, 3, 40, 700]) * SECOND * chance.random()
        counted.at(now)
        model, much = chance.choice(models), chance.randint(1, 9)
        events.append((START + now, much))
        await counted.tell(news(1, "", much), news(2, model, much))
    for seconds in (60, 3600, 86_400):
        ring, slots = ring_for(seconds)
        found = await counted.commands.counts(KEY, 1.0, ring, slots, apart=True)
        times, steps = series([("p", found)])
        assert len(times) == slots
        expected = [
            sum(m for at, m in events if begin <= at / SECOND < begin + found.width)
            for begin in times
        ]
        granted = [sum(each.granted[i] for each in steps) for i in range(slots)]
        assert granted == expected
        whole = {each.resource: each.granted for each in figures("p", found).resources}
        assert {each.resource: sum(each.granted) for each in steps} == whole


def test_pools_that_were_read_at_the_turn_of_a_step_are_one_series():
    """The newest step of one is the last but one of the other."""

    def counts(newest: int) -> Counts:
        steps = {number: {counting.GRANTED: float(number)} for number in range(newest - 1, newest)}
        place = Counted_(level=1, name="", sums={counting.GRANTED: newest - 1.0}, steps=steps)
        return Counts(reach=9, places=[place], width=5.0, slots=3, newest=newest)

    times, found = series([("p", counts(10)), ("q", counts(11))])
    assert times == [45.0, 50.0, 55.0]
    assert [(each.resource, each.granted) for each in found] == [
        ("p/*", [9, 0, 0]),
        ("q/*", [0, 10, 0]),
    ]
    assert series([]) == ([], [])


async def test_made_up_names_take_no_more_places_than_there_are(counted: Counted, db: redis.Redis):
    """Ten thousand tenants: the store's size stays, and the sums of the pool are whole."""
    sizes = []
    for turn in range(50):
        many = [news(3, pair_name("m", f"t{turn}.{i}")) for i in range(200)]
        await counted.tell(news(1, "", 200), news(2, "m", 200), *many)
        sizes.append(db.memory_usage(KEY, samples=0))  # of all fields, not of some
    found = await counted.read()
    assert sum(each.level == 3 for each in found.places) == MOST_PLACES[2]
    assert max(sizes[2:]) < 1.05 * sizes[2]
    told = figures("p", found)
    assert sum(each.granted for each in told.tenants) == told.resources[0].granted == 10_000
    assert db.ttl(KEY) > 24 * 3600


async def test_who_is_heavy_gets_a_place_and_who_is_light_loses_one(counted: Counted):
    """The crowd came first; the sum of all stays what it is."""
    crowd = [news(3, pair_name("m", f"t{i}"), 2) for i in range(MOST_PLACES[2])]
    await counted.tell(*crowd, news(2, "m", 2 * len(crowd)))
    await counted.tell(news(3, pair_name("m", "light"), 3), news(2, "m", 3))
    await counted.tell(news(3, pair_name("m", "heavy"), 9), news(2, "m", 9))
    names = {each.name.partition("\0")[2] for each in (await counted.read()).places}
    assert "heavy" in names
    assert "light" not in names
    told = figures("p", await counted.read())
    rest = {each.tenant: each.granted for each in told.tenants}["*"]
    assert rest == 3 + 2  # the light one, and whoever lost the place
    counted.at(5 * HOUR)  # the crowd has not called since
    await counted.tell(news(3, pair_name("m", "light"), 3))
    assert "light" in {e.name.partition("\0")[2] for e in (await counted.read()).places}


async def test_a_place_that_changes_hands_forgets_whom_it_had(counted: Counted):
    """In all rings."""
    for i in range(MOST_PLACES[1]):
        await counted.tell(news(2, f"m{i}", 5))
    await counted.tell(news(2, "new", 11))
    for seconds in (60, 3600, 86_400):
        assert (await counted.sums(seconds))["new"] == 11


async def test_what_a_store_did_not_hear_is_told_later(server: Server, db: redis.Redis):
    """Once, though the first answer was lost."""
    lost, told = [True], []

    class Lossy(Client):
        async def run(self, script: Any, keys: Any, arguments: Any) -> Any:
            from limiter_service.store.errors import StoreUnavailable  # noqa: PLC0415

            answer = await super().run(script, keys, arguments)
            told.append(arguments[0])
            if lost:
                lost.clear()
                raise StoreUnavailable("the answer was lost")
            return answer

    client = Lossy(server.url, connect_timeout=20, command_timeout=20)
    commands = CountCommands(client)
    ours = Counting(commands, "sg:")
    ours.at("p/m", "t")[counting.GRANTED] += 3
    assert not await ours.flush()
    ours.at("p/m", "t")[counting.GRANTED] += 4
    assert await ours.flush()
    found = await commands.counts(KEY, 1.0, *ring_for(60))
    assert {each.level: each.sums for each in found.places} == {
        level: {counting.GRANTED: 7} for level in (1, 2, 3)
    }
    assert told[0] == told[1]
    found = await commands.counts(KEY, 1.0, *ring_for(3600))
    assert {each.level: each.sums for each in found.places} == {
        level: {counting.GRANTED: 7} for level in (1, 2, 3)
    }
    await ours.aclose()
    await client.aclose()


# Pure


@given(st.lists(st.floats(0.001, 3600), min_size=1, max_size=300))
def test_quantiles_are_right_to_five_percent(values: list[float]):
    """Against those of the values in order."""
    bins: dict[int, float] = defaultdict(float)
    for value in values:
        bins[bin_of(value)] += 1
    found = quantiles(bins)
    assert found is not None
    ordered = sorted(values)
    for share in (50, 90, 95, 99):
        exact = ordered[math.ceil(share / 100 * len(ordered)) - 1]
        assert getattr(found, f"p{share}") == pytest.approx(exact, rel=0.05)
    assert max(values) * 0.999 <= found.max <= max(values) * 1.1


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.001])
def test_what_is_shorter_than_a_millisecond_shares_a_bin(value: float):
    """The first."""
    assert bin_of(value) == 0
