"""LangChain: chat models that know the size of what they ask for."""

from collections.abc import Callable
from typing import Any

import pytest
from tests_support.packages import installed

from client_sdk import Limiter, SyncLimiter, WaitTimeout, WaitTooLong

Used = Callable[..., tuple[int, int]]
TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}


def model(provider: str, ours: Any, **options: Any) -> Any:
    installed("langchain_core")
    openai, openai_sdk = installed("langchain_openai"), installed("openai")
    return openai.ChatOpenAI(
        model="m",
        base_url=f"{provider}/openai/v1",
        api_key="k",
        default_headers=FIVE,
        rate_limiter=ours,
        callbacks=[ours],
        stream_usage=True,
        max_retries=0,
        # Its own default client outlives the loop of a test.
        http_async_client=openai_sdk.DefaultAsyncHttpxClient(),
        **options,
    )


async def test_async(url: str, provider: str, used: Used):
    """Whole, streamed and in a batch: usage is what was used, and no slot is held."""
    installed("langchain_core")
    from client_sdk.adapters.langchain import LimiterForLangChain

    async with Limiter(url) as limiter:
        ours = LimiterForLangChain(limiter, resource="p/m")
        chat = model(provider, ours)
        assert (await chat.ainvoke("How high is the water?")).content == TEXT
        pieces = [piece.content async for piece in chat.astream("How high is the water?")]
        assert "".join(pieces) == TEXT
        answers = await chat.abatch(["one", "two", "three"])
        assert [answer.content for answer in answers] == [TEXT] * 3
        messages = installed("langchain_core.messages")
        result = await chat.agenerate(
            [[messages.HumanMessage("four")], [messages.HumanMessage("five")]]
        )
        assert len(result.generations) == 2
    tokens, slots = used()
    assert slots == 0
    # agenerate tells of both answers, and of usage for each.
    assert tokens == 25 * 7


def test_sync(url: str, provider: str, used: Used):
    """The blocking methods."""
    installed("langchain_core")
    from client_sdk.adapters.langchain import LimiterForLangChain

    with SyncLimiter(url) as limiter:
        ours = LimiterForLangChain(limiter, resource="p/m")
        chat = model(provider, ours)
        assert chat.invoke("How high is the water?").content == TEXT
        assert "".join(piece.content for piece in chat.stream("How high?")) == TEXT
    assert used() == (50, 0)


async def test_failures_settle(url: str, provider: str, used: Used):
    """The provider's error is LangChain's, and its tokens go back."""
    installed("langchain_core")
    openai = installed("openai")
    from client_sdk.adapters.langchain import LimiterForLangChain

    async with Limiter(url) as limiter:
        ours = LimiterForLangChain(limiter, resource="p/m")
        chat = model(provider, ours).bind(extra_headers={"x-sim-fault": "rate-limit"})
        with pytest.raises(openai.RateLimitError):
            await chat.ainvoke("How high is the water?")
    assert used() == (0, 0)


async def test_refusals_are_ours(url: str, provider: str):
    """Who may not wait long enough is told by our own error."""
    installed("langchain_core")
    from client_sdk.adapters.langchain import LimiterForLangChain

    async with Limiter(url) as limiter:
        ours = LimiterForLangChain(limiter, resource="p/spent-lc", max_wait=0.5)
        chat = model(provider, ours)
        await chat.ainvoke("How high is the water?")
        with pytest.raises((WaitTooLong, WaitTimeout)):
            await chat.ainvoke("How high is the water?")


async def test_it_says_what_is_missing(url: str, provider: str):
    """Without the callback there is no size; without a limiter of the kind no lease."""
    installed("langchain_core")
    from client_sdk.adapters.langchain import LimiterForLangChain

    async with Limiter(url) as limiter:
        ours = LimiterForLangChain(limiter, resource="p/m")
        with pytest.raises(RuntimeError, match="callbacks"):
            await ours.aacquire()
        with pytest.raises(TypeError, match="SyncLimiter"):
            ours.acquire()
