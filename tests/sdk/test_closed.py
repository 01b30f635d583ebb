"""A limiter that was closed calls nobody, whether it has ever called or not."""

import asyncio
import gc

import pytest

from client_sdk import Limiter, LimiterClosed, LimiterOptions, SyncLimiter

NO_CHANNEL = LimiterOptions(channel="off")
EITHER_WAY = pytest.mark.parametrize("channel", ["only", "off"])


@pytest.mark.parametrize("calls_before", [0, 1])
async def test_a_closed_limiter_calls_nobody(url: str, calls_before: int):
    """It says so at once; it does not open another connection."""
    limiter = Limiter(url, options=NO_CHANNEL)
    for _ in range(calls_before):
        await limiter.check("p/m", tokens=1)
    await limiter.aclose()
    with pytest.raises(LimiterClosed, match="closed"):
        await limiter.check("p/m", tokens=1)


@pytest.mark.parametrize("calls_before", [0, 1])
def test_a_closed_limiter_of_threads_calls_nobody(url: str, calls_before: int):
    """The same."""
    limiter = SyncLimiter(url, options=NO_CHANNEL)
    for _ in range(calls_before):
        limiter.check("p/m", tokens=1)
    limiter.close()
    with pytest.raises(LimiterClosed, match="closed"):
        limiter.check("p/m", tokens=1)


@EITHER_WAY
async def test_a_lease_that_outlives_its_limiter_hides_nothing(
    url: str, channel: str, caplog: pytest.LogCaptureFixture
):
    """What went wrong inside is raised; that nobody settles is told in the log."""
    limiter = Limiter(url, options=LimiterOptions(channel=channel))

    async def fail() -> None:
        async with limiter.acquire("p/m", tokens=1):
            await limiter.aclose()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert "lease of p/m was not settled: the limiter is closed" in caplog.text


@EITHER_WAY
def test_a_lease_of_threads_that_outlives_its_limiter_hides_nothing(
    url: str, channel: str, caplog: pytest.LogCaptureFixture
):
    """The same."""
    limiter = SyncLimiter(url, options=LimiterOptions(channel=channel))

    def fail() -> None:
        with limiter.acquire("p/m", tokens=1):
            limiter.close()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "lease of p/m was not settled: the limiter is closed" in caplog.text


@EITHER_WAY
async def test_who_is_cancelled_after_the_limiter_was_closed_is_cancelled(url: str, channel: str):
    """In the middle of a call, and of its settle; nothing is left to complain of."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    limiter, inside = Limiter(url, options=LimiterOptions(channel=channel)), asyncio.Event()

    async def work() -> None:
        async with limiter.acquire("p/m", tokens=1):
            inside.set()
            await asyncio.get_running_loop().create_future()

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await inside.wait()
    closing = asyncio.create_task(limiter.aclose())
    for _ in range(2):
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    await closing
    assert {type(each) for each in ended} == {asyncio.CancelledError}
    del tasks, ended
    gc.collect()
    assert complaints == []
