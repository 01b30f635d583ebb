"""Anthropic's middleware: per attempt, and a refusal is our own error."""

from collections.abc import Callable

import pytest
from tests_support.packages import installed

from client_sdk import Limiter, RateLimited, SyncLimiter

Used = Callable[..., tuple[int, int]]
TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}
ASK = [{"role": "user", "content": "How high is the water?"}]
COMMON = {"model": "m", "max_tokens": 100, "messages": ASK, "extra_headers": FIVE}


async def test_async(url: str, provider: str, used: Used):
    """Whole and streamed."""
    anthropic = installed("anthropic")
    from client_sdk.adapters.anthropic import LimiterMiddleware

    async with Limiter(url) as limiter:
        sdk = anthropic.AsyncAnthropic(
            base_url=f"{provider}/anthropic",
            api_key="k",
            middleware=[LimiterMiddleware(limiter, pool="p")],
        )
        async with sdk:
            whole = await sdk.messages.create(**COMMON)
            assert whole.content[0].text == TEXT
            assert used() == (25, 0)
            async with sdk.messages.stream(**COMMON) as stream:
                final = await stream.get_final_message()
            assert final.content[0].text == TEXT
            assert used() == (50, 0)


def test_sync(url: str, provider: str, used: Used):
    """The blocking client."""
    anthropic = installed("anthropic")
    from client_sdk.adapters.anthropic import LimiterMiddleware

    with (
        SyncLimiter(url) as limiter,
        anthropic.Anthropic(
            base_url=f"{provider}/anthropic",
            api_key="k",
            middleware=[LimiterMiddleware(limiter, pool="p")],
        ) as sdk,
        sdk.messages.stream(**COMMON) as stream,
    ):
        assert stream.get_final_text() == TEXT
    assert used() == (25, 0)


async def test_errors(url: str, provider: str, used: Used):
    """The provider's are the SDK's, ours are ours."""
    anthropic = installed("anthropic")
    from client_sdk.adapters.anthropic import LimiterMiddleware

    async with Limiter(url) as limiter:
        sdk = anthropic.AsyncAnthropic(
            base_url=f"{provider}/anthropic",
            api_key="k",
            max_retries=0,
            middleware=[
                LimiterMiddleware(
                    limiter, resource=lambda r: "p/spent-3" if b"once" in r.content else "p/m"
                )
            ],
        )
        fault = {"x-sim-fault": "overloaded"}
        async with sdk:
            with pytest.raises(anthropic.APIStatusError) as caught:
                await sdk.messages.create(**COMMON | {"extra_headers": fault})
            assert caught.value.status_code == 529
            assert used() == (0, 0)
            once = COMMON | {"messages": [{"role": "user", "content": "once"}]}
            await sdk.messages.create(**once)
            with pytest.raises(RateLimited):
                await sdk.messages.create(**once)
