"""A limiter that was closed calls nobody, whether it has ever called or not."""

import pytest

from client_sdk import Limiter, LimiterOptions, SyncLimiter

NO_CHANNEL = LimiterOptions(channel="off")


@pytest.mark.parametrize("calls_before", [0, 1])
async def test_a_closed_limiter_calls_nobody(url: str, calls_before: int):
    """It says so at once; it does not open another connection."""
    limiter = Limiter(url, options=NO_CHANNEL)
    for _ in range(calls_before):
        await limiter.check("p/m", tokens=1)
    await limiter.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await limiter.check("p/m", tokens=1)


@pytest.mark.parametrize("calls_before", [0, 1])
def test_a_closed_limiter_of_threads_calls_nobody(url: str, calls_before: int):
    """The same."""
    limiter = SyncLimiter(url, options=NO_CHANNEL)
    for _ in range(calls_before):
        limiter.check("p/m", tokens=1)
    limiter.close()
    with pytest.raises(RuntimeError, match="closed"):
        limiter.check("p/m", tokens=1)
