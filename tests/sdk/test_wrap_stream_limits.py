"""Limits of time of a wrapped stream, whose source does not come back by itself."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from tests_support.reports import Reporting, SyncReporting
from tests_support.waiting import until, wait_until

from client_sdk import Outcome, StreamStalled
from client_sdk.streaming import StreamTimeouts

Left = Callable[..., float]
SOON = StreamTimeouts(first_token=0.2, idle_content=0.2)
STREAM = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
HELLO = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}


async def stuck(*chunks: object) -> AsyncIterator[Any]:
    """Chunks, and then nothing."""
    for chunk in chunks:
        yield chunk
    await asyncio.Event().wait()


@pytest.mark.parametrize("chunks", [(), (HELLO,)])
async def test_a_stuck_source_ends(url: str, left: Left, chunks: tuple[object, ...]):
    """Before its first chunk, and after it; its caller is not cancelled."""
    async with Reporting(url) as limiter:
        stream = limiter.wrap_stream(stuck(*chunks), resource="p/m", tokens=9, timeouts=SOON)
        with pytest.raises(StreamStalled) as caught:
            [chunk async for chunk in stream]
        assert caught.value.category is Outcome.TIMEOUT
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        [report] = limiter.reports
        assert report.outcome is Outcome.TIMEOUT
        assert left("m.slots") == 50


class Lines:
    """As the stream of an SDK that blocks: chunks over a response that it shows."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response

    def __iter__(self) -> Iterator[bytes]:
        for line in self.response.iter_lines():
            if line:
                yield line.removeprefix("data: ").encode()


def test_a_thread_that_is_stuck_comes_back(url: str, provider: str, left: Left):
    """The socket under it is shut down."""
    headers = {"x-sim-output-tokens": "9", "x-sim-fault": "stall-after-chunks=2"}
    with (
        SyncReporting(url) as limiter,
        httpx.Client(base_url=provider) as http,
        http.stream("POST", "/v1/chat/completions", json=STREAM, headers=headers) as response,
    ):
        stream = limiter.wrap_stream(Lines(response), resource="p/m", tokens=9, timeouts=SOON)
        with pytest.raises(StreamStalled):
            list(stream)
        [report] = limiter.reports
        assert report.outcome is Outcome.TIMEOUT
        assert left("m.slots") == 50


async def test_a_dropped_stream_settles_itself(url: str, left: Left):
    """Begun, left in the middle, and forgotten."""
    async with Reporting(url) as limiter:
        stream = limiter.wrap_stream(stuck(HELLO), resource="p/m", tokens=9)
        await stream.__anext__()
        del stream
        gc.collect()

        async def released() -> bool:
            return await asyncio.to_thread(left, "m.slots") == 50

        await until(released, "the lease was not settled")


def test_a_dropped_stream_settles_itself_in_threads(url: str, left: Left):
    """The same without a loop."""
    with SyncReporting(url) as limiter:
        stream = limiter.wrap_stream(iter([HELLO, HELLO]), resource="p/m", tokens=9)
        next(stream)
        del stream
        gc.collect()
        wait_until(lambda: left("m.slots") == 50, "the lease was not settled")
