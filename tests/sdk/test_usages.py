"""What results of providers' clients say about usage, as objects and as JSON."""

from types import SimpleNamespace
from typing import Any

import pytest

from client_sdk.usages import refuse_stream, usage_of
from limiter_wire import Usage


def attributes(value: Any) -> Any:
    """The same as an object of a client."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: attributes(each) for name, each in value.items()})
    return value


CASES: dict[str, tuple[dict[str, Any], Usage]] = {
    "openai chat": (
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 40,
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 24},
            }
        },
        Usage(input_tokens=100, output_tokens=40, cache_read_tokens=64, reasoning_tokens=24),
    ),
    "openai responses": (
        {
            "usage": {
                "input_tokens": 100,
                "output_tokens": 40,
                "input_tokens_details": {"cached_tokens": 64},
                "output_tokens_details": {"reasoning_tokens": 24},
            }
        },
        Usage(input_tokens=100, output_tokens=40, cache_read_tokens=64, reasoning_tokens=24),
    ),
    "embeddings": ({"usage": {"prompt_tokens": 9}}, Usage(input_tokens=9)),
    "anthropic": (
        {
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 50,
                "cache_creation_input_tokens": 30,
                "output_tokens": 7,
            }
        },
        Usage(input_tokens=90, output_tokens=7, cache_read_tokens=50, cache_write_tokens=30),
    ),
    "gemini": (
        {
            "usage_metadata": {
                "prompt_token_count": 100,
                "cached_content_token_count": 60,
                "candidates_token_count": 30,
                "thoughts_token_count": 20,
            }
        },
        Usage(input_tokens=100, output_tokens=50, cache_read_tokens=60, reasoning_tokens=20),
    ),
    "gemini over HTTP": (
        {"usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 30}},
        Usage(input_tokens=100, output_tokens=30),
    ),
    "bedrock": (
        {"usage": {"inputTokens": 10, "outputTokens": 7, "cacheReadInputTokens": 5}},
        Usage(input_tokens=15, output_tokens=7, cache_read_tokens=5),
    ),
    "cohere": (
        {"usage": {"tokens": {"input_tokens": 12.0, "output_tokens": 3.0}}},
        Usage(input_tokens=12, output_tokens=3),
    ),
    "ollama": ({"prompt_eval_count": 5, "eval_count": 6}, Usage(input_tokens=5, output_tokens=6)),
}


@pytest.mark.parametrize("shape", [dict, attributes], ids=["JSON", "objects"])
@pytest.mark.parametrize("name", CASES)
def test_the_usage_of_a_result_is_found(name: str, shape: Any):
    """By the names that the provider gives its figures."""
    result, usage = CASES[name]
    assert usage_of(shape(result)) == usage


class Moody:
    """A result whose properties raise."""

    @property
    def usage(self) -> None:
        """Not now."""
        raise RuntimeError


@pytest.mark.parametrize(
    "result",
    [
        None,
        "text",
        b"bytes",
        7,
        [],
        {},
        object(),
        {"usage": None},
        {"usage": {"prompt_tokens": "many"}},
        {"usage": {"prompt_tokens": -1}},
        {"usage": {"prompt_tokens": True}},
        {"usage": {"prompt_tokens": 10**13}},
        Moody(),
    ],
    ids=lambda result: type(result).__name__,
)
def test_what_says_nothing_is_not_guessed(result: object):
    """Then the reservation stays as it is."""
    assert usage_of(result) is None


def test_a_stream_is_no_result():
    """It is not over, so its budget must not be settled."""
    with pytest.raises(TypeError, match="stream"):
        refuse_stream(iter([1]))
    refuse_stream([1])
