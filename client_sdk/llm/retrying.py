"""Whether to try again, and when. Pure: time and chance are arguments."""

import random
from typing import TYPE_CHECKING

import msgspec

from limiter_wire import Outcome

if TYPE_CHECKING:
    from limiter_wire.providers import Failure

_LONG_BASE = 15.0
_ELSEWHERE = frozenset(
    {
        Outcome.RATE_LIMITED,
        Outcome.QUOTA_EXHAUSTED,
        Outcome.OVERLOADED,
        Outcome.SERVER_ERROR,
        Outcome.TIMEOUT,
        Outcome.CONNECTION,
        Outcome.STREAM_INTERRUPTED,
        Outcome.MALFORMED_STREAM,
        Outcome.AUTH,
        Outcome.PERMISSION,
        Outcome.NOT_FOUND,
    }
)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often a call is tried, and how long to wait between two attempts, in seconds.

    `attempts` counts the first. The pause is what the provider asked for, else a random time
    up to `backoff` doubled with each attempt and bounded by `max_backoff` (full jitter). A
    provider that asks for more than `max_retry_after` is not waited for. `doubtful` is how often
    in a row a failure is tried again that seldom passes: a page in place of an answer, an
    internal error of some providers. `recoveries` is how
    often an answer that broke behind its first content is taken up again, where the client is
    told to. `budget` is the share of retries that first attempts allow, over all calls of a
    client, and `budget_floor` the retries per second that are allowed anyhow; None is no
    bound. A limiter has a budget of its own, which all workers share.
    """

    attempts: int = 3
    backoff: float = 0.5
    max_backoff: float = 20.0
    max_retry_after: float = 60.0
    doubtful: int = 1
    recoveries: int = 2
    budget: float | None = 0.2
    budget_floor: float = 1.0

    def __post_init__(self) -> None:
        for name, most in (("attempts", 100), ("doubtful", 100), ("recoveries", 100)):
            value = getattr(self, name)
            least = 1 if name == "attempts" else 0
            if not least <= value <= most:
                raise ValueError(f"{name}={value!r}: allowed is {least} to {most}")
        for name in ("backoff", "max_backoff", "max_retry_after", "budget_floor"):
            value = getattr(self, name)
            if not 0 <= value <= 86_400:  # noqa: PLR2004  # a day
                raise ValueError(f"{name}={value!r}: allowed is 0 to 86400")
        if self.budget is not None and not 0 <= self.budget <= 100:  # noqa: PLR2004  # all of them
            raise ValueError(f"budget={self.budget!r}: allowed is 0 to 100, or None")


class RetryBudget:
    """Bounds the retries of one client: first attempts pay in, retries take out."""

    _MOST = 100.0
    _START = 10.0

    def __init__(self, policy: RetryPolicy) -> None:
        self._ratio, self._floor = policy.budget, policy.budget_floor
        self._level, self._at = self._START, 0.0

    def first(self, now: float) -> None:
        """A first attempt goes out."""
        if self._ratio is not None:
            self._refill(now)
            self._level = min(self._MOST, self._level + self._ratio)

    def take(self, now: float) -> bool:
        """Whether one more retry may go out."""
        if self._ratio is None:
            return True
        self._refill(now)
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def _refill(self, now: float) -> None:
        passed = max(0.0, now - self._at) if self._at else 0.0
        self._at = now
        self._level = min(self._MOST, self._level + passed * self._floor)


def pause_before(
    policy: RetryPolicy, failure: "Failure", attempt: int, doubts: int, chance: random.Random
) -> float | None:
    """The seconds before the attempt that follows number *attempt*, with so many doubtful
    failures in a row; None: not again here.
    """
    if not failure.retryable or attempt >= policy.attempts or doubts > policy.doubtful:
        return None
    return _pause(policy, failure, attempt, chance)


def is_doubtful(failure: "Failure") -> bool:
    """Whether the failure seldom passes."""
    from limiter_wire.providers import Retry  # noqa: PLC0415  # loaded when a call fails

    return failure.retry is Retry.ONCE


def pause_to_take_up(
    policy: RetryPolicy, failure: "Failure", recovery: int, chance: random.Random
) -> float | None:
    """The seconds before the answer is taken up for the *recovery*-th time; None: no more."""
    return None if recovery > policy.recoveries else _pause(policy, failure, recovery, chance)


def _pause(
    policy: RetryPolicy, failure: "Failure", attempt: int, chance: random.Random
) -> float | None:
    from limiter_wire.providers import Backoff  # noqa: PLC0415  # as above

    asked = failure.retry_after
    base = policy.backoff
    if asked is not None:
        if asked > policy.max_retry_after:
            return None
        return asked + chance.uniform(0, base)  # all who were refused come back: not at once
    if failure.backoff is Backoff.AT_ONCE and attempt == 1:
        return 0.0
    most = policy.max_backoff
    if failure.backoff is Backoff.LONG and base > 0:
        base, most = max(base, _LONG_BASE), max(most, _LONG_BASE)
    return chance.uniform(0, min(most, base * 2 ** (attempt - 1)))


def worth_another(outcome: Outcome) -> bool:
    """Whether another model or provider may succeed where this one has not."""
    return outcome in _ELSEWHERE
