"""Forecasts of waits: from need, refill and what comes back, corrected by how waits went."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limiter_service.config import parse
from limiter_service.engine.forecast import Forecast, Prediction
from limiter_service.engine.levels import Level
from limiter_service.engine.paces import Bound, Known, Paces, Recent
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.shape import History

VALUES = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=60)
LIMIT = "limits: [{meter: tokens, limit: 1000, per: second, burst: 1000}]"


def policy(tenant: str = "t", limits: str = LIMIT) -> Policy:
    """The chain of p/m, 1,000 tokens a second."""
    config = parse(f"pools: {{p: {{models: {{m: {{{limits}}}}}}}}}", ".yaml")
    return Policies(config, "x:").policy("p/m", tenant)


def levels(chain: Policy, *left: float) -> list[Level]:
    """Buckets with so much left."""
    return [
        Level(limit_id=float(limit.id), cell=[room], now=0.0, wall=0.0)
        for limit, room in zip(chain.limits, left, strict=True)
    ]


def predict(
    forecast: Forecast, chain: Policy, need: float, most: float | None = None, priority: int = 5
) -> Prediction:
    """For 100 tokens behind *need*, which may become *most*, with an empty bucket."""
    needs = ([need], [need if most is None else most])
    return forecast.predict(chain, priority, needs, [100.0], levels(chain, 0.0), 0.0)


def test_a_wait_is_the_need_over_the_refill() -> None:
    """900 before it and 100 of its own at 1,000 a second, less the room that there is."""
    forecast, chain = Forecast(), policy()
    assert predict(forecast, chain, 900).p50 == 1.0
    room = forecast.predict(chain, 5, ([900], [900]), [100.0], levels(chain, 500.0), 0.0)
    assert room.p50 == 0.5
    assert predict(forecast, chain, 900).p90 > 1.0


def test_a_request_that_fits_does_not_wait() -> None:
    """Room for everybody before it and for itself."""
    forecast, chain = Forecast(), policy()
    fits = forecast.predict(chain, 5, ([100], [100]), [100.0], levels(chain, 1000.0), 0.0)
    assert (fits.p50, fits.p90) == (0.0, 0.0)


def test_what_settles_give_back_makes_waits_shorter() -> None:
    """Calls that use half of what they reserve let twice as many in."""
    forecast, chain = Forecast(), policy()
    for _ in range(200):
        forecast.learn_settle(chain, [100.0], History([chain.limits[0].id], [-50.0], 1e6))
    assert predict(forecast, chain, 900).p50 == pytest.approx(0.5, rel=0.02)


def test_a_line_that_others_overtake_learns_its_pace() -> None:
    """While lighter lines go first, every wait is longer by the same factor."""
    forecast, chain = Forecast(), policy()
    for _ in range(10):
        forecast.learn_wait(chain, 5, predict(forecast, chain, 900), 1.6)
    assert predict(forecast, chain, 1900).p50 == pytest.approx(3.2)


def test_a_line_has_a_pace_of_its_own() -> None:
    """What goes first is not slowed down by what it overtakes."""
    forecast, slow, fast = Forecast(), policy("slow"), policy("fast")
    for _ in range(20):
        forecast.learn_wait(slow, 5, predict(forecast, slow, 900), 3.0)
        forecast.learn_wait(fast, 5, predict(forecast, fast, 900), 1.0)
    assert predict(forecast, slow, 900).p50 == pytest.approx(3.0)
    assert predict(forecast, fast, 900).p50 == pytest.approx(1.0)


def test_priorities_of_a_tenant_are_lines_of_their_own() -> None:
    """Urgent requests do not learn from those that wait for them."""
    forecast, chain = Forecast(), policy()
    for _ in range(20):
        forecast.learn_wait(chain, 9, predict(forecast, chain, 900, priority=9), 4.0)
        forecast.learn_wait(chain, 0, predict(forecast, chain, 900, priority=0), 1.0)
    assert predict(forecast, chain, 900, priority=9).p50 == pytest.approx(4.0)
    assert predict(forecast, chain, 900, priority=0).p50 == pytest.approx(1.0)


def test_a_new_line_goes_by_the_pace_of_its_resource() -> None:
    """Until it has waits of its own."""
    forecast, known, new = Forecast(), policy("known"), policy("new")
    for _ in range(20):
        forecast.learn_wait(known, 5, predict(forecast, known, 900), 2.0)
    assert predict(forecast, new, 900).p50 == pytest.approx(2.0)


def test_the_steadier_of_two_forecasts_is_used() -> None:
    """Where other lines use their whole share, waits follow the most that need can become,
    however much of it stands before a waiter when it comes.
    """
    forecast, chain, chance = Forecast(), policy(), random.Random(1)
    for _ in range(50):
        now = predict(forecast, chain, chance.uniform(100, 3000), 3900)
        forecast.learn_wait(chain, 5, now, 4.0)
    assert predict(forecast, chain, 200, 3900).p50 == pytest.approx(4.0)
    allowed, going_on = forecast.allowed(chain, 5, 4.0, 0.0)
    assert going_on == 1.0
    assert allowed == [pytest.approx(4000.0)]


def test_nine_of_ten_waits_are_not_longer_than_p90() -> None:
    """However waits stray, once enough of them were seen."""
    forecast, chain, chance = Forecast(), policy(), random.Random(2)
    held = []
    for _ in range(2000):
        predicted, waited = predict(forecast, chain, 900), chance.lognormvariate(0.0, 0.4)
        held.append(waited <= predicted.p90)
        forecast.learn_wait(chain, 5, predicted, waited)
    assert 0.88 <= sum(held[500:]) / 1500 <= 0.92


def test_p90_keeps_its_promise_while_waits_change() -> None:
    """Ratios that grow and shrink by turns, faster than a percentile of the last ones follows."""
    chance, recent, bound = random.Random(3), Recent(512), Bound()
    held, lagging = [], []
    for number in range(6000):
        value = chance.lognormvariate(0.4 if number // 300 % 2 else 0.0, 0.1)
        if number > 100:
            held.append(value <= bound.of(recent))
            lagging.append(value <= recent.quantile(0.9))
            bound.learn(bound.judged, held=held[-1])
        recent.add(value)
    assert 0.88 <= sum(held) / len(held) <= 0.92
    assert not 0.88 <= sum(lagging) / len(lagging) <= 0.92


def test_bounds_that_are_judged_late_move_it_less() -> None:
    """A crowd that waits at once fails at once, and says the same thing only once."""
    prompt, late, values = Bound(), Bound(), Recent(100, [n / 100 for n in range(100)])
    for _ in range(5):
        prompt.learn(prompt.judged, held=False)
    for _ in range(5):
        late.learn(late.judged - 200, held=False)
    assert 0.9 <= late.of(values) < prompt.of(values)


def test_a_wait_in_vain_counts_when_it_was_longer_than_predicted() -> None:
    """A timeout after less says nothing: the wait might have been as predicted."""
    forecast, chain = Forecast(), policy()
    for _ in range(20):
        forecast.learn_wait(chain, 5, predict(forecast, chain, 900), 0.5, over=False)
    assert predict(forecast, chain, 900).p50 == 1.0
    for _ in range(20):
        forecast.learn_wait(chain, 5, predict(forecast, chain, 900), 3.0, over=False)
    assert predict(forecast, chain, 900).p50 == pytest.approx(3.0)


@settings(deadline=None)
@given(st.floats(0.1, 100.0), st.floats(0.2, 5.0), st.integers(0, 20))
def test_what_is_allowed_is_what_is_predicted_in_time(wait: float, pace: float, waits: int) -> None:
    """The need that `allowed` lets in is predicted to take just so long, at any pace."""
    forecast, chain = Forecast(), policy()
    for _ in range(waits):
        forecast.learn_wait(chain, 5, predict(forecast, chain, 900), pace)
    (need,), _ = forecast.allowed(chain, 5, wait, 0.0)
    assert predict(forecast, chain, need - 100.0).p50 == pytest.approx(wait)


def test_what_is_learned_is_bounded() -> None:
    """Callers choose tenants."""
    known = Known(3, lambda: Recent(5))
    for key in range(100):
        known.at(key).add(1.0)
    assert [len(known.of(key)) for key in (0, 96, 97, 98, 99)] == [0, 0, 1, 1, 1]


@settings(deadline=None)
@given(VALUES, st.integers(1, 20), st.floats(0.0, 0.99))
def test_recent_values_are_those_added_last(values: list[float], most: int, q: float) -> None:
    """And their quantiles are those of a sorted list."""
    recent = Recent(most)
    for value in values:
        recent.add(value)
    last = sorted(values[-most:])
    assert len(recent) == len(last)
    assert recent.quantile(q) == last[int(q * len(last))]


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 2.0), min_size=5, max_size=60, unique=True), st.floats(0.1, 10.0))
def test_the_best_forecast_is_the_one_whose_ratio_is_steady(ratios: list[float], pace: float):
    """However far off it is; and the first where two are as steady."""
    paces, equals = Paces(2, 128), Paces(2, 128)
    for ratio in ratios:
        paces.add([ratio, pace])
        equals.add([ratio, ratio])
    assert (paces.best, paces.pace()) == (1, pace)
    assert equals.best == 0
