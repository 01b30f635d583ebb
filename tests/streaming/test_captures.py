"""Streams that providers really sent, where they are at hand; they are no part of the project."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support.chunking import pieces

from client_sdk.streaming import StreamAccumulator, StreamOutcome
from client_sdk.streaming.eventstream import encode
from limiter_wire import Provenance

HOME = Path(__file__).parents[3] / "shared" / "data" / "streams"
CAPTURES = sorted(HOME.glob("*")) if HOME.is_dir() else []
# Not an answer of a model, and one whose frames were damaged when it was written down.
OTHERWISE = {
    "openai__speech-translation__openai-realtime-speech-translation": StreamOutcome.TRUNCATED,
    "openai__responses__parallel-tool-call-wrapper.1": StreamOutcome.PROTOCOL_ERROR,
    "anthropic__anthropic-refusal": StreamOutcome.CONTENT_FILTER,
    "deepseek__chat__deepseek-text": StreamOutcome.LENGTH,
}


def dialect_of(name: str) -> str:
    """The dialect by the name of a capture."""
    provider = name.partition("__")[0]
    if "responses" in name or (provider == "azure" and "deepseek" not in name):
        return "openai-responses"
    own = {"amazon-bedrock": "bedrock", "google": "gemini"}
    named = {"anthropic", "cohere", "mistral"}
    return own.get(provider) or (provider if provider in named else "openai-chat")


def frames(path: Path, dialect: str) -> Iterator[bytes]:
    """The capture with the framing that it had on the wire."""
    if path.suffix == ".sse":
        yield path.read_bytes()
        return
    for line in filter(None, path.read_bytes().splitlines()):
        if dialect == "bedrock":
            ((name, payload),) = json.loads(line).items()
            yield encode(name, json.dumps(payload).encode())
        else:
            yield b"data: " + line + b"\n\n"


@pytest.mark.skipif(not CAPTURES, reason="no captures beside the checkout")
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_a_captured_stream_is_whole(path: Path):
    """It ends as it did, in any chunks, with calls that can be executed; cut, it says so."""
    name = path.name.removesuffix(".chunks.txt").removesuffix(".sse")
    dialect = dialect_of(name)
    every = list(frames(path, dialect))
    body = b"".join(every)
    seen = set()
    for chunks in (every, [body], pieces(body, 17), pieces(body, 4093)):
        accumulator = StreamAccumulator(dialect)
        for chunk in chunks:
            accumulator.feed(chunk, 0.0)
        accumulator.finish(1.0)
        assert all(call.executable for call in accumulator.tool_calls)
        usage = accumulator.usage
        texts = (accumulator.text, accumulator.reasoning)
        seen.add((accumulator.outcome, *texts, repr(usage), accumulator.tool_calls))
        if accumulator.outcome is StreamOutcome.COMPLETED:
            assert usage.provenance in {Provenance.FINAL, Provenance.UNKNOWN}
            assert accumulator.statistics.unknown_events == 0
    ((outcome, *_),) = seen
    expected = OTHERWISE.get(name, StreamOutcome.COMPLETED)
    assert outcome is expected
    if expected.whole:
        cut = StreamAccumulator(dialect)
        needed = 0
        for frame in every:
            if not cut.done:
                cut.feed(frame, 0.0)
                needed += 1
        cut = StreamAccumulator(dialect)
        cut.feed(b"".join(every[: needed // 3]), 0.0)
        assert not cut.finish(1.0).whole
