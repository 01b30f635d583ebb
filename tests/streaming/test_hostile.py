"""Streams that no provider sends, yet: nothing raises, and time stays linear."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support.hostile import DIALECTS, examine, framed, meaning
from tests_support.stream_cases import CASES, delta, gemini, sse

from client_sdk.streaming import StreamAccumulator, dialect_names

BODIES = {
    dialect: [case.body for case in CASES if case.dialect == dialect and case.body]
    for dialect in DIALECTS
}
# The words that dialects look at, so that wrong values meet real fields.
# fmt: off
KEYS = [
    "id", "type", "event_type", "index", "choices", "delta", "message", "content", "text",
    "reasoning", "thinking", "refusal", "tool_calls", "function", "function_call", "name",
    "arguments", "finish_reason", "usage", "prompt_tokens", "completion_tokens", "total_tokens",
    "error", "code", "status", "details", "x_groq", "audio", "content_block", "partial_json",
    "stop_reason", "input", "item", "output", "output_index", "response", "incomplete_details",
    "reason", "call_id", "candidates", "parts", "functionCall", "args", "partialArgs", "jsonPath",
    "stringValue", "willContinue", "finishReason", "usageMetadata", "promptTokenCount",
    "promptFeedback", "blockReason", "tool_plan", "tokens", "input_tokens", "output_tokens",
    "iterations", "contentBlockIndex", "start", "toolUse", "toolUseId", "stopReason", "bytes",
    "done", "done_reason", "eval_count", "step", "interaction", "thought", "reasoningContent",
    "object",
]
WORDS = [
    "message_start", "content_block_start", "content_block_delta", "message_delta",
    "message_stop", "error", "ping", "text_delta", "input_json_delta", "tool_use", "text",
    "thinking", "response.completed", "response.failed", "response.output_item.added",
    "response.output_item.done", "function_call", "message", "response.output_text.delta",
    "response.function_call_arguments.delta", "response.function_call_arguments.done",
    "response.incomplete", "step.start", "step.delta", "interaction.completed", "content-delta",
    "tool-call-start", "tool-call-delta", "message-end", "stop", "length", "SAFETY", "$.a[0].b",
    "$.a['x']", "rate_limit_error", "e30=", "5", "�",
]
# fmt: on
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**63, -(2**70), 1.5, float("nan"), float("inf")])
    | st.sampled_from(WORDS)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=20,
)
PAYLOAD = VALUE.map(lambda value: json.dumps(value).encode())

ARG = {"jsonPath": "$.a", "stringValue": "xxxx", "willContinue": True}
PART_OF_A_CALL = sse(gemini({"functionCall": {"partialArgs": [ARG], "willContinue": True}}))
PART_OF_JSON = sse(delta(0, partial_json="[1,"))


def test_every_dialect_is_attacked():
    """Also one that is new."""
    assert dialect_names() == DIALECTS


@settings(deadline=None)
@given(st.sampled_from(DIALECTS), st.lists(PAYLOAD, max_size=6), st.integers(1, 60), st.booleans())
def test_odd_values_in_real_fields(dialect: str, payloads: list[bytes], size: int, skip: bool):
    """Any JSON in the place of what was expected; the cuts do not matter."""
    body = framed(dialect, payloads)
    whole = examine(dialect, body, len(body) or 1, skip=skip)
    if dialect != "unknown":
        assert meaning(examine(dialect, body, size, skip=skip)) == meaning(whole)


@settings(deadline=None)
@given(st.data())
def test_damaged_streams(data: st.DataObject):
    """Pieces of real streams, spliced, repeated, cut and with other bytes in between."""
    dialect = data.draw(st.sampled_from(DIALECTS))
    body = b""
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(BODIES[dialect]))
        start = data.draw(st.integers(0, len(part)))
        end = data.draw(st.integers(start, len(part)))
        body += data.draw(st.sampled_from([part, part[:end], part[start:], part[start:end]]))
        body += data.draw(st.binary(max_size=3))
    whole = examine(dialect, body, max(1, len(body)))
    if dialect != "unknown":
        size = data.draw(st.integers(1, 100))
        assert meaning(examine(dialect, body, size)) == meaning(whole)


@settings(deadline=None)
@given(st.sampled_from(DIALECTS), st.binary(max_size=200), st.integers(1, 20))
def test_any_bytes(dialect: str, body: bytes, size: int):
    """Noise is an outcome, too."""
    whole = examine(dialect, body, max(1, len(body)))
    if dialect != "unknown":
        assert meaning(examine(dialect, body, size)) == meaning(whole)


def seconds(dialect: str, body: bytes, size: int) -> float:
    """The best of a few runs."""
    best = float("inf")
    for _ in range(3):
        before = time.process_time()
        accumulator = StreamAccumulator(dialect)
        for at in range(0, len(body), size):
            accumulator.feed(body[at : at + size], float(at))
        accumulator.finish(1e9)
        accumulator.statistics  # noqa: B018  # its cost counts
        best = min(best, time.process_time() - before)
    return best


@pytest.mark.parametrize(
    ("dialect", "unit", "size"),
    [
        ("openai-chat", b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', 50),
        ("openai-chat", b": ping\n", 7),
        ("openai-chat", b"data: x", 7),
        ("openai-chat", b"data:\n", 6),
        ("openai-chat", b"\r", 1),
        ("openai-chat", b'data: {"choices":[{"index":%d,"delta":{"content":"x"}}]}\n\n', 60),
        ("ollama", b"{ ", 1),
        ("bedrock", framed("bedrock", [b'{"delta":{"text":"x"}}']), 5),
        (
            "gemini",
            PART_OF_A_CALL,
            200,
        ),
        (
            "anthropic",
            PART_OF_JSON,
            90,
        ),
    ],
)
def test_time_grows_with_the_stream_and_not_faster(dialect: str, unit: bytes, size: int):
    """Sixteen times as long takes nowhere near 256 times the time."""

    def body(count: int) -> bytes:
        if b"%d" in unit:
            return b"".join(unit % n for n in range(count))
        return unit * count

    assert seconds(dialect, body(8_000), size) < 80 * max(seconds(dialect, body(500), size), 1e-4)
