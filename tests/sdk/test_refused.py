"""While the breaker refuses: few questions, a quick end, and waiters that hold."""

import asyncio
import contextlib

import httpx
import pytest
from tests_support.waiting import until

from client_sdk import BreakerOpen, Limiter, LimiterOptions, Outcome
from limiter_wire import Settle

BREAKERS = "/v1/breakers"


async def order(url: str, resource: str, mode: str, **fields: object) -> None:
    """An operator holds a circuit."""
    async with httpx.AsyncClient(base_url=url) as client:
        body = {"mode": mode, "ttl": 60, "reason": "test"} | fields
        answer = await client.put(f"{BREAKERS}/{resource}/override", json=body)
        assert answer.status_code == 200, answer.text


async def clear(url: str, resource: str) -> None:
    """And lets go of it."""
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.delete(f"{BREAKERS}/{resource}/override")
        assert answer.status_code == 200, answer.text


async def refusals(url: str) -> float:
    """How many acquires the service has refused for a breaker."""
    async with httpx.AsyncClient(base_url=url) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("sluicegate_decisions_total") and 'code="breaker_open"' in line
    )


async def attempt(limiter: Limiter, resource: str) -> bool:
    """Whether an acquire is granted."""
    with contextlib.suppress(BreakerOpen):
        lease = await limiter.acquire(resource, tokens=1)
        await lease.settle()
        return True
    return False


async def test_an_outage_costs_the_service_few_questions(url: str):
    """Ten thousand attempts within a moment, and one after the other: one question a second."""
    await order(url, "frail/m", "open")
    before, loop = await refusals(url), asyncio.get_running_loop()
    async with Limiter(url) as limiter:
        began = loop.time()
        for _ in range(10_000):
            assert not await attempt(limiter, "frail/m")
        took = loop.time() - began
    assert await refusals(url) - before <= 2 + took


async def test_without_the_memory_every_attempt_asks(url: str):
    """So what the test above counts are questions."""
    await order(url, "frail/m", "open")
    before = await refusals(url)
    async with Limiter(url, options=LimiterOptions(remember_refusals=False)) as limiter:
        for _ in range(25):
            assert not await attempt(limiter, "frail/m")
    assert await refusals(url) - before == 25


async def test_a_refusal_known_here_is_like_one_of_the_service(url: str):
    """With what is left of the time, and the request's own id."""
    await order(url, "frail/m", "open")
    async with Limiter(url) as limiter:
        seen = []
        for name in ("first", "second"):
            with pytest.raises(BreakerOpen) as caught:
                await limiter.acquire("frail/m", tokens=1, request_id=name)
            seen.append(caught.value)
    first, second = seen
    assert [each.request_id for each in seen] == ["first", "second"]
    assert (first.reason, first.code, first.phase) == (second.reason, second.code, second.phase)
    assert first.retry_after is not None
    assert second.retry_after is not None
    assert second.retry_after < first.retry_after


async def test_the_end_of_a_refusal_is_seen_within_a_second(url: str):
    """Though it was to last a minute: an operator has let go."""
    await order(url, "frail/m", "open")
    async with Limiter(url) as limiter:
        assert not await attempt(limiter, "frail/m")
        await clear(url, "frail/m")
        assert not await attempt(limiter, "frail/m")  # known here, and not yet time to look

        async def passes() -> bool:
            return await attempt(limiter, "frail/m")

        await until(passes, "nobody looks whether the refusal still holds")


async def test_a_settle_that_says_closed_ends_a_refusal_at_once(url: str):
    """A call that was under way tells of the recovery before anybody looks."""
    async with Limiter(url) as limiter:
        lease = await limiter.acquire("frail/m", tokens=1)
        await order(url, "frail/m", "open")
        assert not await attempt(limiter, "frail/m")
        await clear(url, "frail/m")
        assert (await lease.settle()).breaker == "closed"
        assert await attempt(limiter, "frail/m")


async def break_down(limiter: Limiter, resource: str) -> None:
    """Calls fail until the circuit opens; two in a row, since two are judged."""
    leases = [await limiter.acquire(resource, tokens=1) for _ in range(2)]
    for lease in leases:
        await limiter.settle(Settle(lease=lease.id, outcome=Outcome.SERVER_ERROR))


async def test_the_queue_holds_who_may_wait_across_an_opening(url: str):
    """Eight callers of one process: one probes, and all are served when it has succeeded."""
    async with Limiter(url) as limiter:
        await break_down(limiter, "frail/n")
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.get(f"{BREAKERS}/frail/n")).json()["open_count"] == 1
        served = []

        async def serve() -> None:
            async with limiter.acquire("frail/n", tokens=1, max_wait=30) as lease:
                served.append(lease.granted)

        await asyncio.gather(*(serve() for _ in range(8)))
    assert len(served) == 8
    assert served[0].probe
    assert all(granted.waited > 0 for granted in served)


async def test_who_may_not_wait_long_enough_is_told_at_once(url: str):
    """And the next one without asking."""
    await order(url, "frail/m", "open")
    before = await refusals(url)
    async with Limiter(url) as limiter:
        for _ in range(20):
            with pytest.raises(BreakerOpen):
                await limiter.acquire("frail/m", tokens=1, max_wait=2)
    assert await refusals(url) - before < 20


async def test_workers_are_told_apart(url: str):
    """A process has a name of its own; two limiters with other names are two workers."""
    async with Limiter(url) as limiter:
        for _ in range(2):
            await (await limiter.acquire("frail/o", tokens=1)).settle()
        assert (await limiter.breaker("frail/o")).window.workers == 1
        for name in ("a", "b", "c"):
            async with Limiter(url, options=LimiterOptions(worker=name)) as other:
                await (await other.acquire("frail/o", tokens=1)).settle()
        assert (await limiter.breaker("frail/o")).window.workers >= 3


FORKED = """
import os
from client_sdk.worker import worker_name
worker_name()
child = os.fork()
if child:  # what two write at once is torn
    assert os.waitpid(child, 0)[1] == 0
print(os.getpid(), worker_name(), worker_name(), flush=True)
"""


def test_the_name_of_a_process_tells_nothing():
    """It is its id and chance, and a fork has another."""
    import socket  # noqa: PLC0415
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    program = [sys.executable, "-c", FORKED]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    child, parent = (line.split() for line in told.splitlines())
    for process, name, again in (child, parent):
        assert name == again
        assert name.startswith(f"{process}-")
        assert socket.gethostname() not in name
    assert child[1] != parent[1]


@pytest.mark.parametrize("name", ["", "a b", "x" * 201, "né"])
def test_a_worker_has_a_visible_name(name: str):
    """As the service wants it."""
    with pytest.raises(ValueError, match="worker"):
        LimiterOptions(worker=name)
