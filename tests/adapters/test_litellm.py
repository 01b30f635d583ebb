"""LiteLLM: a lease for each call of a deployment."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests_support.packages import installed
from tests_support.waiting import until

from client_sdk import Limiter

# LiteLLM tells of the end of a stream from a task that stays in the loop of its first call.
pytestmark = pytest.mark.asyncio(loop_scope="module")

Used = Callable[..., tuple[int, int]]
TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}
ASK = [{"role": "user", "content": "How high is the water?"}]


@pytest.fixture
def litellm() -> Iterator[Any]:
    """The package, without callbacks of other tests."""
    package = installed("litellm")
    # It keeps one callback of each class, and would go on with the first one.
    package.logging_callback_manager._reset_all_callbacks()
    yield package
    package.logging_callback_manager._reset_all_callbacks()


async def settled(used: Used, wanted: tuple[int, int]) -> None:
    """LiteLLM tells its callbacks of an end in the background."""

    async def done() -> bool:
        return await asyncio.to_thread(used) == wanted

    await until(done, f"not settled: {used()} instead of {wanted}")


async def test_whole_and_streamed(url: str, provider: str, used: Used, litellm: Any):
    """Usage is what was used."""
    from client_sdk.adapters.litellm import LimiterForLiteLLM

    async with Limiter(url) as limiter:
        litellm.callbacks = [LimiterForLiteLLM(limiter, pool="p")]
        common = {
            "model": "openai/m",
            "messages": ASK,
            "api_base": f"{provider}/openai/v1",
            "api_key": "k",
            "extra_headers": FIVE,
        }
        answer = await litellm.acompletion(**common)
        assert answer.choices[0].message.content == TEXT
        await settled(used, (25, 0))
        stream = await litellm.acompletion(
            **common, stream=True, stream_options={"include_usage": True}
        )
        text = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(text) == TEXT
        await settled(used, (50, 0))


async def test_failures_settle(url: str, provider: str, used: Used, litellm: Any):
    """The provider's error is LiteLLM's, and its tokens go back."""
    from client_sdk.adapters.litellm import LimiterForLiteLLM

    async with Limiter(url) as limiter:
        litellm.callbacks = [LimiterForLiteLLM(limiter, pool="p")]
        with pytest.raises(litellm.RateLimitError):
            await litellm.acompletion(
                model="openai/m",
                messages=ASK,
                api_base=f"{provider}/openai/v1",
                api_key="k",
                max_retries=0,
                num_retries=0,
                extra_headers={"x-sim-fault": "rate-limit"},
            )
        await settled(used, (0, 0))


async def test_a_refusal_is_litellms_own_error(url: str, provider: str, litellm: Any):
    """With the time to wait, for a Router to look at."""
    from client_sdk.adapters.litellm import LimiterForLiteLLM

    async with Limiter(url) as limiter:
        litellm.callbacks = [LimiterForLiteLLM(limiter, resource="p/spent-ll")]
        common = {
            "model": "openai/m",
            "messages": ASK,
            "api_base": f"{provider}/openai/v1",
            "api_key": "k",
            "num_retries": 0,
            "extra_headers": FIVE,
        }
        await litellm.acompletion(**common)
        with pytest.raises(litellm.RateLimitError, match="sluicegate"):
            await litellm.acompletion(**common)


async def test_behind_a_router(url: str, provider: str, used: Used, litellm: Any):
    """A fallback is a call of its own."""
    from client_sdk.adapters.litellm import LimiterForLiteLLM

    def deployment(name: str, **more: Any) -> dict[str, Any]:
        base = {"model": f"openai/{name}", "api_base": f"{provider}/openai/v1", "api_key": "k"}
        return {"model_name": name, "litellm_params": base | more}

    async with Limiter(url) as limiter:
        ours = LimiterForLiteLLM(limiter, pool="p")
        litellm.callbacks = [ours]
        router = litellm.Router(
            model_list=[
                deployment("down", extra_headers={"x-sim-fault": "overloaded"}, max_retries=0),
                deployment("m", extra_headers=FIVE),
            ],
            fallbacks=[{"down": ["m"]}],
            num_retries=0,
        )
        answer = await router.acompletion(model="down", messages=ASK)
        assert answer.choices[0].message.content == TEXT
        await settled(used, (25, 0))

        async def idle() -> bool:
            return await asyncio.to_thread(used, "down") == (0, 0)

        await until(idle, "the first deployment's lease was not settled")
        assert not ours._leases
