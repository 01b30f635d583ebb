"""Answers in one body: usage by whatever names, errors, and what is none of ours to judge."""

import json
from typing import Any

import pytest

from client_sdk.streaming import StreamAccumulator, StreamOutcome
from client_sdk.transports.whole import LARGEST, Whole


def read(body: Any, *, cut: int = 10_000_000, end: bool = True) -> StreamAccumulator:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    stream = StreamAccumulator(Whole)
    for at in range(0, len(data), cut):
        stream.feed(data[at : at + cut], 0.0)
    if end:
        stream.finish(1.0)
    else:
        stream.interrupt(1.0)
    return stream


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"usage": {"prompt_tokens": 30, "completion_tokens": 20}}, (30, 20, 0)),
        ({"usage": {"input_tokens": 30, "output_tokens": 20}}, (30, 20, 0)),
        (
            {"usage": {"input_tokens": 10, "cache_read_input_tokens": 20, "output_tokens": 2}},
            (30, 2, 20),
        ),
        (
            {"usage": {"input_tokens": 30, "input_tokens_details": {"cached_tokens": 20}}},
            (30, 0, 20),
        ),
        ({"usageMetadata": {"promptTokenCount": 30, "thoughtsTokenCount": 5}}, (30, 5, 0)),
        ({"usage": {"tokens": {"input_tokens": 30, "output_tokens": 20}}}, (30, 20, 0)),
        ({"usage": {"inputTokens": 30, "outputTokens": 20, "totalTokens": 50}}, (30, 20, 0)),
        ({"prompt_eval_count": 30, "eval_count": 20, "done": True}, (30, 20, 0)),
        ([{"candidates": []}, {"usageMetadata": {"promptTokenCount": 30}}], (30, 0, 0)),
    ],
)
@pytest.mark.parametrize("cut", [3, 10_000])
def test_usage(body: Any, tokens: tuple[int, int, int], cut: int):
    """OpenAI's two forms, Anthropic's, Gemini's, Cohere's, Bedrock's, Ollama's, and a list."""
    stream = read(body, cut=cut)
    assert stream.outcome is StreamOutcome.COMPLETED
    usage = stream.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == tokens


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, StreamOutcome.PROVIDER_ERROR),
        ({"object": "error", "message": "m"}, StreamOutcome.PROVIDER_ERROR),
        ({"error": None, "usage": {"input_tokens": 1}}, StreamOutcome.COMPLETED),
        ({"choices": [{"finish_reason": "content_filter"}]}, StreamOutcome.CONTENT_FILTER),
        ({"choices": [{"finish_reason": "length"}]}, StreamOutcome.COMPLETED),
        (b"<html>busy</html>", StreamOutcome.PROTOCOL_ERROR),
        (b"RIFF....WAVE", StreamOutcome.COMPLETED),
        (b"", StreamOutcome.EMPTY),
        (b'{"choices": [', StreamOutcome.TRUNCATED),
    ],
)
def test_outcomes(body: Any, outcome: StreamOutcome):
    """Errors, filters, pages, media, nothing, and half of something."""
    assert read(body).outcome is outcome


def test_a_lost_connection_is_no_bad_answer():
    """What was cut is interrupted."""
    assert read(b'{"choices": [', end=False).outcome is StreamOutcome.INTERRUPTED


def test_of_a_very_long_body_the_end_is_kept():
    """Embeddings: megabytes of numbers, and usage behind them."""
    numbers = b"0.123456," * (LARGEST // 8)
    details = b'"usage": {"prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 4}}'
    stream = read(b'{"data": [' + numbers + b"0], " + details + b"}", cut=1 << 16)
    assert stream.outcome is StreamOutcome.COMPLETED
    assert (stream.usage.input_tokens, stream.usage.cache_read_tokens) == (30, 4)
