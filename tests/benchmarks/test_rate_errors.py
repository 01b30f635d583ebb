"""The pure parts of the benchmark of rate-limit errors."""

import math
import random
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rate_errors import pools
from rate_errors.figures import (
    Figures,
    Span,
    Waits,
    figures,
    ideal_waits,
    misses,
    row,
    saturated,
    waits_of,
)
from rate_errors.ideal import Bucket, Demand, Fixed, NeverFitsError, Sliding, Window, schedule
from rate_errors.messages import Ending, Finished, Strategy
from rate_errors.providers import PROVIDERS, Retries, most_output
from rate_errors.run import simulator_words

from limiter_service.config import parse
from limiter_service.demo.workload import Call, generate
from limiter_service.provider_sim import SimOptions


def due(at: float, amount: float, settled: float | None = None, lasts: float = 1.0) -> Demand:
    """A call that one meter counts."""
    final = amount if settled is None else settled
    return Demand(at=at, charges={"t": amount}, settled={"t": final}, lasts=lasts)


class TestIdeal:
    """Every call as early as no limit is broken."""

    def test_a_bucket_refills(self) -> None:
        """Ten fit at once; then one comes with every second."""
        starts = schedule([due(0, 10), due(0, 1), due(0.5, 2)], [("t", Bucket(1.0, 10.0))])
        assert starts == pytest.approx([0.0, 1.0, 3.0])

    def test_any_minute(self) -> None:
        """What was taken at 50 s is free at 110 s, whatever minute that is."""
        starts = schedule([due(50, 10), due(59, 5), due(61, 5)], [("t", Sliding(10, 60))])
        assert starts == pytest.approx([50.0, 110.0, 110.0])

    def test_a_minute_with_known_edges(self) -> None:
        """The next minute has it all again."""
        starts = schedule([due(50, 10), due(59, 5), due(61, 5)], [("t", Fixed(10, 60))])
        assert starts == pytest.approx([50.0, 60.0, 61.0])

    def test_nobody_overtakes(self) -> None:
        """A small call waits behind a large one that does not fit yet."""
        starts = schedule([due(0, 10), due(0, 10), due(1, 1)], [("t", Bucket(1.0, 10.0))])
        assert starts == pytest.approx([0.0, 10.0, 11.0])

    def test_what_comes_back_is_used(self) -> None:
        """A call that held 10 and used 2 lets the next one in when it ends."""
        demands = [due(0, 10, settled=2, lasts=3.0), due(0, 10)]
        assert schedule(demands, [("t", Bucket(1.0, 10.0))]) == pytest.approx([0.0, 3.0])

    def test_a_debt_is_waited_for(self) -> None:
        """Output that is charged at the end refuses the next call, not the one that owes."""
        demands = [due(0, 0, settled=15, lasts=2.0), due(1, 0), due(3, 0)]
        assert schedule(demands, [("t", Bucket(1.0, 10.0))]) == pytest.approx([0.0, 1.0, 8.0])

    @pytest.mark.parametrize("window", [Bucket(1, 10), Sliding(10, 60), Fixed(10, 60)])
    def test_what_is_too_large_never_fits(self, window: Window) -> None:
        """Instead of waiting for ever."""
        with pytest.raises(NeverFitsError):
            schedule([due(0, 11)], [("t", window)])

    @given(
        st.lists(st.tuples(st.floats(0, 30), st.integers(1, 10)), min_size=1, max_size=60),
        st.sampled_from([lambda: Bucket(0.5, 10), lambda: Sliding(10, 7), lambda: Fixed(10, 7)]),
    )
    def test_no_limit_is_broken_and_no_moment_is_wasted(
        self, calls: list[tuple[float, int]], make: Callable[[], Window]
    ) -> None:
        """In order, not before they are due, and a moment earlier would be too early."""
        at, demands = 0.0, []
        for gap, amount in calls:
            at += gap
            demands.append(due(at, amount))
        starts = schedule(demands, [("t", make())])
        assert starts == sorted(starts)
        window = make()
        for n, (demand, start) in enumerate(zip(demands, starts, strict=True)):
            amount = demand.charges["t"]
            free = max(demand.at, starts[n - 1] if n else 0.0)
            assert window.fits_at(amount, free) == pytest.approx(start, abs=1e-5)
            assert window.fits_at(amount, start) <= start + 1e-5
            window.take(amount, start)


class TestAccounts:
    """What is bought, and what of it is told to whom."""

    CALLS = generate(3, random.Random(1))

    @pytest.mark.parametrize("name", list(PROVIDERS))
    @pytest.mark.parametrize("load", [0.8, 1.5])
    def test_the_load_is_what_it_says(self, name: str, load: float) -> None:
        """In the provider's own currency; requests come in whole numbers per second."""
        provider = PROVIDERS[name]
        limits = provider.limits(self.CALLS, load)
        demands = provider.demands(self.CALLS, provider.simulated(limits, speed=1, seed=0))
        minutes = self.CALLS[-1].at / 60
        charged = sum(demand.settled[provider.headline] for demand in demands) / minutes
        assert charged / provider.per_minute(limits)[provider.headline] == pytest.approx(
            load, rel=1e-4
        )
        assert limits.rpm % 60 == 0

    @pytest.mark.parametrize("name", list(PROVIDERS))
    def test_compressed_limits_are_the_preset_in_less_time(self, name: str) -> None:
        """Amounts, bursts, windows, charges as for a minute; only the period is shorter."""
        provider = PROVIDERS[name]
        limits = provider.limits(self.CALLS, 1.0)
        config = parse(pools.native(provider, limits, 20), ".yaml")
        (section,) = config.pools["bench"].models.values()
        assert config.pools["bench"].provider == provider.name
        for real, fast in zip(provider.preset(limits), section.limits, strict=True):
            assert fast.per == "3.000000000s"
            assert (fast.limit, fast.burst, fast.window) == (real.limit, real.burst, real.window)
            assert (fast.reserve, fast.settle) == (real.reserve, real.settle)
            assert fast.weights == real.weights

    def test_the_naive_pool_knows_no_provider(self) -> None:
        """Buckets of a minute, and one limit of tokens for two."""
        provider = PROVIDERS["anthropic"]
        limits = provider.limits(self.CALLS, 1.0)
        text = yaml.safe_load(pools.naive(provider, limits, 10))
        (section,) = text["pools"]["bench"]["models"].values()
        tokens = sum(limits.tokens.values())
        assert [limit["limit"] for limit in section["limits"]] == [limits.rpm, tokens]
        assert {limit["window"] for limit in section["limits"]} == {"bucket"}

    def test_the_simulator_gets_what_differs(self) -> None:
        """Words of its command line."""
        words = simulator_words(SimOptions(rpm=60, smoothing=1.0, speed=20))
        assert words == ["--rpm", "60", "--smoothing", "1.0", "--speed", "20"]

    def test_an_answer_is_never_cut(self) -> None:
        """A recorded answer that is longer than usual may be as long."""
        assert most_output(Call(at=0, input_tokens=1, output_tokens=50)) == 1024
        assert most_output(Call(at=0, input_tokens=1, output_tokens=5000)) == 5000


class TestRetries:
    """The documented policies of the official SDKs."""

    def test_a_wait_that_is_named_is_followed(self) -> None:
        """Unless it is too long."""
        policy = PROVIDERS["openai"].retries
        assert policy.pause(1, 30.0, random.Random(0)) == 30.0
        assert policy.pause(1, 121.0, random.Random(0)) <= 0.5

    def test_pauses_double_and_end(self) -> None:
        """Half a second, with a quarter of it left to chance, up to eight."""
        policy = Retries(sdk="x", retries=9)
        pauses = [policy.pause(n, None, random.Random(0)) for n in (1, 2, 3, 9)]
        share = pauses[0] / 0.5
        assert 0.75 <= share <= 1
        assert pauses == pytest.approx([0.5 * share, share, 2 * share, 8 * share])

    def test_full_jitter(self) -> None:
        """Anything from nothing to the whole."""
        policy = PROVIDERS["bedrock"].retries
        assert 0 <= policy.pause(2, None, random.Random(3)) <= 2


def ended(number: int, sent: float, refusals: int = 0, how: Ending = Ending.SUCCEEDED) -> Finished:
    """A call that is over."""
    return Finished(
        number=number,
        sent=sent,
        ending=how,
        attempts=refusals + (how is Ending.SUCCEEDED),
        refusals=refusals,
        for_tokens=0,
        first_refused=refusals > 0,
    )


class TestFigures:
    """From what workers saw to lines of a table."""

    DEMANDS = [due(at, 10.0) for at in range(120)]
    FULL = Span(0.0, 120.0)

    def of(self, finished: list[Finished], span: Span | None = FULL) -> Figures:
        """The figures of a run against 600 a minute."""
        return figures(Strategy.NATIVE, self.DEMANDS, finished, per_minute={"t": 600}, span=span)

    def test_counts(self) -> None:
        """Refusals, retries, those who gave up, waits of those who succeeded."""
        found = self.of([ended(0, 1.0), ended(1, 3.0, 2), ended(2, 9.0, 3, Ending.GIVEN_UP)])
        assert (found.calls, found.attempts, found.refused, found.retries) == (3, 7, 5, 4)
        assert (found.first_refused, found.given_up, found.failed) == (2, 1, 0)
        assert found.waits == Waits(1.5, 2.0, 2.0)

    def test_what_is_used(self) -> None:
        """Of the limit, in the span alone."""
        everything = [ended(n, float(n)) for n in range(120)]
        assert self.of(everything).used == 1.0
        assert self.of(everything[:60]).used == 0.5
        assert self.of(everything, None).used is None
        assert self.of(everything, Span(0.0, 60.0)).used == 1.0

    def test_saturation_is_the_time_without_a_call_that_goes_at_once(self) -> None:
        """In whole minutes."""
        demands = [due(at, 10.0) for at in range(260)]
        starts = [demand.at + (5.0 if demand.at > 20 else 0.0) for demand in demands]
        assert saturated(demands, starts) == Span(20.0, 200.0)
        assert saturated(demands[:190], starts[:190]) is None
        assert saturated(demands, [demand.at for demand in demands]) is None

    def test_percentiles_are_values_that_occurred(self) -> None:
        """99 of 100 waits are not longer."""
        assert waits_of([float(n) for n in range(1, 101)]) == Waits(50.5, 99.0, 100.0)
        assert waits_of([]) == Waits(0.0, 0.0, 0.0)

    @pytest.mark.parametrize(
        ("finished", "ideal", "words"),
        [
            ([ended(n, n + 1.0) for n in range(120)], 0.0, []),
            ([ended(n, n + 3.0) for n in range(120)], 2.0, []),
            ([ended(n, n + 3.0) for n in range(120)], 1.0, ["mean wait", "p99", "longest"]),
            ([ended(n, n + 0.0, n == 7) for n in range(120)], 1.0, ["requests refused", "429s"]),
            ([ended(n, n + 0.0) for n in range(110)], 1.0, ["used"]),
            ([ended(n, n + 0.0, 0, Ending.FAILED) for n in range(120)], 1.0, ["used", "failed"]),
        ],
    )
    def test_bars(self, finished: list[Finished], ideal: float, words: list[str]) -> None:
        """Each is named when it is missed, and only then."""
        without = self.of([ended(n, float(n), n < 40) for n in range(120)])
        missed = misses(self.of(finished), without, Waits(ideal, ideal, ideal))
        assert len(missed) == len(words)
        assert all(word in text for word, text in zip(words, missed, strict=True))

    def test_a_line(self) -> None:
        """Comparisons with next to nothing are left out."""
        starts = [demand.at + 2.0 for demand in self.DEMANDS]
        line = row(self.of([ended(0, 4.0)]), ideal_waits(self.DEMANDS, starts))
        assert (line["x ideal"], line["used %"]) == ("2.00", "0.8")
        assert row(self.of([ended(0, 4.0)], None), Waits(0.1, 0.2, 0.3))["x ideal"] == "-"
        assert math.isclose(float(line["mean wait s"]), 4.0)  # type: ignore[arg-type]
