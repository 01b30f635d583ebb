"""Networks lose answers: the call is sent again, with the same request id."""

import logging
from collections.abc import Callable

import httpx
import pytest

from client_sdk import Limiter, LimiterOptions, ServiceFault, ServiceUnavailable

Left = Callable[..., float]
FAST = LimiterOptions(backoff=0.001, max_backoff=0.002)


class Forgetful(httpx.AsyncHTTPTransport):
    """Delivers every request, and loses the first answers on a path."""

    def __init__(self, path: str, lost: int) -> None:
        super().__init__()
        self.path, self.lost, self.sent = path, lost, 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.url.path == self.path:
            self.sent += 1
            if self.sent <= self.lost:
                await response.aread()
                await response.aclose()
                raise httpx.ReadError("the answer was lost", request=request)
        return response


async def test_a_lost_grant_is_asked_for_again_and_charged_once(url: str, left: Left):
    """The repeats get the original grant."""
    network = Forgetful("/v1/acquire", lost=3)
    async with Limiter(url, options=FAST, http_transport=network) as limiter:
        lease = await limiter.acquire("p/m", tokens=100)
        assert network.sent == 4
        assert left() == 900
        lease.used(output_tokens=1)
        await lease.settle()
    assert left() == 999


async def test_a_lost_settle_is_sent_again_and_moves_the_books_once(url: str, left: Left):
    """The repeat is answered as the first, with `already_settled`."""
    network = Forgetful("/v1/settle", lost=1)
    async with Limiter(url, options=FAST, http_transport=network) as limiter:
        async with limiter.acquire("p/m", tokens=100) as lease:
            lease.used(output_tokens=40)
        assert lease.settled is not None
        assert lease.settled.already_settled
        assert lease.settled.refunded == {"tokens": 60}
    assert left() == 960


async def test_after_the_last_attempt_the_failure_is_told(url: str):
    """`attempts` bounds how often a call is sent."""
    for attempts in (1, 2, 4):
        network = Forgetful("/v1/acquire", lost=99)
        options = LimiterOptions(attempts=attempts, backoff=0.001, max_backoff=0.002)
        async with Limiter(url, options=options, http_transport=network) as limiter:
            with pytest.raises(ServiceUnavailable, match="the answer was lost"):
                await limiter.acquire("p/m", tokens=1)
        assert network.sent == attempts


async def test_a_settle_that_fails_does_not_hide_the_callers_result(
    url: str, left: Left, caplog: pytest.LogCaptureFixture
):
    """The answer of the provider is worth more than our books: a warning is all there is."""
    network = Forgetful("/v1/settle", lost=99)
    with caplog.at_level(logging.WARNING, "sluicegate"):
        async with Limiter(url, options=FAST, http_transport=network) as limiter:
            async with limiter.acquire("p/m", tokens=100) as lease:
                result = "the provider's answer"
            assert result == "the provider's answer"
            with pytest.raises(KeyError, match="mine"):
                async with limiter.acquire("p/m", tokens=100):
                    raise KeyError("mine")
    assert lease.settled is None
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "lease of p/m was not settled"
    ] * 2


@pytest.mark.parametrize(
    ("status", "body"),
    [(502, b"<html>Bad Gateway</html>"), (200, b"<html>hello</html>"), (404, b""), (500, b"\xc1")],
)
async def test_an_answer_that_nobody_understands_is_a_fault(status: int, body: bytes):
    """Whatever stands in the way of the service, the error shows what it said."""
    asked: list[str] = []

    def stranger(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(status, content=body)

    network = httpx.MockTransport(stranger)
    async with Limiter("http://stranger", options=FAST, http_transport=network) as limiter:
        with pytest.raises(ServiceFault, match=f"status {status}"):
            await limiter.acquire("p/m", tokens=1)
    assert asked == ["/v1/acquire"]


async def test_the_api_key_travels_as_a_bearer_token():
    """Every request carries it, and no error shows it."""
    seen: list[str | None] = []

    def stranger(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(500)

    for key in ("sg_a_b", None):
        network = httpx.MockTransport(stranger)
        async with Limiter("http://stranger", api_key=key, http_transport=network) as limiter:
            with pytest.raises(ServiceFault) as caught:
                await limiter.acquire("p/m", tokens=1)
        assert "sg_a_b" not in repr(caught.value)
    assert seen == ["Bearer sg_a_b", None]
