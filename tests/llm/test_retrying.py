"""When to try again: pure, with time and chance as arguments."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.llm.retrying import RetryBudget, RetryPolicy, is_doubtful, pause_before
from limiter_wire.providers import Failure, classify, classify_local

POLICY = RetryPolicy(attempts=5, backoff=1.0, max_backoff=4.0)


def pause(failure: Failure, attempt: int = 1, doubts: int = 0) -> float | None:
    """The pause of one try, by a die that always falls the same."""
    return pause_before(POLICY, failure, attempt, doubts, random.Random(1))


@given(st.integers(1, 4), st.integers(0, 1000))
def test_pauses_grow_up_to_a_bound_and_are_jittered_in_full(attempt: int, seed: int):
    """Anywhere between nothing and the doubled base."""
    failure = classify("openai", status=503)
    waited = pause_before(POLICY, failure, attempt, 0, random.Random(seed))
    assert waited is not None
    assert 0 <= waited <= min(4.0, 2.0 ** (attempt - 1))


def test_what_the_provider_asks_for_comes_first():
    """Never earlier, and a little later, so that not all come back at once."""
    waited = pause(classify("openai", status=429, headers={"retry-after": "3"}))
    assert waited is not None
    assert 3 <= waited <= 4


def test_too_long_a_wait_is_none():
    """More than the policy allows is the caller's affair."""
    assert pause(classify("openai", status=429, headers={"retry-after": "90"})) is None


def test_attempts_end():
    """The first counts."""
    failure = classify("openai", status=503)
    assert pause(failure, attempt=4) is not None
    assert pause(failure, attempt=5) is None


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_cannot_pass_is_not_tried_again(status: int):
    """The same request would fail in the same way."""
    assert pause(classify("openai", status=status)) is None


def test_what_seldom_passes_is_tried_once():
    """A page in place of an answer, twice in a row."""
    page = classify_local("html_body")
    assert is_doubtful(page)
    assert pause(page, attempt=1, doubts=1) is not None
    assert pause(page, attempt=2, doubts=2) is None


def test_a_stale_connection_is_left_at_once():
    """A new one is enough."""
    stale = classify_local("RemoteProtocolError: closed without sending a response")
    assert pause(stale) == 0.0


def test_a_budget_bounds_retries_over_all_calls():
    """A share of first attempts, a floor by time, and a start."""
    budget = RetryBudget(RetryPolicy(budget=0.5, budget_floor=1.0))
    assert sum(budget.take(100.0) for _ in range(50)) == 10
    for _ in range(4):
        budget.first(100.0)
    assert [budget.take(100.0) for _ in range(3)] == [True, True, False]
    assert [budget.take(103.0) for _ in range(4)] == [True, True, True, False]


def test_a_policy_says_what_is_allowed():
    """Impossible values are refused."""
    with pytest.raises(ValueError, match="attempts=0: allowed is 1 to 100"):
        RetryPolicy(attempts=0)
    with pytest.raises(ValueError, match="budget"):
        RetryPolicy(budget=-1)
