"""The store is lost: each replica goes on with its share, and what it granted is charged later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests_support.adrift import Fleet, drain, engine_of, fleet, gauge, take
from tests_support.calls import ask, left, problem, refused
from tests_support.servers import Server, valkey_binary
from tests_support.service import http_client, in_process
from tests_support.waiting import until

CONFIG = """
pools:
  p:
    on_store_loss: {mode}
    models:
      m: {{limits: [{limits}]}}
"""
LIMITS = {
    "bucket": "{name: budget, meter: tokens, limit: 900, per: 366d}",
    "sliding": "{name: budget, meter: tokens, limit: 900, per: 366d, window: sliding}",
    "calendar": "{name: budget, meter: tokens, limit: 900, per: month, window: calendar}",
}
SLOTS = "{name: slots, meter: concurrency, limit: 9}"


def config(limits: str = LIMITS["bucket"], mode: str = "degrade") -> str:
    """A pools file."""
    return CONFIG.format(limits=limits, mode=mode)


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A store that writes every change to disk before it answers, to be killed at will."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    home = tmp_path_factory.mktemp("mortal")
    with Server(binary, home, "--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


Start = Callable[..., contextlib.AbstractAsyncContextManager[Fleet]]


@pytest.fixture
def start(mortal: Server, write_config: Callable[[str], Path]) -> Start:
    """Start replicas over that store."""

    def start(text: str = "", replicas: int = 1, **settings: Any) -> Any:
        return fleet(mortal, write_config, text or config(), replicas, **settings)

    return start


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers are held until all replicas have charged, however long a busy machine takes."""
    monkeypatch.setattr("limiter_service.engine.outages.PATIENCE", 60.0)


@pytest.fixture
async def alone(start: Start) -> AsyncIterator[Fleet]:
    """One replica whose store is lost; 900 tokens were left."""
    async with start() as found:
        await found.looked()
        await found.lost()
        yield found


@pytest.mark.parametrize("window", list(LIMITS))
async def test_three_replicas_grant_no_more_than_one_limit_and_the_books_balance(
    start: Start, window: str
):
    """However unevenly they have taken before, and without a word between them afterwards."""
    async with start(config(LIMITS[window]), replicas=3) as found:

        async def take_unevenly() -> None:
            for replica, amount in zip(found.replicas, (20, 40, 1), strict=True):
                await take(replica, amount)

        taken = 61 * await found.lost_unseen(take_unevenly)
        grants = [await drain(replica, 7) for replica in found.replicas]
        granted = sum(7 * len(each) for each in grants)
        assert all(grants)
        assert taken + granted <= 900
        assert taken + granted > 900 - 3 * 7
        assert all(grant["degraded"] for each in grants for grant in each)
        await asyncio.to_thread(found.store.start)
        await found.back()
        for replica in found.replicas:
            assert await left(replica) == 900 - taken - granted


@pytest.mark.usefixtures("held")
async def test_callers_who_never_pause_get_one_limit_through_loss_and_return(start: Start):
    """Whoever comes back first must not give what others have granted already.

    What one replica has taken faster than the others just before the loss may come on top: they
    have looked at the level at different moments.
    """
    async with start(replicas=3) as found:
        got = [0] * 3
        alone = [0] * 3
        stop = asyncio.Event()
        at_first = asyncio.Semaphore(200)  # else all is spent before the store is lost

        async def call(nth: int) -> None:
            body = {"resource": "p/m", "tokens": 1}
            while not stop.is_set():
                await at_first.acquire()
                answer = await found.replicas[nth].post("/v1/acquire", json=body)
                if answer.status_code == 200:
                    got[nth] += 1
                    alone[nth] += answer.json()["degraded"]

        async def reached(least: int) -> bool:
            return sum(got) >= least

        async def spent() -> bool:
            return await left(found.replicas[0]) <= 0

        await found.looked()
        tasks = [asyncio.create_task(call(nth)) for nth in range(3)]
        try:
            await until(lambda: reached(90), "nothing is granted")
            await found.lost()
            for _ in range(1_000_000):
                at_first.release()
            before = sum(got)
            taken = [all_of - here for all_of, here in zip(got, alone, strict=True)]
            await until(lambda: reached(before + 150), "nothing is granted alone")
            await asyncio.to_thread(found.store.start)
            await found.back()
            await until(spent, "the rest is not granted")
        finally:
            stop.set()
            await asyncio.gather(*tasks)
        assert 900 <= sum(got) <= 900 + 2 * (max(taken) - min(taken))
        assert await left(found.replicas[0]) == 900 - sum(got)


@pytest.mark.usefixtures("held")
async def test_who_comes_back_first_gives_nothing_before_the_others_have_charged(start: Start):
    """Callers are held meanwhile: the store does not know yet what the others have granted."""
    async with start(replicas=2) as found:
        first, second = found.replicas
        await found.looked()
        await found.lost()
        granted = [len(await drain(replica, 10)) for replica in found.replicas]
        assert granted == [45, 45]
        late = engine_of(second).outages
        watch = late._watches.pop("p")  # it does not try whether the store is back
        watch.cancel()
        await asyncio.to_thread(found.store.start)
        pool = engine_of(first).outages.pool("p")

        async def charged() -> bool:
            return bool(pool.charged == 45)

        await until(charged, "the first does not come back")
        coming = asyncio.create_task(
            first.post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
        )
        late.start()
        answer = await coming
        problem(answer, 429, "rate_limited")
        assert not answer.json().get("degraded")


async def test_slots_are_shared_in_whole_ones_and_come_back(start: Start):
    """A settle frees a slot of a lease from before, or of one that was granted alone."""
    async with start(config(f"{LIMITS['bucket']}, {SLOTS}"), replicas=2) as found:
        first, second = found.replicas
        before = await take(first, 1)
        await found.looked()
        await found.lost()
        grants = [await drain(first, 1), await drain(second, 1)]
        assert [len(each) for each in grants] == [4, 4]
        await ask(second, "settle", lease=before["lease"])
        assert len(await drain(second, 1)) == 1
        await ask(first, "settle", lease=grants[0][0]["lease"])
        assert len(await drain(first, 1)) == 1
        await asyncio.to_thread(found.store.start)
        await found.back()
        assert await left(first, "m.slots") == 0
        await refused(first, "acquire", 429, "rate_limited", resource="p/m", tokens=1)
        await ask(second, "settle", lease=grants[0][1]["lease"])
        assert await left(first, "m.slots") == 1


async def test_a_limit_that_refills_starts_with_its_share_and_refills_at_its_share(start: Start):
    """Never from a full bucket: what was spent before the loss is spent."""
    text = config("{name: budget, meter: tokens, limit: 900, per: 366d}")
    async with start(text, replicas=3) as found:
        await take(found.replicas[0], 600)
        await found.looked()
        await found.lost()
        for replica in found.replicas:
            grants = await drain(replica, 10)
            assert len(grants) == 10
            assert grants[0]["limits"][0]["remaining"] == 90


async def test_what_is_said_while_degraded_is_marked(alone: Fleet):
    """Grants, refusals, checks, settles, views; probes and metrics; and the log says why."""
    (replica,) = alone.replicas
    answer = await replica.post("/v1/acquire", json={"resource": "p/m", "tokens": 100})
    assert answer.headers["sluicegate-degraded"] == "true"
    assert answer.json()["degraded"]
    settle = await ask(replica, "settle", lease=answer.json()["lease"])
    assert settle["degraded"]
    check = await ask(replica, "check", resource="p/m", tokens=900)
    assert (check["degraded"], check["would_grant"], check["would_fit"]) == (True, False, 800)
    view = (await replica.get("/v1/resources/p/m")).json()
    assert (view["degraded"], view["limits"][0]["remaining"]) == (True, 800)
    refusal = await replica.post("/v1/acquire", json={"resource": "p/m", "tokens": 801})
    assert problem(refusal, 429, "rate_limited")["degraded"]
    assert refusal.headers["sluicegate-degraded"] == "true"
    ready = await replica.get("/readyz?verbose=true")
    assert ready.status_code == 200
    assert ready.json()["checks"]["pool p"].startswith("degrade as one of 1 for ")
    assert await gauge(replica, "sluicegate_degraded_grants_total") == 1
    assert (await replica.get("/livez")).status_code == 200


async def test_nothing_is_marked_while_the_store_answers(start: Start):
    """The mark is for those who decide alone."""
    async with start() as found:
        answer = await found.replicas[0].post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
        assert "sluicegate-degraded" not in answer.headers
        assert not answer.json()["degraded"]


async def test_a_request_that_comes_again_is_charged_once(alone: Fleet):
    """While the store is away and when it is back; with other parameters it is a conflict."""
    (replica,) = alone.replicas
    first = await take(replica, 100, request_id="once")
    assert await take(replica, 100, request_id="once") == first
    fields = {"resource": "p/m", "tokens": 99, "request_id": "once"}
    await refused(replica, "acquire", 409, "request_conflict", **fields)
    await asyncio.to_thread(alone.store.start)
    await alone.back()
    again = await take(replica, 100, request_id="once")
    assert not again["degraded"]
    assert await left(replica) == 800
    await refused(replica, "acquire", 409, "request_conflict", **fields)
    for lease in (first["lease"], again["lease"]):
        settled = await ask(replica, "settle", lease=lease, usage={"input_tokens": 40})
        assert settled["refunded"] == {"tokens": 60}
    assert settled["already_settled"]
    assert await left(replica) == 860


async def test_a_request_that_the_store_has_granted_unheard_is_charged_once(start: Start):
    """The same request, granted there and then here, is one request."""
    async with start() as found:
        (replica,) = found.replicas
        await take(replica, 100, request_id="unheard")
        await found.looked()
        await found.lost()
        here = await take(replica, 100, request_id="unheard")
        assert here["degraded"]
        await asyncio.to_thread(found.store.start)
        await found.back()
        assert await left(replica) == 800
        settled = await ask(replica, "settle", lease=here["lease"], usage={"input_tokens": 1})
        assert settled["refunded"] == {"tokens": 99}


async def test_a_lease_can_be_settled_meanwhile_and_afterwards_at_any_replica(start: Start):
    """Its id says that it was granted alone, so another replica can charge it first."""
    async with start(replicas=2) as found:
        first, second = found.replicas
        await found.looked()
        await found.lost()
        leases = [(await take(first, 100))["lease"] for _ in range(4)]
        usage = {"input_tokens": 30}
        meanwhile = await ask(first, "settle", lease=leases[0], usage=usage)
        assert meanwhile["refunded"] == {"tokens": 70}
        elsewhere = await ask(second, "settle", lease=leases[1], usage=usage)
        assert (elsewhere["settled"], elsewhere["refunded"]) == (True, {})
        await asyncio.to_thread(found.store.start)
        await found.back()
        afterwards = await ask(second, "settle", lease=leases[2], usage=usage)
        assert afterwards["refunded"] == {"tokens": 70}
        for lease in leases[:3]:
            again = await ask(second, "settle", lease=lease, usage=usage)
            assert (again["already_settled"], again["refunded"]) == (True, {"tokens": 70})
        assert await left(first) == 900 - 3 * 30 - 100


async def test_a_lease_of_a_replica_that_died_is_charged_by_whoever_settles_it(
    mortal: Server, write_config: Callable[[str], Path]
):
    """Once, whoever else meets it."""
    path = write_config(config())
    async with fleet(mortal, lambda _: path, "", 2) as found:
        first, second = found.replicas
        await found.looked()
        await found.lost()
        lease = (await take(first, 100))["lease"]
        journal = engine_of(first).outages.pool("p").journal
        journal._entries.clear()  # as a replica that has died
        await asyncio.to_thread(found.store.start)
        await found.back()
        assert await left(second) == 900
        settled = await ask(second, "settle", lease=lease, usage={"input_tokens": 30})
        assert settled["refunded"] == {"tokens": 70}
        assert await left(second) == 870
        again = await ask(first, "settle", lease=lease, usage={"input_tokens": 30})
        assert again["already_settled"]
        assert await left(second) == 870


async def test_a_lease_of_the_store_is_settled_when_it_is_back(start: Start):
    """Its report is kept: nothing stays reserved for good."""
    async with start() as found:
        (replica,) = found.replicas
        lease = (await take(replica, 100))["lease"]
        await found.lost()
        kept = await ask(replica, "settle", lease=lease, usage={"input_tokens": 1})
        assert (kept["degraded"], kept["refunded"]) == (True, {})
        await asyncio.to_thread(found.store.start)
        await found.back()
        assert await left(replica) == 899


async def test_open_grants_everything_and_charges_it(start: Start):
    """The level afterwards says how much too much it was."""
    async with start(config(mode="open")) as found:
        (replica,) = found.replicas
        await found.looked()
        await found.lost()
        for _ in range(12):
            assert (await take(replica, 100))["degraded"]
        await asyncio.to_thread(found.store.start)
        await found.back()
        assert await left(replica) == -300


async def test_closed_answers_503_and_is_not_ready(start: Start):
    """At once, with a time to come back."""
    async with start(config(mode="closed")) as found:
        (replica,) = found.replicas
        await found.lost()
        answer = await replica.post("/v1/acquire", json={"resource": "p/m", "tokens": 1})
        assert problem(answer, 503, "store_unavailable")["retry_after"] == 1.0
        assert answer.headers["retry-after"] == "1"
        problem(await replica.get("/readyz"), 503, "store_unavailable")
        await asyncio.to_thread(found.store.start)
        await found.back()
        assert (await replica.get("/readyz")).status_code == 200
        assert not (await take(replica, 1))["degraded"]


async def test_who_may_wait_is_held_in_order(start: Start):
    """Nobody passes those who wait, and the wait is said at once when it is too long."""
    limits = "{name: budget, meter: requests, limit: 20, per: 1s, burst: 1}"
    async with start(config(limits)) as found:
        (replica,) = found.replicas
        await found.looked()
        await found.lost()
        order: list[int] = []

        async def wait(number: int) -> None:
            answer = await take(replica, 1, max_wait=20)
            assert answer["degraded"]
            order.append(number)

        await asyncio.gather(*map(wait, range(6)))
        assert order == sorted(order)


async def test_who_waits_too_long_is_told_so_at_once(alone: Fleet):
    """By the level here."""
    (replica,) = alone.replicas
    await take(replica, 900)
    fields = {"resource": "p/m", "tokens": 10, "max_wait": 5}
    told = await refused(replica, "acquire", 429, "wait_too_long", **fields)
    assert told["retry_after"] > 5
    assert told["degraded"]


async def test_who_waits_in_the_queue_of_the_store_is_served_here(start: Start):
    """When it is lost: with the rest of the patience, from the share."""
    limits = "{name: budget, meter: requests, limit: 100, per: 366d, burst: 50}, " + SLOTS
    async with start(config(limits)) as found:
        (replica,) = found.replicas
        leases = [(await take(replica, 1))["lease"] for _ in range(9)]
        waiting = asyncio.create_task(take(replica, 1, max_wait=60))
        await found.looked()
        assert not waiting.done()
        await found.lost()
        await ask(replica, "settle", lease=leases[0])
        answer = await waiting
        assert answer["degraded"]


async def test_who_waits_here_goes_on_in_the_store_when_it_is_back(start: Start):
    """With the same request."""
    limits = "{name: budget, meter: tokens, limit: 900, per: 366d}, " + SLOTS
    async with start(config(limits)) as found:
        (replica,) = found.replicas
        await found.looked()
        await found.lost()
        leases = [(await take(replica, 1))["lease"] for _ in range(9)]
        waiting = asyncio.create_task(take(replica, 1, max_wait=900))
        await asyncio.to_thread(found.store.start)
        await found.back()
        await ask(replica, "settle", lease=leases[0])
        assert not (await waiting)["degraded"]


async def test_the_return_is_an_event(start: Start):
    """For everybody who listens, at whatever replica."""
    async with start() as found:
        (replica,) = found.replicas
        await found.looked()
        await found.lost()
        await take(replica, 1)
        await asyncio.to_thread(found.store.start)
        await found.back()
        told = await replica.get(
            "/v1/events", params={"follow": "false"}, headers={"last-event-id": "0"}
        )
        loss, line = [each for each in told.text.splitlines() if '"type":"degraded"' in each]
        assert '"from":"store","to":"degrade"' in loss
        assert '"from":"degrade","to":"store"' in line
        assert '"count":1' in line


async def test_a_start_without_a_store_is_no_crash(mortal: Server, write_config: Any):
    """Not ready and alive, nothing is granted without a share that was seen; then all is well."""
    mortal.kill()
    path = write_config(config())
    async with contextlib.AsyncExitStack() as stack:
        service = in_process(mortal.url, path, allow_anonymous=True)
        app = await stack.enter_async_context(service)
        replica: httpx.AsyncClient = await stack.enter_async_context(http_client(app))
        problem(await replica.get("/readyz"), 503, "store_unavailable")
        assert (await replica.get("/livez")).status_code == 200
        await Fleet(mortal, [replica]).is_lost(replica)
        told = await refused(replica, "acquire", 503, "store_unavailable", resource="p/m", tokens=1)
        assert "has never seen it" in told["detail"]
        await asyncio.to_thread(mortal.start)
        await Fleet(mortal, [replica]).back()
        assert not (await take(replica, 1))["degraded"]
        assert (await replica.get("/readyz")).status_code == 200
