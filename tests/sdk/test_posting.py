"""What is posted to the service over HTTP, past the client of httpx."""

import base64
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from client_sdk import Limiter, LimiterOptions, ServiceUnavailable, SyncLimiter

CHECKED = msgspec.msgpack.encode({"would_grant": True, "limits": []})
OPTIONS = LimiterOptions(attempts=1, timeout=3.0, connect_timeout=0.25)

Answer = Callable[[httpx.Request], httpx.Response]


async def in_a_task(url: str, answer: Answer) -> Any:
    """A check, by a task."""
    network = httpx.MockTransport(answer)
    async with Limiter(url, api_key="sg_k", options=OPTIONS, http_transport=network) as limiter:
        return await limiter.check("p/m", tokens=1)


async def in_a_thread(url: str, answer: Answer) -> Any:
    """The same, by a thread."""
    network = httpx.MockTransport(answer)
    with SyncLimiter(url, api_key="sg_k", options=OPTIONS, http_transport=network) as limiter:
        return limiter.check("p/m", tokens=1)


ways = pytest.mark.parametrize("ask", [in_a_task, in_a_thread])


@ways
async def test_a_request_has_all_that_a_client_would_give_it(ask: Any):
    """The path below that of the service, the key, the usual headers, the deadlines."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=CHECKED)

    assert (await ask("http://limiter:81/below", answer)).would_grant
    (request,) = seen
    assert str(request.url) == "http://limiter:81/below/v1/check"
    usual = httpx.Client().headers
    assert dict(request.headers) == {
        **usual,
        "host": "limiter:81",
        "authorization": "Bearer sg_k",
        "accept": "application/msgpack",
        "content-type": "application/msgpack",
        "content-length": str(len(request.content)),
    }
    assert request.extensions["timeout"] == {
        "connect": 0.25,
        "read": 3.0,
        "write": 3.0,
        "pool": 3.0,
    }


class Looking(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """A transport that looks at what is posted, as one that keeps a record does."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        self.seen.append(request.content)
        return httpx.Response(200, content=CHECKED)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        return self.handle_request(request)


async def test_a_transport_may_look_at_what_is_posted():
    """It has been read, as that of a client of httpx has."""
    network = Looking()
    async with Limiter("http://limiter", options=OPTIONS, http_transport=network) as limiter:
        await limiter.check("p/m", tokens=1)
    with SyncLimiter("http://limiter", options=OPTIONS, http_transport=network) as by_thread:
        by_thread.check("p/m", tokens=1)
    assert [msgspec.msgpack.decode(each)["tokens"] for each in network.seen] == [1, 1]


@ways
async def test_a_name_and_a_password_in_the_address_are_said(ask: Any):
    """As httpx says them."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, content=CHECKED)

    await ask("http://me:secret@limiter", answer)
    assert seen == [f"Basic {base64.b64encode(b'me:secret').decode()}"]


@ways
async def test_an_answer_may_be_compressed(ask: Any):
    """Something between may do that, since it was told that it may."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert "gzip" in request.headers["accept-encoding"]
        import gzip  # noqa: PLC0415  # here alone

        headers = {"content-encoding": "gzip"}
        return httpx.Response(200, content=gzip.compress(CHECKED), headers=headers)

    assert (await ask("http://limiter", answer)).would_grant


@ways
async def test_an_answer_that_breaks_off_is_a_service_that_cannot_be_reached(ask: Any):
    """Its head may have come."""

    class Broken(httpx.AsyncByteStream, httpx.SyncByteStream):
        def __iter__(self) -> Any:
            yield CHECKED[:3]
            raise httpx.ReadError("it is gone")

        async def __aiter__(self) -> Any:
            for piece in self:
                yield piece

    with pytest.raises(ServiceUnavailable, match="it is gone"):
        await ask("http://limiter", lambda _: httpx.Response(200, stream=Broken()))
