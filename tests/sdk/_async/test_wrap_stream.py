"""Typed chunks of any SDK under a lease: they pass as they are, and settle it at their end."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from tests_support.reports import Reporting

from client_sdk import Outcome, Provenance, RateLimited

Left = Callable[..., float]


@pytest.fixture
async def limiter(url: str) -> AsyncIterator[Reporting]:
    """A limiter whose reports can be looked at."""
    async with Reporting(url) as connected:
        yield connected


class Chunk(msgspec.Struct):
    """As an SDK's class of chunks."""

    choices: list[dict[str, Any]] = []
    usage: dict[str, int] | None = None


def text(content: str) -> Chunk:
    return Chunk(choices=[{"index": 0, "delta": {"content": content}}])


END = Chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
COUNTED = Chunk(usage={"prompt_tokens": 30, "completion_tokens": 20})


async def each(*chunks: object) -> AsyncIterator[Any]:
    for chunk in chunks:
        if isinstance(chunk, BaseException):
            raise chunk
        yield chunk


async def test_the_chunks_are_the_same_and_their_usage_settles(limiter: Reporting, left: Left):
    """Within a lease of the caller's; its block finds it settled."""
    chunks = [text("Hello"), text(" you"), END, COUNTED]
    async with limiter.acquire("p/m", tokens=100) as lease:
        stream = limiter.wrap_stream(each(*chunks), lease=lease)
        got = [chunk async for chunk in stream]
        assert left() == 950
    assert all(one is other for one, other in zip(got, chunks, strict=True))
    [report] = limiter.reports
    assert (report.outcome, stream.outcome) == (Outcome.SUCCESS, Outcome.SUCCESS)
    assert stream.usage is not None
    assert stream.usage.provenance is Provenance.FINAL
    assert stream.statistics is not None
    assert stream.statistics.content_events == 2


async def test_a_function_is_called_when_the_lease_is_there(limiter: Reporting, left: Left):
    """The request is made under the budget, not before it."""
    seen: list[float] = []

    async def ask() -> AsyncIterator[Any]:
        seen.append(left())
        return each(text("Hello"), END, COUNTED)

    async with limiter.wrap_stream(ask, resource="p/m", tokens=100) as stream:
        assert left() == 1000
        assert len([chunk async for chunk in stream]) == 3
    assert seen == [900]
    assert left() == 950


async def test_a_refusal_is_raised_before_the_request(limiter: Reporting):
    """Nothing is asked of the provider."""

    def never() -> AsyncIterator[Any]:
        raise AssertionError("called")

    stream = limiter.wrap_stream(never, resource="p/slot-1", tokens=10)
    lease = await limiter.acquire("p/slot-1", tokens=10)
    with pytest.raises(RateLimited):
        await stream.__anext__()
    await lease.settle()


@pytest.mark.parametrize(
    ("chunks", "outcome"),
    [
        ([text("Hello")], Outcome.STREAM_INTERRUPTED),
        ([], Outcome.STREAM_INTERRUPTED),
        ([{"error": {"code": "rate_limit_exceeded"}}], Outcome.RATE_LIMITED),
        ([{"type": "error", "error": {"type": "overloaded_error"}}], Outcome.OVERLOADED),
        ([object()], Outcome.SUCCESS),
    ],
)
async def test_a_bad_end_is_reported_and_not_raised(
    limiter: Reporting, left: Left, chunks: list[object], outcome: Outcome
):
    """What the SDK makes of it is the SDK's."""
    stream = limiter.wrap_stream(each(*chunks), resource="p/m", tokens=100)
    assert [chunk async for chunk in stream] == chunks
    assert stream.outcome is outcome
    assert left("m.slots") == 50


async def test_an_exception_of_the_source_passes_and_is_reported(limiter: Reporting, left: Left):
    """As in a block of `acquire`."""
    stream = limiter.wrap_stream(
        each(text("Hello"), ConnectionResetError("gone")), resource="p/m", tokens=100
    )
    with pytest.raises(ConnectionResetError):
        [chunk async for chunk in stream]
    [report] = limiter.reports
    assert report.outcome is not Outcome.SUCCESS
    assert left("m.slots") == 50


async def test_who_leaves_early_closes_the_source(limiter: Reporting, left: Left):
    """The block's end settles, and what came is estimated."""
    source = each(text("Hello"), text(" you"), END)
    async with limiter.wrap_stream(
        source, resource="p/m", input_tokens=30, max_output_tokens=70
    ) as stream:
        async for _chunk in stream:
            break
    [report] = limiter.reports
    assert report.outcome is Outcome.CANCELLED
    assert report.usage is not None
    assert report.usage.provenance is Provenance.ESTIMATED
    assert (report.usage.input_tokens, report.usage.output_tokens) == (30, 1)
    assert [chunk async for chunk in source] == []


async def test_dialects_are_known_by_their_first_chunk(limiter: Reporting):
    """Anthropic, the responses of OpenAI, Gemini, Cohere, Ollama and Bedrock."""
    message = {"usage": {"input_tokens": 30, "output_tokens": 1}}
    delta = {"type": "text_delta", "text": "Hi"}
    tokens = {"input_tokens": 30, "output_tokens": 20}
    streams: list[list[dict[str, Any]]] = [
        [
            {"type": "message_start", "message": message},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": 20},
            },
            {"type": "message_stop"},
        ],
        [
            {"type": "response.output_text.delta", "delta": "Hi"},
            {"type": "response.completed", "response": {"status": "completed", "usage": tokens}},
        ],
        [
            {
                "candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 30, "candidatesTokenCount": 20},
            }
        ],
        [
            {"type": "message-start"},
            {"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}},
            {
                "type": "message-end",
                "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": tokens}},
            },
        ],
        [
            {"message": {"content": "Hi"}, "done": False},
            {"done": True, "done_reason": "stop", "prompt_eval_count": 30, "eval_count": 20},
        ],
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi"}}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 30, "outputTokens": 20, "totalTokens": 50}}},
        ],
    ]
    for chunks in streams:
        stream = limiter.wrap_stream(each(*chunks), resource="p/m", tokens=60)
        assert [chunk async for chunk in stream] == chunks
        assert stream.outcome is Outcome.SUCCESS, chunks
        assert stream.usage is not None
        assert (stream.usage.input_tokens, stream.usage.output_tokens) == (30, 20), chunks


async def test_a_source_that_does_not_open_is_reported(limiter: Reporting, left: Left):
    """The request itself failed."""

    def broken() -> AsyncIterator[Any]:
        raise ConnectionRefusedError

    stream = limiter.wrap_stream(broken, resource="p/m", tokens=100)
    with pytest.raises(ConnectionRefusedError):
        await stream.__anext__()
    [report] = limiter.reports
    assert report.outcome is Outcome.CONNECTION
    assert left() == 1000
