"""LlamaIndex: LLMs that know the size of what they ask for."""

from collections.abc import Callable
from typing import Any

import pytest
from tests_support.packages import installed

from client_sdk import Limiter, SyncLimiter

Used = Callable[..., tuple[int, int]]
TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}


def llm(provider: str, ours: Any) -> Any:
    # Its own tokenizer would be fetched, and is not needed.
    installed("llama_index.core").set_global_tokenizer(str.split)
    openai = installed("llama_index.llms.openai")
    callbacks = installed("llama_index.core.callbacks")
    return openai.OpenAI(
        model="gpt-4o",
        api_base=f"{provider}/openai/v1",
        api_key="k",
        default_headers=FIVE,
        max_retries=0,
        rate_limiter=ours,
        callback_manager=callbacks.CallbackManager([ours]),
    )


def said(text: str) -> list[Any]:
    types = installed("llama_index.core.llms")
    return [types.ChatMessage(role="user", content=text)]


async def test_async(url: str, provider: str, used: Used):
    """Chat, whole; a completion; and a stream, whose usage nobody tells."""
    installed("llama_index.core.rate_limiter")
    from client_sdk.adapters.llama_index import LimiterForLlamaIndex

    async with Limiter(url) as limiter:
        ours = LimiterForLlamaIndex(limiter, resource="p/m")
        model = llm(provider, ours)
        answer = await model.achat(said("How high is the water?"))
        assert answer.message.content == TEXT
        answer = await model.acomplete("How high is the water?")
        assert answer.text == TEXT
        stream = await model.astream_chat(said("How high is the water?"))
        assert "".join([piece.delta or "" async for piece in stream]) == TEXT
    tokens, slots = used()
    assert slots == 0
    assert tokens >= 50


def test_sync(url: str, provider: str, used: Used):
    """The blocking methods."""
    installed("llama_index.core.rate_limiter")
    from client_sdk.adapters.llama_index import LimiterForLlamaIndex

    with SyncLimiter(url) as limiter:
        model = llm(provider, LimiterForLlamaIndex(limiter, resource="p/m"))
        assert model.chat(said("How high is the water?")).message.content == TEXT
        assert used() == (25, 0)


async def test_failures_settle(url: str, provider: str, used: Used):
    """The provider's error passes, and its tokens go back."""
    installed("llama_index.core.rate_limiter")
    openai = installed("openai")
    from client_sdk.adapters.llama_index import LimiterForLlamaIndex

    async with Limiter(url) as limiter:
        model = llm(provider, LimiterForLlamaIndex(limiter, resource="p/m"))
        fault = {"x-sim-fault": "rate-limit"}
        with pytest.raises(openai.RateLimitError):
            await model.achat(said("How high?"), extra_headers=fault)
    assert used() == (0, 0)
