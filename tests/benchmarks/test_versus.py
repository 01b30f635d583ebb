"""The figures of benchmarks/peers.py: ratios within rounds, medians, goals."""

import pytest
from versus import tables
from versus.goals import APPS, BARE, BATCHES, CHANNEL, LIMITS, OURS, Found, goals
from versus.measuring import Sample, ratios, spread


def sample(total: float, rate: float = 1000.0, p50: float = 0.001, **more: float) -> Sample:
    """A run that cost *total* microseconds of CPU, all of the caller's unless *more* says."""
    given = {"service": 0.0, "store": 0.0, "p95": 0.002, "p99": 0.003} | more
    client = total - given["service"] - given["store"]
    return Sample(rate=rate, p50=p50, client=client, failed=0, failure="", **given)


def test_ratios_are_taken_within_a_round():
    """A round in which everything is slow says the same as the others."""
    ours, theirs = [sample(10), sample(100), sample(10)], [sample(30), sample(300), sample(40)]
    assert ratios(theirs, ours, "total") == [3, 3, 4]
    assert spread(ratios(theirs, ours, "total")) == "3.00 (3.00-4.00)"


def test_a_goal_is_judged_by_its_median():
    """One bad round does not decide."""
    found = Found(
        libraries={
            (CHANNEL, 64): [sample(10), sample(10), sample(10)],
            (LIMITS, 64): [sample(20), sample(35), sample(40)],
        }
    )
    (cheaper,) = [goal for goal in goals(found) if "limits" in goal.what]
    assert (cheaper.wanted, cheaper.found, cheaper.holds) == (">= 3", 3.5, True)


def test_what_was_not_measured_is_no_goal():
    """A part that was left out, or a peer that could not start, leaves no row."""
    assert list(goals(Found())) == []
    assert tables.cores(Found()) == []
    assert tables.wanted(Found(paced={BATCHES: [sample(1)]})) == []


@pytest.mark.parametrize(("service", "holds"), [(50.0, True), (51.0, False)])
def test_a_bound_from_above_is_met_by_less(service: float, holds: bool):
    """The service may cost two and a half times a bare echo."""
    wire = {OURS: [sample(60, service=service)], BARE: [sample(30, service=20.0)]}
    (goal,) = goals(Found(wire=wire))
    assert (goal.holds, goal.wanted) == (holds, "<= 2.5")


def test_a_core_is_told_against_the_bare_script():
    """A path that costs four times the script has a quarter of its calls."""
    found = Found(libraries={(CHANNEL, 64): [sample(20), sample(40)]}, raw=[5.0, 10.0])
    bare, path = tables.cores(found)
    assert (bare["CPU us"], path["%"]) == (7.5, "25.00 (25.00-25.00)")


def test_rows_say_what_failed():
    """A peer that refuses under contention is shown with its failures."""
    failing = Sample(
        rate=1, p50=1, p95=1, p99=1, client=1, service=0, store=0, failed=3, failure="Busy: now"
    )
    name = APPS["limits"]
    rows = tables.wire(Found(wire={OURS: [sample(1, rate=8.0)], name: [failing]}))
    assert (rows[1]["ours is faster"], rows[1]["remarks"]) == ("8.00 (8.00-8.00)", "3 failed, Busy")
