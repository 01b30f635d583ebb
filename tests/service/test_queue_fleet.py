"""Several replicas over one store: they die, are told to stop, and miss messages."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.calls import ask, left, problem, view
from tests_support.queue import Callers, depth, give_back, poll, until_depth
from tests_support.servers import Server
from tests_support.service import ServiceProcess, http_client, in_process
from tests_support.waiting import until

# The replicas are what is tested; one kind of store is enough.
pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)

Start = Callable[[], "tuple[ServiceProcess, httpx.AsyncClient]"]

CONFIG = """
pools:
  p:
    models:
      m: {limits: [{name: slot, meter: concurrency, limit: 1}]}
      tokens: {limits: [{name: budget, meter: tokens, limit: 100, per: 100s}]}
"""


@pytest.fixture
async def start(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
) -> AsyncIterator[Start]:
    """Start a replica in a process of its own."""
    arguments = ["--config", str(write_config(CONFIG)), "--redis-url", server.url]
    clients: list[httpx.AsyncClient] = []
    with contextlib.ExitStack() as processes:

        def one_more() -> tuple[ServiceProcess, httpx.AsyncClient]:
            process = processes.enter_context(ServiceProcess(*arguments))
            clients.append(httpx.AsyncClient(base_url=process.url, timeout=60))
            return process, clients[-1]

        yield one_more
        for client in clients:
            await client.aclose()


@pytest.fixture
async def callers(start: Start) -> AsyncIterator[Callers]:
    """Callers that hang up when the test is over."""
    waiting = Callers()
    yield waiting
    await waiting.hang_up()


async def test_a_replica_that_is_killed_costs_others_the_grace_at_most(
    start: Start, callers: Callers, db: redis.Redis
):
    """Who comes back through another one has its place; who does not, loses it and its grant.

    In the end every lease is settled and every slot free.
    """
    (doomed, one), (_, two) = start(), start()
    lease = (await ask(two, "acquire", resource="p/m", tokens=1))["lease"]
    for name, replica in (("back", one), ("gone", one), ("behind", two)):
        await callers.stand(replica, name)
    await asyncio.to_thread(doomed.stop, signal.SIGKILL)
    await callers.hang_up("back", "gone")
    assert (await poll(two, "back"))["queue"]["position"] == 0
    callers.ask(two, "back")
    for name in ("back", "behind"):  # between them, `gone` is served or not, and never comes
        await give_back(two, lease)
        lease = (await callers.granted(name))["lease"]
    await give_back(two, lease)
    assert callers.answered == ["back", "behind"]
    assert await left(two, "m.slot") == 1

    async def nothing_left() -> bool:
        return list(db.scan_iter("sg:{p}:q*")) == []

    await until(nothing_left, "the queue is not cleared away")


async def test_a_killed_replica_does_not_leave_its_waiters_in_the_way(
    start: Start, callers: Callers
):
    """Others that do not wait themselves are refused until the grace is over, and no longer."""
    (doomed, one), (_, two) = start(), start()
    small = {"resource": "p/tokens", "tokens": 10}
    await ask(two, "acquire", resource="p/tokens", tokens=50)
    await callers.stand(one, "large", resource="p/tokens", tokens=90)
    problem(await two.post("/v1/acquire", json=small), 429, "rate_limited")
    await asyncio.to_thread(doomed.stop, signal.SIGKILL)
    await callers.hang_up("large")

    async def served() -> bool:
        return (await two.post("/v1/acquire", json=small)).status_code == 200

    await until(served, "the waiters of the dead keep others out")
    assert await depth(two) == 0


async def test_a_replica_that_stops_sends_its_callers_to_another(start: Start, callers: Callers):
    """At once, with 503 and nothing to wait for; their places are kept."""
    (stopping, one), (_, two) = start(), start()
    lease = (await ask(two, "acquire", resource="p/m", tokens=1))["lease"]
    for name, replica in (("first", one), ("second", one), ("third", two)):
        await callers.stand(replica, name)
    ended = asyncio.create_task(asyncio.to_thread(stopping.stop))
    for name in ("first", "second"):
        found = problem(await callers.answer(name), 503, "shutting_down")
        assert found["retry_after"] == 0
        assert (await poll(two, name))["queue"]["depth"] == 3
        callers.ask(two, name)
    assert await ended == 0
    for name in ("first", "second", "third"):
        await give_back(two, lease)
        lease = (await callers.granted(name))["lease"]
    assert callers.answered[2:] == ["first", "second", "third"]


@pytest.fixture
async def deaf(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two replicas whose user of the store may neither publish nor subscribe."""
    rules = ("reset", "on", ">secret", "~sg:*", "+@all", "resetchannels")
    db.execute_command("ACL", "SETUSER", "deaf", *rules)
    url, path = f"unix://deaf:secret@{server.socket}", write_config(CONFIG)
    async with contextlib.AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(in_process(url, path)) for _ in "ab"]
        yield [await stack.enter_async_context(http_client(app)) for app in apps]
    db.acl_deluser("deaf")


async def test_without_messages_callers_are_served_by_asking_again(
    deaf: list[httpx.AsyncClient],
):
    """A grant of another replica is found within a beat."""
    one, two = deaf
    callers = Callers()
    lease = (await ask(two, "acquire", resource="p/m", tokens=1))["lease"]
    for name, replica in (("first", one), ("second", two), ("third", one)):
        await callers.stand(replica, name)
    for name in ("first", "second", "third"):
        await give_back(two, lease)
        lease = (await callers.granted(name))["lease"]
    assert callers.answered == ["first", "second", "third"]


async def test_a_subscription_that_is_cut_is_made_again(
    serve: Callable[..., "asyncio.Future[httpx.AsyncClient]"], db: redis.Redis
):
    """Whatever was said meanwhile: the callers are served."""
    one, two = await serve(CONFIG), await serve(CONFIG)
    callers = Callers()
    lease = (await ask(two, "acquire", resource="p/m", tokens=1))["lease"]
    for name in ("first", "second"):
        await callers.stand(one, name)

    async def listens() -> bool:
        return b"sg:{p}:q:hints" in db.pubsub_channels()

    for name in ("first", "second"):
        await until(listens, "nobody listens")
        db.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await give_back(two, lease)
        lease = (await callers.granted(name))["lease"]


async def test_a_store_that_forgets_everything_does_not_leave_callers_waiting(
    serve: Callable[..., "asyncio.Future[httpx.AsyncClient]"], db: redis.Redis
):
    """They get new places, at whichever replica they are; nobody hangs."""
    one, two = await serve(CONFIG), await serve(CONFIG)
    callers = Callers()
    await ask(two, "acquire", resource="p/m", tokens=1)
    for name, replica in (("a", one), ("b", one), ("c", two)):
        await callers.stand(replica, name)
    db.flushall()

    async def answered(number: int) -> bool:
        return len(callers.answered) == number

    for number in (1, 2, 3):
        await until(lambda number=number: answered(number), "a caller hangs")
        grant = await callers.granted(callers.answered[-1])
        await give_back(two, grant["lease"])
    await until_depth(one, 0)
    assert (await view(one))["m.slot"]["remaining"] == 1
