"""Waiting over HTTP: who is next, who is refused, and what becomes of a place."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.calls import ask, left, problem, refused, view
from tests_support.queue import (
    PATIENCE,
    Callers,
    depth,
    give_back,
    poll,
    queue,
    until_depth,
)
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.waiting import until

Serve = Callable[..., "asyncio.Future[httpx.AsyncClient]"]

# Room comes from settles alone: a slot has no refill.
SLOT = "limits: [{name: slot, meter: concurrency, limit: 1}]"
# Refills one token a second: nothing while a test runs, and still no hopeless wait.
BUDGET = "limits: [{name: budget, meter: tokens, limit: 100, per: 100s}]"
CONFIG = f"""
pools:
  p:
    models:
      m: {{{SLOT}}}
      other: {{{SLOT}}}
      two: {{limits: [{{name: slots, meter: concurrency, limit: 2}}]}}
      tokens: {{{BUDGET}}}
      quick: {{limits: [{{name: budget, meter: tokens, limit: 200, per: second, burst: 100}}]}}
    tenants:
      heavy: {{weight: 4}}
      narrow: {{limits: [{{name: own, meter: concurrency, limit: 1}}]}}
"""


@pytest.fixture
async def client(serve: Serve) -> httpx.AsyncClient:
    """A replica with the configuration of most tests here."""
    return await serve(CONFIG)


@pytest.fixture
async def callers(serve: Serve) -> AsyncIterator[Callers]:
    """Callers that hang up when the test is over."""
    waiting = Callers()
    yield waiting
    await waiting.hang_up()


async def hold(client: httpx.AsyncClient, resource: str = "p/m", tokens: int = 1, **more: object):
    """Take, at once; the lease."""
    grant = await ask(client, "acquire", resource=resource, tokens=tokens, **more)
    return grant["lease"]


async def serve_all(client: httpx.AsyncClient, callers: Callers, lease: str, count: int) -> None:
    """Hand the only slot on *count* times: each that has it gives it back."""
    begun = len(callers.answered)

    async def answered(number: int) -> bool:
        return len(callers.answered) == number

    for number in range(begun + 1, begun + count + 1):
        await give_back(client, lease)
        await until(lambda number=number: answered(number), "a settle wakes nobody")
        lease = (await callers.granted(callers.answered[-1]))["lease"]
    await give_back(client, lease)


# Who is next


async def test_one_line_is_served_in_the_order_of_its_coming(
    client: httpx.AsyncClient, callers: Callers
):
    """Thirty callers of one tenant and priority; each settle serves the next one at once."""
    lease = await hold(client)
    names = [f"r{i}" for i in range(30)]
    for name in names:
        await callers.stand(client, name)
    await serve_all(client, callers, lease, len(names))
    assert callers.answered == names
    assert await depth(client) == 0


async def test_service_follows_the_weights_of_tenants(client: httpx.AsyncClient, callers: Callers):
    """Of any six grants in a row that begin a round, the tenant of weight 4 has four."""
    lease = await hold(client)
    for tenant, count in (("a", 2), ("b", 2), ("heavy", 8)):
        for i in range(count):
            await callers.stand(client, f"{tenant}-{i}", tenant=tenant)
    await serve_all(client, callers, lease, 12)
    tenants = [name.split("-")[0] for name in callers.answered]
    for served in (tenants[:6], tenants[6:]):
        assert Counter(served) == {"a": 1, "b": 1, "heavy": 4}
    for tenant in ("a", "b", "heavy"):
        own = [name for name in callers.answered if name.startswith(tenant)]
        assert own == sorted(own)


async def test_urgent_comes_before_batch(client: httpx.AsyncClient, callers: Callers):
    """Though it came last, and the tenant is the same."""
    lease = await hold(client)
    for name, priority in (("batch", 9), ("normal", 5), ("urgent", 0)):
        await callers.stand(client, name, priority=priority)
    await serve_all(client, callers, lease, 3)
    assert callers.answered == ["urgent", "normal", "batch"]


async def test_nobody_barges(client: httpx.AsyncClient, callers: Callers):
    """What fits is refused while an earlier waiter needs it; other models are served."""
    lease = await hold(client, "p/tokens", 50)
    await callers.stand(client, "large", resource="p/tokens", tokens=80)
    small = {"resource": "p/tokens", "tokens": 10}
    for who in ({}, {"tenant": "other", "priority": 9}):
        found = await refused(client, "acquire", 429, "rate_limited", **small, **who)
        assert found["queue"]["depth"] == 1
        assert found["would_fit"] == 50
        assert found["retry_after"] > 0
    assert await hold(client, "p/other")
    await give_back(client, lease)
    assert (await callers.granted("large"))["charged"] == {"tokens": 80}
    await hold(client, **small)


async def test_who_comes_later_passes_only_until_it_has_had_as_much(
    client: httpx.AsyncClient, callers: Callers
):
    """Small requests that fit at once are served before a large one, up to its size."""
    await hold(client, "p/tokens", 50)
    await callers.stand(client, "large", resource="p/tokens", tokens=75)
    small = {"resource": "p/tokens", "tokens": 10, "tenant": "other"}

    async def passes() -> bool:
        answer = await client.post("/v1/acquire", json=small)
        if answer.status_code == 200:
            await give_back(client, answer.json()["lease"])
        return answer.status_code == 200

    assert [await passes() for _ in range(10)] == [True] * 7 + [False] * 3


async def test_of_two_equal_requests_the_first_is_served_first(
    client: httpx.AsyncClient, callers: Callers
):
    """Also when the other tenant asks in the moment in which the slot is free."""
    lease = await hold(client)
    await callers.stand(client, "first")
    await give_back(client, lease)
    other = {"resource": "p/m", "tokens": 1, "tenant": "other"}
    await refused(client, "acquire", 429, "rate_limited", **other)
    await callers.granted("first")


async def test_a_large_request_is_not_starved_by_small_ones(
    client: httpx.AsyncClient, callers: Callers
):
    """It is served when three tenants of its weight have had what it needs, each."""
    await hold(client, "p/quick", 100)
    served = Counter[str]()
    enough = asyncio.Event()

    async def go_on_asking(tenant: str) -> None:
        while not enough.is_set():
            small = {"resource": "p/quick", "tokens": 10, "tenant": tenant}
            await ask(client, "acquire", **small, max_wait=PATIENCE)
            served[tenant] += 1

    small_ones = [asyncio.create_task(go_on_asking(tenant)) for tenant in "abc"]

    async def all_served() -> bool:
        return len(served) == 3

    await until(all_served, "the small ones are not served")
    before = served.total()
    callers.ask(client, "large", resource="p/quick", tokens=100)
    await callers.granted("large")
    between = served.total() - before
    enough.set()
    await asyncio.gather(*small_ones)
    assert between <= 3 * 10 + 6


async def test_a_tenants_own_limit_holds_up_nobody_else(
    client: httpx.AsyncClient, callers: Callers
):
    """Its line sleeps; others pass it, and it is served when its own limit has room."""
    lease = await hold(client, "p/two", tenant="narrow")
    await callers.stand(client, "second", resource="p/two", tenant="narrow")

    async def sleeps() -> bool:
        return bool((await queue(client))["lines"][0]["blocked_by_tenant"])

    await until(sleeps, "the line does not sleep")
    other = await hold(client, "p/two")
    await give_back(client, other)
    assert callers.answered == []
    await give_back(client, lease)
    await callers.granted("second")


# Who is refused


async def test_a_hopeless_wait_is_refused_at_once(client: httpx.AsyncClient, db: redis.Redis):
    """The forecast says how long it would have been, and nothing is left in the store."""
    await hold(client, "p/tokens", 100)
    wish = {"resource": "p/tokens", "tokens": 50, "max_wait": 5}
    found = await refused(client, "acquire", 429, "wait_too_long", **wish)
    assert 25 < found["retry_after"] < 100
    assert found["queue"]["predicted_wait"] == found["retry_after"]
    assert found["queue"]["predicted_wait_p90"] >= found["retry_after"]
    assert (found["limit"], found["queue"]["depth"]) == ("tokens.budget", 0)
    assert list(db.scan_iter("sg:{p}:q*")) == []


async def test_the_need_of_those_before_counts_in_the_forecast(
    client: httpx.AsyncClient, callers: Callers
):
    """What would be in time alone is too late behind others, until they leave."""
    await hold(client, "p/tokens", 100)
    before = {"resource": "p/tokens", "tokens": 60}
    wish = {"resource": "p/tokens", "tokens": 10, "max_wait": 40}
    await callers.stand(client, "before", **before)
    await refused(client, "acquire", 429, "wait_too_long", **wish)
    await refused(client, "acquire", 429, "wait_timeout", request_id="before", **before)
    await callers.stand(client, "alone", **wish)


async def test_a_queue_that_is_full_says_so(serve: Serve, callers: Callers):
    """Who stands in it already may ask again."""
    client = await serve(CONFIG + "    queue: {max_waiters: 2}")
    await hold(client)
    await callers.stand(client, "r1")
    await poll(client, "r2")
    wish = {"resource": "p/m", "tokens": 1, "max_wait": PATIENCE}
    found = await refused(client, "acquire", 429, "queue_full", **wish)
    assert found["queue"]["depth"] == 2
    assert found["retry_after"] >= 0
    assert (await poll(client, "r2"))["queue"]["position"] == 1


async def test_who_has_waited_long_enough_is_told(client: httpx.AsyncClient, db: redis.Redis):
    """`wait_timeout`, with what is predicted now; the place is given up."""
    await hold(client)
    wish = {"resource": "p/m", "tokens": 1, "max_wait": 0.2}
    found = await refused(client, "acquire", 429, "wait_timeout", **wish)
    assert found["queue"] == {
        "depth": 0,
        "position": 0,
        "predicted_wait": found["retry_after"],
        "predicted_wait_p90": found["queue"]["predicted_wait_p90"],
    }
    assert list(db.scan_iter("sg:{p}:q*")) == []


async def test_the_pool_says_how_long_one_may_wait_at_most(serve: Serve):
    """However patient the request is."""
    client = await serve(CONFIG + "    queue: {max_wait: 200ms}")
    await hold(client)
    wish = {"resource": "p/m", "tokens": 1, "max_wait": 86_400}
    await refused(client, "acquire", 429, "wait_timeout", **wish)


async def test_max_wait_counts_from_the_first_request(client: httpx.AsyncClient):
    """Asking again with the same `max_wait` does not begin anew."""
    await hold(client)
    fields = {"resource": "p/m", "tokens": 1, "max_wait": 0.3, "hold": 0, "request_id": "r"}
    answers: list[httpx.Response] = []

    async def refused_now() -> bool:
        answers.append(await client.post("/v1/acquire", json=fields))
        return answers[-1].status_code != 202

    await until(refused_now, "a request goes on waiting")
    problem(answers[-1], 429, "wait_timeout")
    waits = [answer.json()["waited"] for answer in answers[:-1]]
    assert waits == sorted(waits)
    assert waits[-1] < 0.3


async def test_who_asks_again_too_late_is_told(client: httpx.AsyncClient):
    """Also when it was taken out meanwhile and nobody else waits; the next time it is new."""
    await hold(client)
    wish = {"resource": "p/m", "tokens": 1, "max_wait": 0.2, "request_id": "r", "hold": 0}
    await poll(client, "r", max_wait=0.2)
    await until_depth(client, 0)
    await refused(client, "acquire", 429, "wait_timeout", **wish)
    assert (await poll(client, "r", max_wait=0.2))["waited"] < 0.2


async def test_a_waiting_request_id_belongs_to_one_request(
    client: httpx.AsyncClient, callers: Callers
):
    """Other parameters are a conflict; another tenant's id is another request."""
    await hold(client)
    await callers.stand(client, "r1")
    other = {"resource": "p/m", "tokens": 2, "request_id": "r1"}
    for max_wait in (0, PATIENCE):
        await refused(client, "acquire", 409, "request_conflict", **other, max_wait=max_wait)
    assert await depth(client) == 1
    await poll(client, "r1", tenant="other")
    assert await depth(client) == 2


# How a place is kept and lost


async def test_after_the_hold_a_place_is_kept_for_any_replica(serve: Serve, callers: Callers):
    """202 says where the request stands; with the same id it stands there again."""
    one, two = await serve(CONFIG), await serve(CONFIG)
    lease = await hold(one)
    callers.ask(one, "first", hold=0.05)
    answer = await callers.answer("first")
    assert answer.status_code == 202
    waiting = answer.json()
    assert (waiting["waiting"], waiting["request_id"]) == (True, "first")
    assert waiting["waited"] > 0
    assert waiting["queue"]["predicted_wait"] == waiting["predicted_wait"]
    assert (waiting["queue"]["depth"], waiting["queue"]["position"]) == (1, 0)
    await callers.stand(one, "second")
    again = await poll(two, "first")
    assert again["queue"]["position"] == 0
    assert again["waited"] > waiting["waited"]
    callers.ask(two, "first")
    await serve_all(one, callers, lease, 2)
    assert callers.answered == ["first", "first", "second"]


async def test_the_service_bounds_the_hold(serve: Serve, callers: Callers):
    """Whatever the request wants; `hold_limit` is the operator's."""
    client = await serve(CONFIG, hold_limit=0.05)
    await hold(client)
    for name, fields in (("patient", {"hold": 1000}), ("silent", {})):
        callers.ask(client, name, **fields)
        assert (await callers.answer(name)).status_code == 202


async def test_a_batch_is_never_held(client: httpx.AsyncClient):
    """Its other operations do not wait for one that does."""
    lease = await hold(client)
    wait = {"op": "acquire", "resource": "p/m", "tokens": 1, "max_wait": PATIENCE, "hold": 1000}
    ops = [wait | {"request_id": "r1"}, {"op": "settle", "lease": lease}, {**wait, "tokens": 0}]
    results = (await ask(client, "batch", ops=ops))["results"]
    assert [result["status"] for result in results][1:] == [200, 422]
    assert results[0]["status"] in {200, 202}  # the settle may have come first

    async def fetched() -> bool:
        (result,) = (await ask(client, "batch", ops=ops[:1]))["results"]
        return bool(result["status"] == 200)

    await until(fetched, "the waiter is not served")


async def test_a_caller_that_wants_to_wait_no_more_leaves_at_once(
    client: httpx.AsyncClient, callers: Callers
):
    """`max_wait` 0 for a request that waits: it is gone, and those behind move up."""
    await hold(client)
    await callers.stand(client, "first")
    await poll(client, "second")
    assert (await poll(client, "third"))["queue"]["position"] == 2
    leaving = {"resource": "p/m", "tokens": 1, "request_id": "second"}
    await refused(client, "acquire", 429, "wait_timeout", **leaving)
    assert (await poll(client, "third"))["queue"]["position"] == 1
    assert await depth(client) == 2


async def test_who_leaves_lets_those_behind_pass(client: httpx.AsyncClient):
    """What accumulated for it is there for them: nobody has to ask for that."""
    await hold(client, "p/tokens", 50)
    large = {"resource": "p/tokens", "tokens": 80}
    await poll(client, "large", **large)
    await poll(client, "small", resource="p/tokens", tokens=30)
    assert await depth(client) == 2
    await refused(client, "acquire", 429, "wait_timeout", request_id="large", **large)
    await until_depth(client, 0)
    small = {"resource": "p/tokens", "tokens": 30, "request_id": "small"}
    assert (await ask(client, "acquire", **small))["charged"] == {"tokens": 30}


async def test_a_grant_says_how_long_it_waited(client: httpx.AsyncClient, callers: Callers):
    """So does its replay; one that did not wait says 0."""
    first = await ask(client, "acquire", resource="p/m", tokens=1)
    assert first["waited"] == 0
    callers.ask(client, "r", hold=0.1)
    waiting = (await callers.answer("r")).json()
    await give_back(client, first["lease"])
    callers.ask(client, "r")
    grant = await callers.granted("r")
    assert waiting["waited"] <= grant["waited"] < 15
    replay = {"resource": "p/m", "tokens": 1, "request_id": "r"}
    assert await ask(client, "acquire", **replay) == grant
    assert await ask(client, "acquire", **replay, max_wait=PATIENCE) == grant


# Callers that do not come back: the grace is the same for every store


one_store = pytest.mark.parametrize("server", ["valkey"], indirect=True)


@one_store
async def test_a_caller_that_hangs_up_keeps_its_place_for_a_while(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path], callers: Callers
):
    """Its connection breaks: the place is there for the same id, later for nobody.

    Those behind are served when it is gone, and it never receives budget.
    """
    arguments = ["--config", str(write_config(CONFIG)), "--redis-url", server.url]
    with ServiceProcess(*arguments) as running:
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            lease = await hold(client)
            for name in ("back", "gone", "behind"):
                await callers.stand(client, name)
            await callers.hang_up("back", "gone")
            assert (await poll(client, "back"))["queue"]["position"] == 0
            callers.ask(client, "back")
            assert callers.answered == []
            await serve_all(client, callers, lease, 2)
            assert callers.answered == ["back", "behind"]
            assert await left(client, "m.slot") == 1


@one_store
async def test_a_place_that_nobody_asks_for_ends_though_nobody_else_waits(
    client: httpx.AsyncClient,
):
    """The last caller never comes back: who does not wait is served past it."""
    await hold(client, "p/tokens", 50)
    await poll(client, "gone", resource="p/tokens", tokens=90)
    small = {"resource": "p/tokens", "tokens": 10}
    await refused(client, "acquire", 429, "rate_limited", **small)

    async def served() -> bool:
        return (await client.post("/v1/acquire", json=small)).status_code == 200

    await until(served, "a caller that is gone keeps others out")


@one_store
async def test_a_grant_that_nobody_fetches_comes_back_in_full(
    client: httpx.AsyncClient, db: redis.Redis
):
    """The caller was served and has gone: its budget returns, and the request is unknown."""
    await hold(client, "p/tokens", 30)
    lease = await hold(client, "p/tokens", 70)
    await poll(client, "gone", resource="p/tokens", tokens=60)
    await give_back(client, lease)
    await until_depth(client, 0)
    assert await left(client, "tokens.budget", "p/tokens") < 20

    async def back() -> bool:
        return await left(client, "tokens.budget", "p/tokens") >= 70

    await until(back, "the grant does not come back")

    async def forgotten() -> bool:
        return list(db.scan_iter("sg:{p}:q*")) == []

    await until(forgotten, "the queue is not cleared away")


# Reserved shares


async def test_reserved_shares_come_first_until_they_are_used(serve: Serve, callers: Callers):
    """Three of ten for the priorities 0 to 2, against a tenant of any weight."""
    shares = '    queue: {priority_shares: {"0-2": 0.3}}'
    client = await serve(CONFIG.replace("weight: 4", "weight: 1000") + shares)
    lent = [await hold(client, "p/tokens", 10) for _ in range(10)]
    fields = {"resource": "p/tokens", "tokens": 10}
    for i in range(3):
        await callers.stand(client, f"heavy-{i}", tenant="heavy", **fields)
    for i in range(5):
        await callers.stand(client, f"urgent-{i}", priority=2, **fields)

    async def answered(count: int) -> bool:
        return len(callers.answered) == count

    for number, lease in enumerate(lent[:8], 1):
        await give_back(client, lease)
        await until(lambda number=number: answered(number), "a settle wakes nobody")
    assert [name.split("-")[0] for name in callers.answered] == (
        ["urgent"] * 3 + ["heavy"] * 3 + ["urgent"] * 2
    )


# What operators see


async def test_a_queue_can_be_looked_at(client: httpx.AsyncClient, callers: Callers):
    """By tenant, priority and resource, with forecasts; the longest line first."""
    await hold(client)
    for name, fields in (
        ("r1", {"tenant": "heavy", "priority": 2}),
        ("r2", {}),
        ("r3", {}),
    ):
        await callers.stand(client, name, **fields)
    seen = await queue(client)
    assert (seen["pool"], seen["depth"]) == ("p", 3)
    assert (seen["max_waiters"], seen["max_wait"]) == (10_000, 120)
    assert [
        (line["resource"], line["tenant"], line["priority"], line["waiters"])
        for line in seen["lines"]
    ] == [("p/m", "default", 5, 2), ("p/m", "heavy", 2, 1)]
    for line in seen["lines"]:
        assert 0 <= line["oldest"] <= seen["oldest"]
        assert 0 <= line["predicted_wait"] <= line["predicted_wait_p90"]
        assert not line["blocked_by_tenant"]


async def test_an_empty_queue_has_no_lines(client: httpx.AsyncClient):
    """And a pool that is not configured has no queue."""
    assert await queue(client) == {
        "pool": "p",
        "depth": 0,
        "oldest": 0.0,
        "max_waiters": 10_000,
        "max_wait": 120.0,
        "lines": [],
    }
    problem(await client.get("/v1/queue/nobody"), 404, "unknown_resource")


async def test_waits_and_their_forecasts_are_counted(client: httpx.AsyncClient, callers: Callers):
    """/v1/stats has percentiles, /metrics histograms; a grant at once is no wait."""
    assert (await client.get("/v1/stats")).json()["waits"] == []
    lease = await hold(client)
    for name in ("r1", "r2", "r3"):
        await callers.stand(client, name)
    await serve_all(client, callers, lease, 3)
    (waits,) = (await client.get("/v1/stats")).json()["waits"]
    assert (waits["resource"], waits["count"]) == ("p/m", 3)
    assert 0 < waits["wait_p50"] <= waits["wait_p90"] <= waits["wait_max"] < 15
    assert 0 <= waits["covered"] <= 1
    assert waits["absolute_error_p50"] >= abs(waits["error_p50"]) * 0
    text = (await client.get("/metrics")).text
    assert 'sluicegate_queue_wait_seconds_count{resource="p/m"} 3.0' in text
    found = re.search(r'sluicegate_queue_wait_seconds_sum{resource="p/m"} (\S+)', text)
    assert found
    assert float(found[1]) > 0


# The pools file changes


async def test_a_place_outlives_a_change_of_the_limits(
    client: httpx.AsyncClient, callers: Callers, write_config: Callable[[str], Path]
):
    """The order stays; what is needed is counted by the new limits."""
    await hold(client)
    for name in ("r1", "r2", "r3"):
        await callers.stand(client, name)
    write_config(CONFIG.replace(f"m: {{{SLOT}}}", f"m: {{{SLOT.replace('limit: 1', 'limit: 3')}}}"))
    await callers.granted("r1")
    await callers.granted("r2")
    assert callers.answered == ["r1", "r2"]
    assert (await view(client))["m.slot"]["remaining"] == 0
    assert await depth(client) == 1


async def test_waiters_of_a_model_that_is_gone_are_told(
    client: httpx.AsyncClient, callers: Callers, write_config: Callable[[str], Path]
):
    """404 for them; those who wait for other models go on."""
    await hold(client)
    other = await hold(client, "p/other")
    await callers.stand(client, "r1")
    await callers.stand(client, "r2")
    await callers.stand(client, "r3", resource="p/other")
    write_config(CONFIG.replace(f"      m: {{{SLOT}}}\n", ""))
    for name in ("r1", "r2"):
        problem(await callers.answer(name), 404, "unknown_resource")
    assert set(callers.answered) == {"r1", "r2"}
    await give_back(client, other)
    await callers.granted("r3")
