"""What calls use of what they reserve: learned by resource and limit, bounded."""

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_service.engine.returns import Returns
from limiter_service.engine.shape import History

MOST = 16
SETTLES = st.lists(st.tuples(st.integers(0, 30), st.integers(-100, 100)), max_size=200)


def settle(returns: Returns, resource: str, limit: float, moved: float, held: float = 1e6) -> None:
    """One of 100 reserved."""
    returns.learn(resource, [100.0], History([limit], [moved], held))


def test_what_is_not_known_is_used_whole():
    """And nobody knows how long it is held."""
    returns = Returns(MOST)
    assert (returns.ratio("p/m", 1.0), returns.held("p/m")) == (1.0, None)


def test_the_last_settles_count_most():
    """Of what is used, and of how long it is held."""
    returns = Returns(MOST)
    for _ in range(1000):
        settle(returns, "p/m", 1.0, -50.0, 1e6)
    assert returns.ratio("p/m", 1.0) == pytest.approx(0.5)
    for _ in range(1000):
        settle(returns, "p/m", 1.0, 20.0, 3e6)
    assert returns.ratio("p/m", 1.0) == pytest.approx(1.2, abs=0.001)
    assert returns.held("p/m") == pytest.approx(3e6)


@given(SETTLES)
def test_those_that_are_used_are_remembered(settles: list[tuple[int, int]]):
    """Of the last so many all are known, and never more than that: whoever is forgotten
    first has not settled for longest, once there is little room.
    """
    returns = Returns(4 * MOST)
    last: OrderedDict[int, None] = OrderedDict()
    for number, moved in settles:
        settle(returns, f"p/{number}", 1.0, float(moved))
        last[number] = None
        last.move_to_end(number)
    assert len(returns._used) == min(len(last), MOST)
    recent = list(last)[-MOST // 2 :]
    assert all(f"p/{number}" in returns._used for number in recent)


@given(st.lists(st.integers(0, 60), max_size=200))
def test_limits_of_a_resource_are_bounded(limits: list[int]):
    """Tenants have limits of their own."""
    returns = Returns(MOST)
    last: OrderedDict[int, None] = OrderedDict()
    for limit in limits:
        settle(returns, "p/m", float(limit), -50.0)
        last[limit] = None
        last.move_to_end(limit)
    known = returns._used.get("p/m", {})
    assert len(known) == min(len(last), 32)
    recent = [returns.ratio("p/m", limit) for limit in list(last)[-16:]]
    assert recent == pytest.approx([0.5] * len(recent))
