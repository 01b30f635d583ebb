"""Temporal: the interceptor over a real activity environment; no server is needed for it."""

from collections.abc import Callable
from typing import Any

import pytest
from tests_support.packages import installed

from client_sdk import Limiter

Used = Callable[..., tuple[int, int]]


def prepared(limiter: Limiter, wanted: Callable[[Any], dict[str, Any] | None]) -> Any:
    """An intercepted activity, and how to call it."""
    worker = installed("temporalio.worker")
    from client_sdk.adapters.temporal import LimiterInterceptor, current_lease

    class Last(worker.ActivityInboundInterceptor):  # type: ignore[misc]  # mypy does not see it
        def __init__(self) -> None:
            """The end of the chain."""

        async def execute_activity(self, input: Any) -> Any:  # noqa: A002  # Temporal's name
            return await input.fn(*input.args)

    async def activity(text: str) -> str:
        lease = current_lease()
        if lease is not None:
            lease.used(output_tokens=7)
        return text.upper()

    chain = LimiterInterceptor(limiter, wanted).intercept_activity(Last())
    order = worker.ExecuteActivityInput(fn=activity, args=["a"], executor=None, headers={})
    return chain.execute_activity, order


async def test_an_activity_runs_under_a_lease(url: str, used: Used):
    """It tells what was used; an activity that wants nothing runs without."""
    testing = installed("temporalio.testing")
    async with Limiter(url) as limiter:
        run, order = prepared(limiter, lambda _input: {"resource": "p/m", "tokens": 100})
        assert await testing.ActivityEnvironment().run(run, order) == "A"
        run, order = prepared(limiter, lambda _input: None)
        assert await testing.ActivityEnvironment().run(run, order) == "A"
    assert used() == (7, 0)


async def test_a_refusal_asks_for_the_right_delay(url: str):
    """The server retries when there is room; what never fits is not retried."""
    exceptions = installed("temporalio.exceptions")
    async with Limiter(url) as limiter:
        lease = await limiter.acquire("p/spent-t", tokens=1)
        await lease.settle()
        run, order = prepared(limiter, lambda _input: {"resource": "p/spent-t", "tokens": 1})
        with pytest.raises(exceptions.ApplicationError) as caught:
            await run(order)
        assert caught.value.next_retry_delay.total_seconds() > 3600
        assert (caught.value.type, caught.value.non_retryable) == ("RateLimited", False)
        run, order = prepared(limiter, lambda _input: {"resource": "p/m", "tokens": 10**9})
        with pytest.raises(exceptions.ApplicationError) as caught:
            await run(order)
        assert caught.value.non_retryable
