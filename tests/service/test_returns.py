"""What calls use of what they reserve: learned by resource and limit, bounded."""

import pytest

from limiter_service.engine.returns import Returns
from limiter_service.engine.shape import History

MOST = 16


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


def test_whoever_has_not_settled_for_longest_is_forgotten_first():
    """At a quarter of the resources whose times are known, and those are bounded too."""
    returns = Returns(4 * MOST)
    for number in range(MOST):
        settle(returns, f"p/{number}", 1.0, -50.0)
    for number in (0, MOST):
        settle(returns, f"p/{number}", 1.0, -50.0)
    assert [returns.ratio(f"p/{number}", 1.0) for number in (0, 1, 2, MOST)] == [0.5, 1.0, 0.5, 0.5]
    for number in range(MOST, 4 * MOST):
        settle(returns, f"p/{number}", 1.0, -50.0)
    for number in (0, 4 * MOST):
        settle(returns, f"p/{number}", 1.0, -50.0)
    assert [returns.held(f"p/{number}") for number in (0, 1, 2)] == [1e6, None, 1e6]
    assert (len(returns._used), len(returns._held)) == (MOST, 4 * MOST)


def test_limits_of_a_resource_are_bounded():
    """Tenants have limits of their own; those that all share settle with each of them."""
    returns = Returns(MOST)
    for limit in [*range(32), 0, 32]:
        settle(returns, "p/m", float(limit), -50.0)
    assert [returns.ratio("p/m", limit) for limit in (0, 1, 2, 32)] == [0.5, 1.0, 0.5, 0.5]
    assert len(returns._used["p/m"]) == 32
