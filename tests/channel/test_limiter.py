"""The limiter over the channel: waiting, losing the connection, going another way, closing."""

import asyncio
import functools
import gc
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests_support.patient import ServiceThread
from tests_support.relay import Relay
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.waiting import until

from client_sdk import (
    Lease,
    Limiter,
    LimiterOptions,
    Progress,
    RateLimited,
    ServiceUnavailable,
    SluicegateError,
    WaitTimeout,
)
from client_sdk._socket_async import Socket

Start = Callable[..., ServiceThread]
ONLY = LimiterOptions(channel="only", backoff=0.01, max_backoff=0.05, timeout=10)
AUTO = LimiterOptions(backoff=0.01, max_backoff=0.05, timeout=10)


@pytest.fixture
async def limiter(service: ServiceThread) -> AsyncIterator[Limiter]:
    """A limiter that knows no other way than the channel."""
    async with Limiter(service.url, options=ONLY) as connected:
        yield connected


def holds(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    """A condition for `until`."""

    async def ask() -> object:
        return condition()

    return ask


async def wait_for_slot(limiter: Limiter, **more: Any) -> Lease:
    """Wait for the one slot of p/one."""
    return await limiter.acquire("p/one", tokens=1, max_wait=60, **more)


async def test_a_refusal_is_gone_with_who_has_caught_it(limiter: Limiter):
    """Nothing of it is left for the collector to find, however many there are."""
    caught: list[weakref.ref[BaseException]] = []
    async with limiter.acquire("p/m", tokens=1000):
        gc.disable()
        try:
            for _ in range(3):
                try:
                    await limiter.acquire("p/m", tokens=1)
                except RateLimited as refusal:
                    caught.append(weakref.ref(refusal))
            await asyncio.sleep(0)
            assert [each() for each in caught] == [None] * 3
        finally:
            gc.enable()


async def test_every_operation_travels_over_the_channel(limiter: Limiter):
    """Leases, reports and refusals are those of HTTP."""
    async with limiter.acquire("p/m", tokens=100) as lease:
        assert (await limiter.check("p/m", tokens=1)).would_grant
        assert (await lease.renew(60)).expires_in == 60
        lease.used(output_tokens=30)
    assert lease.settled is not None
    assert lease.settled.refunded == {"tokens": 70}
    with pytest.raises(RateLimited) as caught:
        await limiter.acquire("p/m", tokens=980)
    assert (caught.value.would_fit, caught.value.limit) == (970, "m.budget")


async def test_callers_who_come_together_are_not_all_in_one_message(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
):
    """So that they, the service and the store are at work at the same time."""
    sizes: list[int] = []
    say = Socket.say

    def counted(self: Socket, message: bytes) -> None:
        sizes.append(len(msgspec.msgpack.decode(message)))
        say(self, message)

    await limiter.acquire("p/plain", tokens=1)
    monkeypatch.setattr(Socket, "say", counted)
    await asyncio.gather(*(limiter.acquire("p/plain", tokens=1) for _ in range(64)))
    assert sizes == [16, 16, 32]


async def test_waiting_callers_share_one_connection(service: ServiceThread):
    """Each is granted when its turn comes, whatever the others wait for."""
    with Relay(service.port) as relay:
        async with Limiter(relay.url, options=ONLY) as limiter:
            lease = await limiter.acquire("p/one", tokens=1)
            callers = [asyncio.create_task(wait_for_slot(limiter)) for _ in range(40)]
            await until(holds(lambda: service.engine.waiting == 40), "they do not wait")
            for _ in callers:
                await lease.settle()
                done, rest = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
                assert len(done) == 1
                lease, callers = done.pop().result(), list(rest)
        assert (relay.handshakes, relay.requests) == (1, 0)


async def test_progress_is_pushed_to_one_who_has_asked_once(
    limiter: Limiter, service: ServiceThread
):
    """Whenever somebody before it is served, and nobody asks again."""
    lease = await limiter.acquire("p/one", tokens=1)
    others = [asyncio.create_task(wait_for_slot(limiter)) for _ in "ab"]

    async def stand() -> bool:  # in the store: who is only on the way there may be overtaken
        async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
            return bool((await client.get("/v1/queue/p")).json()["depth"] == 2)

    await until(stand, "they do not stand in the queue")
    seen: list[int] = []

    def note(progress: Progress) -> None:
        seen.append(progress.position)

    last = asyncio.create_task(wait_for_slot(limiter, on_wait=note))
    await until(holds(lambda: seen), "it is not told at first")
    for place in (1, 0):
        await lease.settle()
        done, rest = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        lease, others = done.pop().result(), list(rest)
        await until(holds(functools.partial(_is_last, seen, place)), "its place is not told")
    await lease.settle()
    await (await last).settle()
    assert seen == sorted(seen, reverse=True)
    assert len(service.engine.asked) == 4


def _is_last(seen: list[int], place: int) -> bool:
    return seen[-1] == place


async def test_a_listener_that_fails_gives_its_place_up(limiter: Limiter, service: ServiceThread):
    """Its fault is its caller's, and nobody waits behind it."""

    def fail(_: Progress) -> None:
        raise LookupError("of the caller's own")

    async with limiter.acquire("p/one", tokens=1):
        with pytest.raises(LookupError):
            await wait_for_slot(limiter, on_wait=fail)
        await until(holds(lambda: service.engine.called_off == 1), "it is not called off")


async def test_a_cancelled_caller_is_called_off(limiter: Limiter, service: ServiceThread):
    """The service forgets it, and the slot goes to the next."""
    async with limiter.acquire("p/one", tokens=1):
        first, second = (asyncio.create_task(wait_for_slot(limiter)) for _ in "ab")
        await until(holds(lambda: service.engine.waiting == 2), "they do not wait")
        first.cancel()
        await until(holds(lambda: service.engine.called_off == 1), "it is not called off")
    assert (await second).charged == {"concurrency": 1}
    assert first.cancelled()


async def test_a_grant_that_comes_too_late_is_given_back(service: ServiceThread):
    """The caller had gone while it was on its way."""
    with Relay(service.port) as relay:
        async with (
            Limiter(relay.url, options=ONLY) as limiter,
            Limiter(service.url, options=ONLY) as other,
        ):
            lease = await other.acquire("p/one", tokens=1)
            caller = asyncio.create_task(wait_for_slot(limiter))
            await until(holds(lambda: service.engine.waiting == 1), "it does not wait")
            relay.stall()
            await lease.settle()
            await until(holds(lambda: service.engine.waiting == 0), "it is not granted")
            assert not (await other.check("p/one", tokens=1)).would_grant
            caller.cancel()
            await asyncio.wait({caller})
            relay.flow()

            async def free() -> bool:
                return (await other.check("p/one", tokens=1)).would_grant

            await until(free, "the slot does not come back")


async def test_callers_that_give_up_at_once_cost_nothing(limiter: Limiter):
    """Whether their operations were sent already or not."""
    await limiter.check("p/m", tokens=1)
    for moments in range(6):
        callers = [asyncio.ensure_future(_take(limiter)) for _ in range(3)]
        for _ in range(moments):
            await asyncio.sleep(0)
        callers[1].cancel()
        await asyncio.wait(callers)
        assert [caller.cancelled() for caller in callers] == [False, True, False]

    async def given_back() -> bool:
        levels = (await limiter.check("p/m", tokens=1)).limits
        return [level.remaining for level in levels] == [988, 38]

    await until(given_back, "something is kept")


async def _take(limiter: Limiter) -> Lease:
    return await limiter.acquire("p/m", tokens=1)


# Losing the connection


async def test_callers_that_wait_find_their_way_to_the_next_replica(
    service: ServiceThread, start: Start
):
    """The network breaks, another replica answers: same request ids, nobody notices."""
    other = start()
    with Relay(service.port) as relay:
        async with Limiter(relay.url, options=ONLY) as limiter:
            lease = await limiter.acquire("p/one", tokens=1)
            callers = [
                asyncio.create_task(wait_for_slot(limiter, request_id=f"r{i}")) for i in range(20)
            ]
            await until(holds(lambda: service.engine.waiting == 20), "they do not wait")
            relay.target = other.port
            relay.cut()
            await until(holds(lambda: other.engine.waiting == 20), "they do not come back")
            assert {f"r{i}" for i in range(20)} == set(other.engine.asked)
            await until(holds(lambda: service.engine.called_off == 20), "they are not missed")
            for _ in callers:
                await lease.settle()
                done, rest = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
                lease, callers = done.pop().result(), list(rest)


async def test_callers_that_wait_outlive_a_restart(service: ServiceThread, start: Start):
    """The service is stopped, is gone for a while, and starts again on the same port."""
    async with Limiter(service.url, options=AUTO) as limiter:
        lease = await limiter.acquire("p/one", tokens=1)
        callers = [asyncio.create_task(wait_for_slot(limiter)) for _ in range(5)]
        await until(holds(lambda: service.engine.waiting == 5), "they do not wait")
        await asyncio.to_thread(service.stop)
        with pytest.raises(ServiceUnavailable):
            await limiter.check("p/m", tokens=1)
        assert not any(caller.done() for caller in callers)
        again = start(service.port)
        await until(holds(lambda: again.engine.waiting == 5), "they do not come back")
        for _ in callers:
            await lease.settle()
            done, rest = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
            lease, callers = done.pop().result(), list(rest)


async def test_a_killed_service_costs_nobody_a_grant(start: Start, store: Server, tmp_path: Path):
    """Calls under way are repeated with their request ids: each charges once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--config", str(tmp_path / "pools.yaml"), "--redis-url", store.url]
    arguments += ["--port", str(port)]
    patient = LimiterOptions(channel="only", attempts=20, timeout=10)
    done = 0

    async def work(limiter: Limiter) -> None:
        nonlocal done
        for _ in range(20):
            async with limiter.acquire("p/m", tokens=3) as lease:
                lease.used(output_tokens=1)
            done += 1

    async with Limiter(f"http://127.0.0.1:{port}", options=patient) as limiter:
        with ServiceProcess(*arguments) as running:
            working = asyncio.gather(*(work(limiter) for _ in range(10)))
            await until(holds(lambda: done > 20), "nothing is done")
            await asyncio.to_thread(running.stop, signal.SIGKILL)
        with ServiceProcess(*arguments):
            await working
            assert (await limiter.check("p/m", tokens=1)).limits[0].remaining == 800
            assert (await limiter.check("p/m", tokens=1)).limits[1].remaining == 50


async def test_a_connection_on_which_nothing_is_heard_is_replaced(service: ServiceThread):
    """A silent network looks alive: the first answer that is overdue tells."""
    hasty = LimiterOptions(timeout=0.5, attempts=20, backoff=0.01, max_backoff=0.05)
    with Relay(service.port) as relay:
        async with Limiter(relay.url, options=hasty) as limiter:
            await limiter.check("p/m", tokens=1)
            relay.stall()
            before = relay.handshakes
            caller = asyncio.create_task(limiter.check("p/m", tokens=1))
            await until(holds(lambda: relay.handshakes > before), "the connection is kept")
            relay.flow()
            assert (await caller).would_grant


async def test_max_wait_ends_even_when_nobody_says_so(service: ServiceThread):
    """The network swallows everything: the caller is told when its patience is over."""
    hasty = LimiterOptions(channel="only", timeout=0.5, attempts=1)
    with Relay(service.port) as relay:
        async with Limiter(relay.url, options=hasty) as limiter:
            await limiter.acquire("p/one", tokens=1)
            relay.stall()
            with pytest.raises(WaitTimeout):
                await limiter.acquire("p/one", tokens=1, max_wait=0.1)
            relay.flow()


# Another way


@pytest.mark.parametrize(
    "status", ["404 Not Found", "426 Upgrade Required", "403 Forbidden", "200 OK", ""]
)
async def test_where_no_websocket_passes_http_does(service: ServiceThread, status: str):
    """The way is tried once, not for every call."""
    hasty = LimiterOptions(timeout=10 if status else 0.5)
    with Relay(service.port, refuse=status) as relay:
        async with Limiter(relay.url, options=hasty) as limiter:
            async with limiter.acquire("p/one", tokens=1, max_wait=5):
                await asyncio.gather(*(limiter.check("p/m", tokens=1) for _ in range(20)))
            assert (await limiter.check("p/one", tokens=1)).would_grant
        assert relay.handshakes == 1
        assert relay.requests >= 1


async def test_a_limiter_for_the_channel_only_says_why_there_is_none(service: ServiceThread):
    """It does not go another way."""
    with Relay(service.port, refuse="404 Not Found") as relay:
        async with Limiter(relay.url, options=ONLY) as limiter:
            with pytest.raises(ServiceUnavailable, match="404"):
                await limiter.check("p/m", tokens=1)
        assert relay.requests == 0


async def test_a_handshake_that_fails_for_the_moment_is_tried_again(service: ServiceThread):
    """A proxy without a backend says 503; soon there is one."""
    with Relay(service.port, refuse="503 Service Unavailable") as relay:
        async with Limiter(relay.url, options=AUTO) as limiter:
            await limiter.check("p/m", tokens=1)
            assert relay.requests == 1
            relay.refuse = None

            async def over_the_channel() -> bool:
                before = relay.handshakes
                await limiter.check("p/m", tokens=1)
                return relay.handshakes > before

            await until(over_the_channel, "the channel is not tried again")


async def test_without_a_channel_every_call_is_http(service: ServiceThread):
    """`off` never tries."""
    with Relay(service.port) as relay:
        async with Limiter(relay.url, options=LimiterOptions(channel="off")) as limiter:
            await limiter.check("p/m", tokens=1)
        assert (relay.handshakes, relay.requests) == (0, 1)


def test_an_unknown_way_is_refused():
    """The message says which there are."""
    with pytest.raises(ValueError, match="auto, off, only"):
        LimiterOptions(channel="maybe")  # type: ignore[arg-type]


# Closing


async def test_closing_under_load_settles_everything(service: ServiceThread):
    """Reports on their way arrive; no slot stays behind."""
    limiter = Limiter(service.url, options=ONLY)
    inside, leave = asyncio.Semaphore(0), asyncio.Event()

    async def work() -> None:
        async with limiter.acquire("p/m", tokens=2) as lease:
            lease.used(output_tokens=1)
            inside.release()
            await leave.wait()

    tasks = [asyncio.create_task(work()) for _ in range(50)]
    for _ in tasks:
        await inside.acquire()
    leave.set()
    await asyncio.sleep(0)
    await limiter.aclose()
    await asyncio.gather(*tasks)
    async with Limiter(service.url, options=ONLY) as other:
        levels = (await other.check("p/m", tokens=1)).limits
    assert [level.remaining for level in levels] == [950, 50]


async def test_closing_calls_off_what_waits(service: ServiceThread):
    """Its callers are told, and the service forgets them."""
    limiter = Limiter(service.url, options=ONLY)
    await limiter.acquire("p/one", tokens=1)
    callers = [asyncio.create_task(wait_for_slot(limiter)) for _ in range(10)]
    await until(holds(lambda: service.engine.waiting == 10), "they do not wait")
    await limiter.aclose()
    assert service.engine.called_off == 10
    for caller in callers:
        with pytest.raises(SluicegateError, match="closed while"):
            await caller
    with pytest.raises(RuntimeError, match="closed"):
        await limiter.check("p/m", tokens=1)


def test_a_limiter_outlives_its_event_loop(service: ServiceThread):
    """A script that runs one loop after the other opens a channel in each."""
    limiter = Limiter(service.url, options=ONLY)
    for _ in range(3):
        assert asyncio.run(limiter.check("p/m", tokens=1)).would_grant


def test_importing_the_sdk_does_not_import_websockets():
    """A program that never calls does not pay for it."""
    code = "import client_sdk, sys; sys.exit('websockets' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
