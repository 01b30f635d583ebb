"""The controller of benchmarks/regions.py: shares add up to one, whatever is lost."""

import random

import pytest
import regions
from hypothesis import given, settings
from hypothesis import strategies as st
from regions import Bucket, Controller, Region

Faults = list[tuple[bool, bool, bool]]


def sums(turns: list[list[float]], lost: list[list[bool]], *, careless: bool = False) -> float:
    """The largest sum of shares in force while these demands are met with these losses."""
    period = 30.0
    fleet = [Region(1 / 3, Bucket(1 / 3)) for _ in range(3)]
    controller = Controller(fleet, period)
    worst = 0.0
    for number, (demands, losses) in enumerate(zip(turns, lost, strict=False)):
        now = number * period
        messages = iter(losses)
        for region, demand in zip(fleet, demands, strict=True):
            region.asked += demand * regions.RATE * period
            region.serve(now)
        turn = regions.careless if careless else Controller.turn
        turn(controller, now, lambda _now, _i, messages=messages: next(messages, False))
        for moment in (now + 0.1, now + period / 2, now + period - 0.1):
            for region in fleet:
                region.serve(moment)
            worst = max(worst, sum(region.bucket.share for region in fleet))
    return worst


DEMANDS = st.lists(st.lists(st.floats(0, 3), min_size=3, max_size=3), min_size=1, max_size=30)
LOSSES = st.lists(st.lists(st.booleans(), max_size=12), min_size=30, max_size=30)


@settings(max_examples=300, deadline=None)
@given(DEMANDS, LOSSES)
def test_shares_never_add_up_to_more_than_one(
    turns: list[list[float]], lost: list[list[bool]]
) -> None:
    """Requests, answers and reports may be lost in any order, and overrides end by themselves."""
    assert sums(turns, lost) <= 1 + 1e-9


def test_a_careless_controller_passes_it() -> None:
    """So the test above can fail: the one who gives did not hear of it."""
    turns = [[1.0, 0.1, 0.1], [0.1, 1.0, 0.1]]
    lost = [[False] * 6, [False, False, False, True, False, False]]
    assert sums(turns, lost, careless=True) > 1.3
    assert sums(turns, [[False] * 12, [False, False, False, True]]) <= 1 + 1e-9


@given(st.lists(st.floats(0, 5), min_size=1, max_size=8))
def test_what_is_wanted_is_all_there_is(demands: list[float]) -> None:
    """Nobody is below the floor, and no part of the limit lies idle."""
    shares = regions.wanted(demands)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= regions.FLOOR - 1e-9


def test_a_region_that_asks_for_more_is_given_more() -> None:
    """And those who ask for less keep what they ask for."""
    busy, *rest = regions.wanted([0.7, 0.1, 0.1])
    assert busy >= 0.7
    assert min(rest) >= 0.1


def test_moving_shares_uses_what_fixed_ones_leave() -> None:
    """With one busy region of three, and nothing passes the bound of one budget."""
    thirds = [1 / 3] * 3
    fixed = regions.run(regions.one_busy, thirds, 300, 1)
    moved = regions.run(regions.one_busy, thirds, 300, 1, period=10)
    assert fixed.use < 0.75
    assert moved.use > 0.97
    assert max(fixed.over, moved.over) == 0
    assert max(fixed.shares, moved.shares) <= 1 + 1e-9


def test_two_budgets_that_do_not_know_of_each_other_are_seen() -> None:
    """What the tables call `over` is above zero where twice the limit is served."""
    found = regions.run(lambda _now: [1.0, 1.0], [1.0, 1.0], 120, 1)
    assert found.over > 0.5
    assert found.shares == 2


def test_arrivals_are_as_many_as_are_asked_for() -> None:
    """Tokens of a long time come to the part of the limit that was meant."""
    chance = random.Random(1)
    steps = 20_000
    tokens = sum(sum(regions.arrivals(chance, 0.9)) for _ in range(steps))
    assert tokens / (regions.RATE * regions.STEP * steps) == pytest.approx(0.9, rel=0.03)
