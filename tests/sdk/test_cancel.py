"""A task that waits for budget is cancelled: its place and its grant are given back at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from msgspec.structs import replace
from tests_support.waiting import until

from client_sdk import Lease, Limiter, LimiterOptions

PATIENT = LimiterOptions(timeout=20.0, connect_timeout=20.0)
"""A busy machine is no failure."""


@pytest.fixture(params=["only", "off"])
async def limiter(url: str, request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    """A limiter over the channel, and one over HTTP."""
    async with Limiter(url, options=replace(PATIENT, channel=request.param)) as connected:
        yield connected


@pytest.fixture
def slot(request: pytest.FixtureRequest) -> str:
    """A resource with one slot, of which no forecast is known."""
    return f"p/slot-{request.node.originalname}-{request.node.callspec.id}"


class Watch:
    """What the service says of its queue and of a slot."""

    def __init__(self, client: httpx.AsyncClient, slot: str) -> None:
        self._client, self._slot = client, slot

    async def free(self) -> bool:
        """Whether nobody waits and the slot is free."""
        if await self.waits():
            return False
        resource = await self._client.get(f"/v1/resources/{self._slot}")
        return bool(resource.json()["in_flight"] == 0)

    async def waits(self) -> bool:
        """Whether somebody waits."""
        return bool((await self._client.get("/v1/queue/p")).json()["depth"])


@pytest.fixture
async def watch(url: str, slot: str) -> AsyncIterator[Watch]:
    """A look at the slot of the test, over one connection: a look must cost little."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        yield Watch(client, slot)


async def waiter(limiter: Limiter, slot: str, watch: Watch) -> "asyncio.Task[Lease]":
    """A task that stands in the queue."""

    async def take() -> Lease:
        return await limiter.acquire(slot, tokens=1, max_wait=60)

    task = asyncio.create_task(take())
    await until(watch.waits, "it does not wait")
    return task


async def test_a_cancelled_waiter_leaves_at_once(
    limiter: Limiter, url: str, slot: str, watch: Watch
):
    """Who is behind it need not wait for the grace of its place: it has left when its limiter has
    said what it had to say.
    """
    async with Limiter(url, options=PATIENT) as other:
        held = await other.acquire(slot, tokens=1)
        task = await waiter(limiter, slot, watch)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await limiter.aclose()
        assert not await watch.waits()
        await held.settle()
    assert await watch.free()


async def test_who_is_cancelled_before_it_asks_again_leaves(url: str):
    """The question that was not sent is not all: an earlier one has its place in line."""
    resource, paths = "p/slot-asks-again", list[str]()
    open_way = asyncio.Event()
    open_way.set()

    class Gated(httpx.AsyncHTTPTransport):
        """Notes what is asked, and holds it back while the way is not open."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            paths.append(request.url.path)
            await open_way.wait()
            return await super().handle_async_request(request)

    async with (
        Limiter(url, http_transport=Gated(), options=PATIENT) as limiter,
        Limiter(url, options=PATIENT) as other,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        watch = Watch(client, resource)
        held = await other.acquire(resource, tokens=1)
        task = await waiter(limiter, resource, watch)
        batches, checks = limiter._asking.exchange._batches, []

        async def answered() -> bool:
            return not batches._flights

        async def asks_again() -> bool:
            return any(each.waits for each in batches._waiting)

        await until(answered, "it has no answer")
        open_way.clear()
        while len(batches._flights) < 3:  # as many requests as may be under way
            checks.append(asyncio.create_task(limiter.check(resource, tokens=1)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await until(asks_again, "it does not ask again")
        task.cancel()
        await asyncio.wait({task})
        open_way.set()
        await asyncio.gather(*checks)
        await limiter.aclose()
        assert "/v1/acquire" in paths  # with no time to wait: that leaves the line
        assert not await watch.waits()
        await held.settle()


async def test_a_grant_that_meets_a_cancellation_is_given_back(
    limiter: Limiter, slot: str, watch: Watch
):
    """Whichever comes first, by a moment more or less."""
    for moments in range(12):
        held = await limiter.acquire(slot, tokens=1, max_wait=20)
        task = await waiter(limiter, slot, watch)
        settling = asyncio.create_task(held.settle())
        for _ in range(moments * moments):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).settle()
        await settling
        await until(watch.free, "a grant is kept by nobody")


async def test_a_deadline_around_a_call_is_a_deadline(limiter: Limiter, slot: str):
    """`asyncio.timeout` makes a TimeoutError of its own cancellation, and of no other class."""
    await limiter.acquire("p/m", tokens=1)  # connected
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await limiter.acquire(slot, tokens=1, max_wait=60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await limiter.check(slot, tokens=1)


async def test_who_was_cancelled_knows_why(limiter: Limiter, slot: str, watch: Watch):
    """What was said to the cancellation comes out: libraries tell their scopes by it."""
    held = await limiter.acquire(slot, tokens=1)
    task = await waiter(limiter, slot, watch)
    task.cancel("a scope")
    with pytest.raises(asyncio.CancelledError, match="a scope") as found:
        await task
    assert found.type is asyncio.CancelledError
    await held.settle()


async def test_who_leaves_does_not_overtake_its_own_question(url: str):
    """The question may still be on its way when its caller is cancelled: said before it, that the
    place is not wanted is said of nothing.
    """
    resource, paths = "p/slot-overtaken", list[str]()
    open_way = asyncio.Event()

    class Slow(httpx.AsyncHTTPTransport):
        """The first request takes longer than others."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            paths.append(request.url.path)
            if len(paths) == 1:
                await open_way.wait()
            return await super().handle_async_request(request)

    async with (
        Limiter(url, http_transport=Slow(), options=PATIENT) as limiter,
        Limiter(url, options=PATIENT) as other,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
    ):
        watch = Watch(client, resource)
        held = await other.acquire(resource, tokens=1)

        async def take() -> Lease:
            return await limiter.acquire(resource, tokens=1, max_wait=60)

        async def asked() -> bool:
            return bool(paths)

        task = asyncio.create_task(take())
        await until(asked, "nothing is asked")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await watch.waits()  # meanwhile whatever is said at once is heard
        open_way.set()
        await limiter.aclose()
        assert len(paths) == 2
        assert not await watch.waits()
        await held.settle()
