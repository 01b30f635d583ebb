"""Ends of a limited call that only one of the two limiters has, or that need a hand."""

import asyncio
import gc
import time
from collections.abc import Callable

import httpx
import pytest
from tests_support.reports import Reporting, SyncReporting
from tests_support.waiting import until, wait_until

from client_sdk import Outcome

Left = Callable[..., float]
BODY = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
STREAM = BODY | {"stream": True}
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}
CHAT = "/openai/v1/chat/completions"


async def test_a_dropped_stream_settles_itself(url: str, provider: str, left: Left):
    """A program forgets its response: neither read nor closed."""
    async with Reporting(url) as limiter, httpx.AsyncHTTPTransport() as inner:
        transport = limiter.transport(inner, pool="p")
        request = httpx.Request("POST", provider + CHAT, json=STREAM, headers=FIVE)
        answer = await transport.handle_async_request(request)
        assert left("m.slots") == 49
        del answer
        gc.collect()

        async def released() -> bool:
            return left("m.slots") == 50

        await until(released, "the lease was not settled")


def test_a_dropped_stream_settles_itself_in_threads(url: str, provider: str, left: Left):
    """The same without a loop."""
    with SyncReporting(url) as limiter, httpx.HTTPTransport() as inner:
        transport = limiter.transport(inner, pool="p")
        request = httpx.Request("POST", provider + CHAT, json=STREAM, headers=FIVE)
        answer = transport.handle_request(request)
        assert left("m.slots") == 49
        del answer
        gc.collect()
        wait_until(lambda: left("m.slots") == 50, "the lease was not settled")


@pytest.mark.parametrize("fault", ["stall-before-headers", "stall-after-chunks=2"])
async def test_a_cancelled_call_settles(url: str, provider: str, left: Left, fault: str):
    """Before the answer and within it: nobody is blamed, and the slot comes back."""
    async with Reporting(url) as limiter, httpx.AsyncHTTPTransport() as inner:
        transport = limiter.transport(inner, pool="p")
        async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
            headers = {**FIVE, "x-sim-fault": fault}
            call = asyncio.create_task(http.post(CHAT, json=STREAM, headers=headers))

            async def begun() -> bool:
                return await asyncio.to_thread(left, "m.slots") == 49

            await until(begun, "the call did not begin")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        [report] = limiter.reports
        assert report.outcome is Outcome.CANCELLED
        assert left("m.slots") == 50


async def test_a_call_that_is_cancelled_while_it_waits_has_no_lease(
    url: str, provider: str, left: Left
):
    """It leaves the queue, and the provider was never called."""
    async with Reporting(url) as limiter, httpx.AsyncHTTPTransport() as inner:
        held = await limiter.acquire("p/slot-waiting", tokens=1)
        transport = limiter.transport(inner, resource="p/slot-waiting", max_wait=30)
        async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
            call = asyncio.create_task(http.post(CHAT, json=BODY))

            async def waiting() -> bool:
                async with httpx.AsyncClient(base_url=url) as service:
                    return bool((await service.get("/v1/queue/p")).json()["depth"])

            await until(waiting, "the call does not wait")
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await held.settle()
        assert len(limiter.reports) == 1


async def test_a_long_stream_keeps_its_lease(url: str, provider: str, left: Left):
    """Its lease is renewed when half of its time is over."""
    async with Reporting(url) as limiter, httpx.AsyncHTTPTransport() as inner:
        renewed: list[float] = []
        renew = limiter.renew

        async def noticed(*arguments: object) -> object:
            renewed.append(time.monotonic())
            return await renew(*arguments)  # type: ignore[arg-type]  # as they came

        limiter.renew = noticed  # type: ignore[method-assign,assignment]  # listens in
        acquire = limiter.acquire
        limiter.acquire = lambda *a, **o: acquire(*a, **o, ttl=1.0)  # type: ignore[method-assign,assignment]  # as an impatient pool would
        transport = limiter.transport(inner, pool="p")
        headers = {**FIVE, "x-sim-fault": "slow-first-token=1.6"}
        async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
            await http.post(CHAT, json=STREAM, headers=headers)
        assert renewed
