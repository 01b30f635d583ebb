"""pydantic-ai: agents over a limited model."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests_support.packages import installed
from tests_support.waiting import until

from client_sdk import Limiter, RateLimited

Used = Callable[..., tuple[int, int]]
TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}


def chat(provider: str) -> Any:
    openai = installed("openai")
    models = installed("pydantic_ai.models.openai")
    providers = installed("pydantic_ai.providers.openai")
    sdk = openai.AsyncOpenAI(
        base_url=f"{provider}/openai/v1", api_key="k", default_headers=FIVE, max_retries=0
    )
    return models.OpenAIChatModel("m", provider=providers.OpenAIProvider(openai_client=sdk))


async def test_an_agent(url: str, provider: str, used: Used):
    """Whole and streamed."""
    pydantic_ai = installed("pydantic_ai")
    from client_sdk.adapters.pydantic_ai import LimitedModel

    async with Limiter(url) as limiter:
        agent = pydantic_ai.Agent(LimitedModel(chat(provider), limiter, resource="p/m"))
        answer = await agent.run("How high is the water?")
        assert answer.output == TEXT
        assert used() == (25, 0)
        async with agent.run_stream("How high is the water?") as stream:
            assert await stream.get_output() == TEXT
        assert used() == (50, 0)


async def test_a_refusal_is_ours(url: str, provider: str):
    """Before the provider is called."""
    pydantic_ai = installed("pydantic_ai")
    from client_sdk.adapters.pydantic_ai import LimitedModel

    async with Limiter(url) as limiter:
        model = LimitedModel(chat(provider), limiter, resource="p/spent-pa", max_wait=0)
        agent = pydantic_ai.Agent(model)
        await agent.run("How high is the water?")
        with pytest.raises(RateLimited):
            await agent.run("How high is the water?")


async def test_in_place_of_a_concurrency_limit(url: str, provider: str, used: Used):
    """A lease per request, given back on whatever task."""
    pydantic_ai = installed("pydantic_ai")
    concurrency = installed("pydantic_ai.models.concurrency")
    from client_sdk.adapters.pydantic_ai import LimiterForPydanticAI

    async with Limiter(url) as limiter:
        ours = LimiterForPydanticAI(limiter, "p/m", tokens=30)
        agent = pydantic_ai.Agent(concurrency.ConcurrencyLimitedModel(chat(provider), ours))
        await asyncio.gather(*(agent.run("How high is the water?") for _ in range(3)))

        async def idle() -> bool:
            return (await asyncio.to_thread(used))[1] == 0

        await until(idle, "a lease was not given back")
    assert used() == (90, 0)
