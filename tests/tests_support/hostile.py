"""What holds for every stream, also for one that was made to break us."""

import msgspec

from client_sdk.streaming import StreamAccumulator, StreamChunk, StreamOutcome
from client_sdk.streaming.eventstream import encode
from limiter_wire import Usage
from tests_support.chunking import pieces

DIALECTS = (
    "openai-chat",
    "openai-responses",
    "anthropic",
    "gemini",
    "cohere",
    "mistral",
    "bedrock",
    "ollama",
    "unknown",
)


def examine(dialect: str, body: bytes, size: int, *, skip: bool = False) -> StreamAccumulator:
    """Read *body* in chunks of *size*: no exception, one outcome, and everything adds up."""
    accumulator = StreamAccumulator(dialect, max_event_bytes=1 << 20, skip_bad_frames=skip)
    shown: list[StreamChunk] = []
    for n, chunk in enumerate(pieces(body, size)):
        before = accumulator.outcome
        shown += accumulator.feed(chunk, float(n))
        assert before is None or accumulator.outcome is before
        assert accumulator.done or accumulator.tool_calls == ()
        for last in shown[-1:]:
            if last.tool_call_delta is not None:
                accumulator.partial_arguments(last.tool_call_delta.index, last.choice)
    outcome = accumulator.finish(1e6)
    shown += accumulator.drain()
    assert isinstance(outcome, StreamOutcome)
    assert (accumulator.interrupt(2e6), accumulator.stall(3e6)) == (outcome, None)
    _adds_up(accumulator, shown)
    return accumulator


def _adds_up(accumulator: StreamAccumulator, shown: list[StreamChunk]) -> None:
    for index, choice in accumulator.choices.items():
        mine = [chunk for chunk in shown if chunk.choice == index]
        assert "".join(chunk.content for chunk in mine) == choice.text
        assert "".join(chunk.reasoning for chunk in mine) == choice.reasoning
        assert "".join(chunk.refusal for chunk in mine) == choice.refusal
        for call in choice.tool_calls:
            assert not call.executable or (call.name, call.input) is not None
    ends = [chunk for chunk in shown if chunk.type == "end"]
    assert len(ends) == accumulator.outcome.whole  # type: ignore[union-attr]  # it has ended
    assert (accumulator.error() is None) == bool(ends)
    # Everything can be written down, and the service takes the usage.
    msgspec.json.encode([shown, accumulator.statistics, accumulator.fault])
    msgspec.convert(msgspec.to_builtins(accumulator.usage), Usage)


def meaning(accumulator: StreamAccumulator) -> tuple[object, ...]:
    """What must not depend on the cuts."""
    return (
        accumulator.outcome,
        accumulator.fault,
        accumulator.usage,
        [(i, c.text, c.reasoning, c.tool_calls) for i, c in accumulator.choices.items()],
        accumulator.statistics.flags,
    )


def framed(dialect: str, payloads: list[bytes]) -> bytes:
    """Payloads as frames of a dialect."""
    if dialect == "bedrock":
        names = ["contentBlockDelta", "contentBlockStart", "messageStop", "metadata", "chunk"]
        return b"".join(
            encode(names[n % len(names)], payload) for n, payload in enumerate(payloads)
        )
    if dialect == "ollama":
        return b"".join(payload.replace(b"\n", b" ") + b"\n" for payload in payloads)
    return b"".join(b"data: " + payload.replace(b"\n", b" ") + b"\n\n" for payload in payloads)
