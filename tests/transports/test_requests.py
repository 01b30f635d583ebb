"""Reading an SDK's request: what it asks of which model, in bounded work, never failing."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.transports import sampling
from client_sdk.transports.requests import Call, Ratios, attempt_of, learned, read_call
from limiter_wire import Provenance, Usage

ASK = [{"role": "user", "content": "How high is the water at the gate?"}]


def read(url: str, body: Any, headers: dict[str, str] | None = None) -> Call | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_call("POST", url, headers or {}, raw, {})


@pytest.mark.parametrize(
    ("url", "body", "found"),
    [
        (
            "https://api.openai.com/v1/chat/completions",
            {"model": "gpt-4o", "messages": ASK, "max_tokens": 9, "n": 2, "stream": True},
            ("openai", "gpt-4o", "openai-chat", True, 18),
        ),
        (
            "https://api.openai.com/v1/responses",
            {"model": "gpt-5", "input": "Hi", "max_output_tokens": 7},
            ("openai", "gpt-5", "openai-responses", False, 7),
        ),
        (
            "https://me.openai.azure.com/openai/deployments/mine/chat/completions?api-version=1",
            {"model": "gpt-4o", "messages": ASK},
            ("azure", "mine", "openai-chat", False, None),
        ),
        (
            "https://api.anthropic.com/v1/messages",
            {"model": "claude-x", "messages": ASK, "max_tokens": 100},
            ("anthropic", "claude-x", "anthropic", False, 100),
        ),
        (
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-x:streamGenerateContent",
            {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"maxOutputTokens": 5}},
            ("google", "gemini-x", "gemini", True, 5),
        ),
        (
            "https://api.mistral.ai/v1/chat/completions",
            {"model": "mistral-x", "messages": ASK},
            ("mistral", "mistral-x", "mistral", False, None),
        ),
        (
            "https://api.groq.com/openai/v1/chat/completions",
            {"model": "llama", "messages": ASK},
            ("groq", "llama", "openai-chat", False, None),
        ),
        (
            "https://openrouter.ai/api/v1/chat/completions",
            {"model": "anthropic/claude-x", "messages": ASK},
            ("openrouter", "anthropic/claude-x", "openai-chat", False, None),
        ),
        (
            "https://api.cohere.com/v2/chat",
            {"model": "command-x", "messages": ASK},
            ("cohere", "command-x", "cohere", False, None),
        ),
        (
            "http://localhost:11434/api/chat",
            {"model": "llama", "messages": ASK, "options": {"num_predict": 3}},
            ("ollama", "llama", "ollama", True, 3),
        ),
        (
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/anthropic.claude%3A0/converse",
            {"messages": [], "inferenceConfig": {"maxTokens": 4}},
            ("bedrock", "anthropic.claude:0", "bedrock", False, 4),
        ),
        (
            "https://api.openai.com/v1/embeddings",
            {"model": "text-embedding-3-small", "input": ["a", "b"]},
            ("openai", "text-embedding-3-small", "unknown", False, 0),
        ),
        (
            "http://gateway.internal/v1/messages",
            {"model": "m", "messages": ASK},
            ("anthropic", "m", "anthropic", False, None),
        ),
        (
            "http://gateway.internal/v1/chat/completions",
            {"model": "gpt-4o", "messages": ASK},
            ("openai", "gpt-4o", "openai-chat", False, None),
        ),
        (
            "http://gateway.internal/v1/chat/completions",
            {"model": "ours", "messages": ASK},
            (None, "ours", "openai-chat", False, None),
        ),
    ],
)
def test_calls_of_models(url: str, body: Any, found: tuple[object, ...]):
    """Provider, model, dialect, whether it streams, and the most output."""
    call = read(url, body)
    assert call is not None
    assert found == (
        call.provider,
        call.model,
        call.dialect,
        call.streaming,
        call.max_output_tokens,
    )
    assert call.input_tokens >= 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/files"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/messages/batches"),
        ("POST", "/v1/responses/input_tokens"),
        ("POST", "/v1/threads/t/messages"),
        ("POST", "/v1beta/models/gemini-x:countTokens"),
        ("POST", "/v1/moderations"),
        ("POST", "/api/pull"),
    ],
)
def test_what_calls_no_model(method: str, path: str):
    """It uses no budget."""
    body = json.dumps({"model": "m", "messages": ASK}).encode()
    assert read_call(method, f"https://api.openai.com{path}", {}, body, {}) is None


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "model",
                        "messages",
                        "content",
                        "input",
                        "tools",
                        "max_tokens",
                        "n",
                        "stream",
                        "system",
                    ]
                ),
                x,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_body_breaks_a_request(body: Any):
    """Whatever it holds, it is read or left alone."""
    call = read("https://api.openai.com/v1/chat/completions", body)
    assert call is None or call.input_tokens >= 1


def test_the_number_of_the_attempt():
    """By the SDK's count of retries, else by how often the same request was sent."""
    assert attempt_of({}) == 1
    assert attempt_of({"x-stainless-retry-count": "2"}) == 3
    assert attempt_of({"x-stainless-retry-count": "many"}) == 1
    assert attempt_of({}, 4) == 5
    assert attempt_of({"x-stainless-retry-count": "9999"}) == 1000


def test_long_requests_are_sampled():
    """A megabyte is judged by pieces of it, and not far off."""
    text = "The water rises behind the gate, and 12 men wait. " * 10
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}] * 40}
    whole, long = read("https://api.openai.com/v1/chat/completions", body), None
    body["messages"] *= 50
    long = read("https://api.openai.com/v1/chat/completions", body)
    assert whole is not None
    assert long is not None
    assert long.input_tokens / whole.input_tokens == pytest.approx(50, rel=0.1)


def test_the_work_has_a_bound():
    """However many texts there are, so many characters are looked at."""
    seen: list[int] = []

    def spy(text: str, family: str) -> float:
        seen.append(len(text))
        return len(text) / 4

    original, sampling.estimate_text = sampling.estimate_text, spy  # type: ignore[assignment]  # listens in
    try:
        body = {"model": "m", "messages": [{"content": "x" * 300}] * 20_000}
        assert read("https://api.openai.com/v1/chat/completions", body) is not None
    finally:
        sampling.estimate_text = original
    assert sum(seen) < 3 * sampling.WEIGHED


def test_estimates_learn_from_the_providers_count():
    """The next estimate for the model is nearer."""
    ratios: Ratios = {}
    body = json.dumps({"model": "m", "messages": ASK}).encode()

    def ask() -> Call:
        call = read_call("POST", "http://x/v1/chat/completions", {}, body, ratios)
        assert call is not None
        return call

    first = ask()
    learned(ratios, first, Usage(input_tokens=10 * first.input_tokens))
    assert ask().input_tokens > 5 * first.input_tokens
    learned(ratios, first, Usage(input_tokens=1, provenance=Provenance.PARTIAL))
    assert ask().input_tokens > 5 * first.input_tokens
