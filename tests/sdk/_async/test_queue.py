"""Waiting for budget: progress while it lasts, and an exception for each end without a grant."""

import pytest

from client_sdk import (
    Limiter,
    LimiterOptions,
    Progress,
    QueueFull,
    RateLimited,
    WaitTimeout,
    WaitTooLong,
)

each_way = pytest.mark.parametrize("channel", ["only", "off"])


@each_way
async def test_max_wait_waits_for_a_turn(url: str, channel: str):
    """The lease says how long that was."""
    async with Limiter(url, options=LimiterOptions(channel=channel)) as limiter:
        leases = [await limiter.acquire("p/quick", tokens=1, max_wait=30) for _ in range(4)]
    assert leases[0].granted.waited == 0
    assert all(lease.granted.waited > 0 for lease in leases[1:])


@each_way
async def test_progress_is_told_while_it_waits(url: str, channel: str):
    """Where the request stands and what is predicted; nobody who does not wait is told."""
    seen: list[Progress] = []
    async with Limiter(url, options=LimiterOptions(channel=channel)) as limiter:
        await limiter.acquire("p/quick", tokens=1, max_wait=30, on_wait=seen.append)
        assert seen == []
        await limiter.acquire("p/quick", tokens=1, max_wait=30, on_wait=seen.append)
    first = seen[0]
    assert (first.position, first.depth) == (0, 1)
    assert 0 <= first.waited < 15
    assert 0 < first.predicted_wait <= first.predicted_wait_p90


@each_way
async def test_a_hopeless_wait_is_refused_with_its_forecast(url: str, channel: str):
    """At once, though the caller would have waited for an hour."""
    async with Limiter(url, options=LimiterOptions(channel=channel)) as limiter:
        await limiter.acquire("p/m", tokens=1000)
        with pytest.raises(WaitTooLong) as caught:
            await limiter.acquire("p/m", tokens=1000, max_wait=3600)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 3600
    assert caught.value.retryable
    assert isinstance(caught.value, RateLimited)


@each_way
async def test_a_wait_that_was_in_vain_is_told(url: str, channel: str):
    """With the time that another attempt would have to wait."""
    async with Limiter(url, options=LimiterOptions(channel=channel)) as limiter:
        await limiter.acquire(f"p/slot-{channel}", tokens=1)
        with pytest.raises(WaitTimeout) as caught:
            await limiter.acquire(f"p/slot-{channel}", tokens=1, max_wait=0.2)
    assert caught.value.retry_after is not None
    assert caught.value.retryable


@each_way
async def test_a_queue_that_is_full_is_told(url: str, channel: str):
    """Whoever may not wait either is refused as ever."""
    async with Limiter(url, options=LimiterOptions(channel=channel)) as limiter:
        await limiter.acquire("nobody-waits/m", tokens=1)
        with pytest.raises(QueueFull) as caught:
            await limiter.acquire("nobody-waits/m", tokens=1, max_wait=1)
        assert caught.value.retry_after is not None
        with pytest.raises(RateLimited) as plain:
            await limiter.acquire("nobody-waits/m", tokens=1)
    assert not isinstance(plain.value, QueueFull)
