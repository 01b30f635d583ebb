"""Whose host, headers, body or model this is."""

from typing import Any

import pytest

from limiter_wire.providers import PROFILES, detect


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/deployments/x", "azure"),
        ("https://mine.services.ai.azure.com/anthropic", "azure"),
        ("https://api.anthropic.com", "anthropic"),
        ("https://generativelanguage.googleapis.com/v1beta", "google"),
        ("https://us-central1-aiplatform.googleapis.com", "vertex"),
        ("https://bedrock-runtime.eu-central-1.amazonaws.com", "bedrock"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.cerebras.ai/v1", "cerebras"),
        ("https://api.x.ai/v1", "xai"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.cohere.com/v2", "cohere"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("http://localhost:11434/api/chat", "ollama"),
        ("API.OpenAI.com", "openai"),
        ("https://api.openai.com.evil.example/v1", None),
        ("https://evil.example/api.openai.com", None),
        ("https://notapi.openai.com.example", None),
        ("https://xopenai.azure.com", None),
        ("http://localhost:8000/v1", None),
        ("http://[::1", None),
        ("", None),
    ],
)
def test_a_host_is_compared_whole(url: str, provider: str | None):
    """What contains a provider's name is anybody's."""
    found = detect(url=url)
    assert (found and found.provider) == provider


@pytest.mark.parametrize(
    ("headers", "provider"),
    [
        ({"OpenAI-Processing-Ms": "3"}, "openai"),
        ({"openai-processing-ms": "3", "apim-request-id": "x"}, "azure"),
        ({"anthropic-ratelimit-requests-limit": "5"}, "anthropic"),
        ({"x-ratelimitbysize-limit-minute": "5"}, "mistral"),
        ({"x-ratelimit-limit-requests-day": "5"}, "cerebras"),
        ({"x-ratelimit-limit-tokens-prompt": "5"}, "fireworks"),
        ({"X-Generation-Id": "5"}, "openrouter"),
        ({"x-amzn-RequestId": "5"}, "bedrock"),
        ({"x-groq-region": "us"}, "groq"),
        ({"x-ratelimit-limit-requests": "5"}, None),
        ({}, None),
    ],
)
def test_headers_tell_behind_a_proxy(headers: dict[str, str], provider: str | None):
    """Azure forwards OpenAI's headers, so it is asked first."""
    found = detect(url="https://proxy.example", headers=headers)
    assert (found and found.provider) == provider


@pytest.mark.parametrize(
    ("body", "provider"),
    [
        ({"x_groq": {"usage": {}}}, "groq"),
        ({"object": "error", "message": "x", "code": "1300"}, "mistral"),
        ({"object": "error", "message": "x", "code": 400}, "vllm"),
        ([{"error": {"status": "RESOURCE_EXHAUSTED"}}], "google"),
        (b'{"type":"error","error":{"type":"overloaded_error"}}', "anthropic"),
        ({"error": "model not found"}, "ollama"),
        ({"error": {"code": 429, "metadata": {"provider_name": "x"}}}, "openrouter"),
        ({"error": {"message": "x"}}, None),
        ("<html>", None),
    ],
)
def test_a_body_tells_where_headers_do_not(body: Any, provider: str | None):
    """By shapes that only one provider uses."""
    found = detect(body=body)
    assert (found and found.provider) == provider


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpt-4o", "openai"),
        ("o3-mini", "openai"),
        ("claude-opus-5", "anthropic"),
        ("gemini-3.5-flash", "google"),
        ("us.anthropic.claude-sonnet-4-5-v1:0", "bedrock"),
        ("grok-4.6", "xai"),
        ("mistral-large-latest", "mistral"),
        ("deepseek-chat", "deepseek"),
        ("command-a", "cohere"),
        ("accounts/fireworks/models/x", "fireworks"),
        ("omni", None),
        ("my-model", None),
    ],
)
def test_a_model_name_is_the_last_resort(model: str, provider: str | None):
    """And weak: many serve other people's models."""
    found = detect(model=model)
    assert (found and found.provider) == provider
    assert found is None or found.by == "model"


def test_the_surest_evidence_decides():
    """Host before headers before body before model."""
    seen: dict[str, Any] = {
        "url": "https://api.groq.com",
        "headers": {"x-generation-id": "1"},
        "body": {"error": "x"},
        "model": "gpt-4o",
    }
    for name, provider in zip(seen, ("groq", "openrouter", "ollama", "openai"), strict=True):
        rest = dict(list(seen.items())[list(seen).index(name) :])
        found = detect(**rest)
        assert found is not None
        assert found.provider == provider


def test_no_two_profiles_claim_one_host():
    """Patterns of hosts do not overlap."""
    hosts = [host for profile in PROFILES.values() for host in profile.hosts]
    assert len(hosts) == len(set(hosts))
