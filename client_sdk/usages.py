"""The usage in what a provider's client returns: an object of its own, or JSON. Pure.

No client is imported: figures are found by the names that providers give them.
"""

from collections.abc import Mapping
from typing import Any

from limiter_wire import MAX_AMOUNT, Usage

_HOLDERS = ("usage", "usage_metadata", "usageMetadata")
_INPUT = (
    "input_tokens",
    "prompt_tokens",
    "prompt_token_count",
    "promptTokenCount",
    "inputTokens",
    "prompt_eval_count",
)
_OUTPUT = (
    "output_tokens",
    "completion_tokens",
    "candidates_token_count",
    "candidatesTokenCount",
    "outputTokens",
    "eval_count",
)
_READ = (
    "cache_read_input_tokens",
    "cacheReadInputTokens",
    "cached_content_token_count",
    "cachedContentTokenCount",
    "prompt_cache_hit_tokens",
    "cached_tokens",
)
_WRITTEN = ("cache_creation_input_tokens", "cacheWriteInputTokens")
_REASONING = ("reasoning_tokens", "thoughts_token_count", "thoughtsTokenCount")
_OF_INPUT = ("prompt_tokens_details", "input_tokens_details")
_OF_OUTPUT = ("completion_tokens_details", "output_tokens_details")
# Parts that these providers count beside the input or the output, not within it.
_BESIDE_INPUT = ("cache_read_input_tokens", "cacheReadInputTokens", *_WRITTEN)
_BESIDE_OUTPUT = ("thoughts_token_count", "thoughtsTokenCount")


def usage_of(result: object) -> Usage | None:
    """What *result* says about tokens; None when it says nothing that is understood.

    Results of OpenAI (chat, responses, embeddings) and of what is compatible with it, of
    Anthropic, Gemini, Mistral, Cohere, Bedrock (`converse`) and Ollama are.
    """
    if isinstance(result, str | bytes | int | float | list | tuple) or result is None:
        return None
    report = next((found for name in _HOLDERS if (found := _get(result, name)) is not None), result)
    counted = _get(report, "tokens")
    report = report if counted is None else counted  # Cohere
    given, said = _count(report, _INPUT), _count(report, _OUTPUT)
    if given is None and said is None:
        return None
    read = _count(report, _READ) or _count(_part(report, _OF_INPUT), _READ) or 0
    written = _count(report, _WRITTEN) or 0
    reasoning = _count(report, _REASONING) or _count(_part(report, _OF_OUTPUT), _REASONING) or 0
    beside = sum(_count(report, (name,)) or 0 for name in _BESIDE_INPUT)
    return Usage(
        input_tokens=(given or 0) + beside,
        output_tokens=(said or 0) + (_count(report, _BESIDE_OUTPUT) or 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


def refuse_stream(result: object) -> None:
    """Raise TypeError when *result* is still to come: a stream, or an iterator."""
    if hasattr(result, "__aiter__") or hasattr(result, "__next__"):
        raise TypeError(
            "the result is a stream, which is not over: take a lease with `acquire`, "
            "and settle it at the stream's end"
        )


def _part(report: object, names: tuple[str, ...]) -> object:
    return next((part for name in names if (part := _get(report, name)) is not None), None)


def _count(report: object, names: tuple[str, ...]) -> int | None:
    """The first of *names* that is a figure of tokens."""
    for name in names:
        value = _get(report, name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_AMOUNT:
            return value
    return None


def _get(thing: object, name: str) -> Any:  # foreign attributes may be anything
    """An attribute or an item; None where there is neither."""
    if isinstance(thing, Mapping):
        return thing.get(name)
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001  # whatever a foreign property raises, it says nothing
        return None
