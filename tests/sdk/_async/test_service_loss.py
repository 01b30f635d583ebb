"""The service cannot be reached: a process goes on within its share, and is charged later."""

import logging
from collections.abc import Callable

import httpx
import pytest
from tests_support.waiting import until

from client_sdk import Limiter, LimiterOptions, RateLimited, RequestConflict, ServiceUnavailable
from client_sdk.alone import OnServiceLoss

Left = Callable[..., float]


class Network(httpx.AsyncHTTPTransport):
    """A way to the service that can be cut, before what is sent arrives or behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.away, self.one_way = False, False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.away and not self.one_way:
            raise httpx.ConnectError("nobody is there", request=request)
        response = await super().handle_async_request(request)
        if self.away:
            await response.aread()
            await response.aclose()
            raise httpx.ReadError("the answer was lost", request=request)
        return response


def options(mode: OnServiceLoss = "degrade", share: float = 0.25) -> LimiterOptions:
    """Options of a limiter that does not try for long."""
    return LimiterOptions(on_service_loss=mode, share=share, backoff=0.001, max_backoff=0.002)


async def charged(limiter: Limiter) -> None:
    """Wait until the service has heard of everything."""

    async def told() -> bool:
        await limiter.check("p/m", tokens=1)
        figures = limiter.alone()
        return not figures.lost and figures.uncharged == 0

    await until(told, "what was granted is not charged")


async def test_a_process_grants_its_share_and_is_charged_when_the_service_is_back(
    url: str, left: Left, caplog: pytest.LogCaptureFixture
):
    """Visibly: in the lease, in the figures, and in one line of the log."""
    network = Network()
    async with Limiter(url, options=options(), http_transport=network) as limiter:
        await (await limiter.acquire("p/m", tokens=200)).settle()
        network.away = True
        with caplog.at_level(logging.WARNING, "sluicegate"):
            leases = [await limiter.acquire("p/m", tokens=100) for _ in range(2)]
            with pytest.raises(RateLimited, match="share of the limit is spent") as refusal:
                await limiter.acquire("p/m", tokens=100)
        assert refusal.value.limit == "m.budget"
        assert [lease.degraded for lease in leases] == [True, True]
        said = [record for record in caplog.records if "cannot be reached" in record.message]
        assert len(said) == 1
        figures = limiter.alone()
        assert (figures.lost, figures.granted, figures.refused) == (True, 2, 1)
        leases[0].used(output_tokens=30)
        assert (await leases[0].settle()).degraded
        network.away = False
        assert left() == 800
        await charged(limiter)
        assert not (await limiter.acquire("p/m", tokens=1)).degraded
        assert left() == 800 - 30 - 100 - 1
        leases[1].used(output_tokens=50)
        assert (await leases[1].settle()).refunded == {"tokens": 50}
        assert left() == 800 - 30 - 50 - 1


async def test_share_may_be_a_number_of_processes(url: str):
    """`4` is the same as `0.25`."""
    assert options(share=4).part == options(share=0.25).part == 0.25
    network = Network()
    async with Limiter(url, options=options(share=4), http_transport=network) as limiter:
        await limiter.acquire("p/m", tokens=200)
        network.away = True
        await limiter.acquire("p/m", tokens=200)
        with pytest.raises(RateLimited):
            await limiter.acquire("p/m", tokens=1)


async def test_an_acquire_that_was_granted_unheard_is_charged_once(url: str, left: Left):
    """The lease of this process and that of the service are of one request."""
    network = Network()
    async with Limiter(url, options=options(), http_transport=network) as limiter:
        await limiter.acquire("p/m", tokens=100)
        network.away = network.one_way = True
        lease = await limiter.acquire("p/m", tokens=100)
        assert lease.degraded
        assert left() == 800
        network.away = False
        await charged(limiter)
        assert left() == 800
        lease.used(output_tokens=1)
        assert (await lease.settle()).refunded == {"tokens": 99}
        assert left() == 899


async def test_a_report_whose_answer_is_lost_again_moves_the_books_once(url: str, left: Left):
    """Charging is tried again until it is heard of."""
    network = Network()
    async with Limiter(url, options=options(), http_transport=network) as limiter:
        await limiter.acquire("p/m", tokens=100)
        network.away = True
        async with limiter.acquire("p/m", tokens=100) as lease:
            lease.used(output_tokens=40)
        network.one_way = True
        for _ in range(3):
            with pytest.raises(ServiceUnavailable):
                await limiter.check("p/m", tokens=1)
        network.away = False
        await charged(limiter)
        assert left() == 900 - 40


async def test_what_was_never_granted_before_is_not_granted_alone(url: str):
    """There is nothing to go by."""
    network = Network()
    async with Limiter(url, options=options(), http_transport=network) as limiter:
        await limiter.acquire("p/m", tokens=100)
        network.away = True
        for resource in ("p/told", "p/dear"):
            with pytest.raises(ServiceUnavailable):
                await limiter.acquire(resource, tokens=1)


async def test_open_grants_everything_and_closed_nothing(url: str, left: Left):
    """`open` is charged for it, and may be in debt afterwards."""
    network = Network()
    async with Limiter(url, options=options("open"), http_transport=network) as limiter:
        network.away = True
        for _ in range(3):
            assert (await limiter.acquire("p/m", tokens=500)).degraded
        network.away = False
        await charged(limiter)
        assert left() == -500
    async with Limiter(url, options=options("closed"), http_transport=network) as limiter:
        await limiter.acquire("p/dear", tokens=1, cost_usd=1)
        network.away = True
        with pytest.raises(ServiceUnavailable):
            await limiter.acquire("p/dear", tokens=1, cost_usd=1)
        assert not limiter.alone().lost


async def test_slots_are_shared_too_and_come_back(url: str):
    """A settle frees one; money is counted by what the last call of its size has cost."""
    network = Network()
    async with Limiter(url, options=options(share=0.04), http_transport=network) as limiter:
        await limiter.acquire("p/m", tokens=1)
        await limiter.acquire("p/dear", tokens=100, cost_usd=0.5)
        network.away = True
        first = await limiter.acquire("p/m", tokens=1)
        with pytest.raises(RateLimited) as refusal:
            await limiter.acquire("p/m", tokens=1)
        assert refusal.value.limit == "m.slots"
        await first.settle()
        assert (await limiter.acquire("p/m", tokens=1)).degraded
        assert (await limiter.acquire("p/dear", tokens=50)).charged == {"cost_usd": 0.25}
        with pytest.raises(RateLimited):
            await limiter.acquire("p/dear", tokens=50)


async def test_a_request_that_comes_again_is_one_lease(url: str, left: Left):
    """Here, and at the service."""
    network = Network()
    async with Limiter(url, options=options(), http_transport=network) as limiter:
        await limiter.acquire("p/m", tokens=100)
        network.away = True
        one = await limiter.acquire("p/m", tokens=10, request_id="same")
        assert (await limiter.acquire("p/m", tokens=10, request_id="same")).id == one.id
        network.away = False
        await charged(limiter)
        await limiter.acquire("p/m", tokens=10, request_id="same")
        assert left() == 890
        with pytest.raises(RequestConflict):
            await limiter.acquire("p/m", tokens=11, request_id="same")


async def test_a_lease_that_is_renewed_alone_lives_on_at_the_service(url: str):
    """With what is left of its life."""
    network = Network()
    async with Limiter(url, options=options(), http_transport=network) as limiter:
        await limiter.acquire("p/m", tokens=100)
        network.away = True
        lease = await limiter.acquire("p/m", tokens=10, ttl=5)
        assert (await lease.renew(900)).degraded
        network.away = False
        await charged(limiter)
        renewed = await lease.renew(60)
        assert not renewed.degraded
