"""Estimates, learned sizes and usage so far, against a real service."""

import pytest
from tests_support.waiting import until

from client_sdk import Limiter, Usage
from client_sdk.estimate import Estimator
from client_sdk.exact import Counter

WORDS = "How deep is the river at the mill, and who has measured it? "


async def test_a_new_process_begins_calibrated(limiter: Limiter):
    """What a call's estimate and usage taught the service, another estimator adopts."""
    first, second = Estimator(), Estimator()
    guess = first.text(WORDS * 10, "gpt-4o", route="river")
    async with limiter.acquire("p/m", estimate=guess, max_output_tokens=9) as lease:
        assert lease.charged["tokens"] == guess.tokens + 9
        lease.used(input_tokens=round(guess.raw * 1.5))

    async def told() -> bool:
        return await limiter.calibrate(second, "p/m", model="gpt-4o", route="river")

    await until(told, "the estimate did not come back")
    assert second.text(WORDS * 10, "gpt-4o", route="river").tokens == pytest.approx(
        guess.raw * 1.5, abs=1.5
    )
    assert not await limiter.calibrate(second, "p/m", route="another-river")


async def test_exact_counts_teach_nothing_about_estimates(limiter: Limiter):
    """They are no estimates; nor do calls without usage say anything."""
    counters: dict[str, Counter] = {"o200k": len}
    guesses = [
        Estimator(counters).text(WORDS, "gpt-4o", route="exact"),
        Estimator().text(WORDS, "gpt-4o", route="unused"),
    ]
    for guess in guesses:
        async with limiter.acquire("p/m", estimate=guess) as lease:
            if guess.exact:
                lease.used(input_tokens=1 + guess.tokens)
        assert lease.settled is not None
        assert not lease.settled.calibration
        assert not await limiter.calibrate(Estimator(), "p/m", route=guess.route)


async def test_a_long_answer_is_charged_as_it_grows(limiter: Limiter):
    """Usage so far beyond the charge counts at once, the same figure once, less not at all."""
    lease = await limiter.acquire("p/m", input_tokens=10, max_output_tokens=20)
    for output, charged in ((15, 30), (50, 60), (50, 60), (40, 60)):
        renewed = await lease.renew(usage=Usage(input_tokens=10, output_tokens=output))
        assert renewed.charged["tokens"] == charged
    lease.used(input_tokens=10, output_tokens=45)
    settled = await lease.settle()
    assert settled.refunded == {"tokens": 5}


async def test_cached_input_is_told_apart(limiter: Limiter):
    """By what it costs each limit; here a token is a token."""
    lease = await limiter.acquire("p/m", input_tokens=100, cache_read_tokens=60)
    assert lease.charged["tokens"] == 100
    assert lease.suggested_max_tokens is None
    await lease.settle()
