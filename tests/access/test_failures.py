"""How often somebody may fail."""

from hypothesis import given
from hypothesis import strategies as st

from limiter_service.engine.failures import Allowance, Failures

ALLOWED = Allowance(burst=3, every=10.0, addresses=2)


@given(st.lists(st.floats(0, 30), max_size=40))
def test_no_time_has_more_failures_than_allowed(pauses: list[float]):
    """In any stretch at most the burst, and one more for each period."""
    failures, now = Failures(ALLOWED), 0.0
    let: list[float] = []
    for pause in pauses:
        now += pause
        wait = failures.note("a", now)
        if wait == 0:
            let.append(now)
        else:
            assert 0 < wait <= ALLOWED.every
    for i, begin in enumerate(let):
        for j, end in enumerate(let[i:], start=1):
            assert j <= ALLOWED.burst + (end - begin) / ALLOWED.every + 1e-6


def test_who_waits_as_told_may_fail_again():
    """The answer is exact, and what was refused counted nothing."""
    failures = Failures(ALLOWED)
    assert [failures.note("a", 0.0) for _ in range(5)] == [0, 0, 0, 10, 10]
    assert failures.note("a", 9.0) == 1.0
    assert failures.note("a", 10.0) == 0.0


def test_addresses_count_apart_in_bounded_memory():
    """The one that was heard of longest ago is forgotten for a new one."""
    failures = Failures(ALLOWED)
    for _ in range(4):
        failures.note("a", 0.0)
    assert failures.note("b", 0.0) == 0
    assert failures.note("a", 0.0) > 0
    assert failures.note("c", 0.0) == 0  # "b" is gone
    assert len(failures._spent_until) == 2
    assert failures.note("a", 0.0) > 0
