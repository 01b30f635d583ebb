"""What a replica has taken beside the level that it last saw."""

import pytest

from limiter_service.config import parse
from limiter_service.engine.levels import Level
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.presence import Presence, Sights

FILE = "pools: {p: {models: {m: {limits: [{meter: tokens, limit: 900, per: 366d}]}}}}"


@pytest.fixture
def policy() -> Policy:
    """A chain of one limit."""
    return Policies(parse(FILE, ".yaml"), "sg:").policy("p/m", "default")


def own(sights: Sights, policy: Policy) -> float:
    """What was taken since the level that is known."""
    ((place, _),) = policy.placed
    return sights.sight(place, Presence(), 0.0).own


def level(policy: Policy, cell: float) -> list[tuple[Policy, list[Level]]]:
    """What a look has shown."""
    return [(policy, [Level(limit_id=policy.limits[0].id, cell=[cell], now=0.0, wall=0.0)])]


def test_what_was_taken_counts_until_a_look_has_shown_it(policy: Policy):
    """The store may be lost while a look is under way; who decides then knows the old level."""
    sights = Sights()
    sights.end(level(policy, 900.0))
    sights.taken(policy, [30.0])
    sights.begin(0.0)
    sights.taken(policy, [2.0])
    assert own(sights, policy) == 32.0
    sights.taken(policy, [4.0])
    assert own(sights, policy) == 36.0
    sights.end(level(policy, 866.0))
    assert own(sights, policy) == 6.0


def test_a_look_that_fails_has_shown_nothing(policy: Policy):
    """What was taken before it counts on."""
    sights = Sights()
    sights.taken(policy, [30.0])
    sights.begin(0.0)
    sights.taken(policy, [2.0])
    sights.failed()
    sights.taken(policy, [1.0])
    assert own(sights, policy) == 33.0
    sights.begin(0.0)
    sights.end(level(policy, 867.0))
    assert own(sights, policy) == 0.0


def test_what_is_asked_for_again_and_again_counts_each_time(policy: Policy):
    """By turns with others too; what gives back has taken nothing."""
    sights, often, seldom, back = Sights(), [30.0], [4.0], [-7.0]
    for amounts in (often, often, often, seldom, often, back, back, seldom, seldom):
        sights.taken(policy, amounts)
    assert own(sights, policy) == 4 * 30.0 + 3 * 4.0
    sights.begin(0.0)
    sights.taken(policy, often)
    sights.end(level(policy, 768.0))
    assert own(sights, policy) == 30.0
