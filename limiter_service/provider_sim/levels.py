"""How one limit fills up and opens again.

Pure: `now` is in the provider's own seconds, counted from its start. The shapes are
written independently of the limiter's Lua, so that one can find the other wrong.
"""

import math
from typing import Protocol

MINUTE = 60.0
DAY = 86_400.0

# A level is a sum of float products: a request due at exactly this moment may miss by the
# last bits. It is charged in full, hence nothing drifts.
_FORGIVEN = 1e-6

# Nobody knows when a running call ends: a provider that is full names a short wait.
_SLOT_WAIT = 1.0


class Level(Protocol):
    """The state of one limit."""

    limit: float

    def remaining(self, now: float) -> float:
        """What could be taken now; below zero is a debt."""
        ...

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` fits if nothing else comes; 0 when it fits now."""
        ...

    def take(self, amount: float, now: float) -> None:
        """Spend `amount`, whether it fits or not; a negative amount is given back."""
        ...

    def reset_after(self, now: float) -> float:
        """Seconds until the limit is as good as new if nothing else comes."""
        ...

    def allowed(self, now: float) -> float:
        """The most that could have been granted since the start."""
        ...


class Bucket:
    """Refills continuously with its limit per minute; holds `burst`, else a minute's worth."""

    def __init__(self, limit: float, burst: float | None = None) -> None:
        self.limit = limit if burst is None else burst
        self._rate = limit / MINUTE
        self._level = self.limit
        self._at = 0.0

    def remaining(self, now: float) -> float:
        return min(self.limit, self._level + (now - self._at) * self._rate)

    def wait(self, amount: float, now: float) -> float:
        short = amount - self.remaining(now)
        return short / self._rate if short > _FORGIVEN else 0.0

    def take(self, amount: float, now: float) -> None:
        self._level = min(self.limit, self.remaining(now) - amount)
        self._at = now

    def reset_after(self, now: float) -> float:
        return (self.limit - self.remaining(now)) / self._rate

    def allowed(self, now: float) -> float:
        return self.limit + now * self._rate


class FixedWindow:
    """Counts from zero in each window of `width` seconds; the first begins at the start."""

    def __init__(self, limit: float, width: float) -> None:
        self.limit = limit
        self._width = width
        self._number = 0
        self._used = 0.0

    def remaining(self, now: float) -> float:
        return self.limit - (self._used if self._number == self._window(now) else 0.0)

    def wait(self, amount: float, now: float) -> float:
        return 0.0 if amount <= self.remaining(now) else self._left(now)

    def take(self, amount: float, now: float) -> None:
        self._used = max(0.0, self.limit - self.remaining(now) + amount)
        self._number = self._window(now)

    def reset_after(self, now: float) -> float:
        return self._left(now) if self.remaining(now) < self.limit else 0.0

    def allowed(self, now: float) -> float:
        return self.limit * (self._window(now) + 1)

    def _window(self, now: float) -> int:
        return math.floor(now / self._width)

    def _left(self, now: float) -> float:
        return (self._window(now) + 1) * self._width - now


class Slots:
    """Calls that run at the same time: taken at admission, given back at the end."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._running = 0.0

    def remaining(self, now: float) -> float:  # noqa: ARG002 - slots know no time
        return self.limit - self._running

    def wait(self, amount: float, now: float) -> float:
        return 0.0 if amount <= self.remaining(now) else _SLOT_WAIT

    def take(self, amount: float, now: float) -> None:  # noqa: ARG002 - slots know no time
        self._running = max(0.0, self._running + amount)

    def reset_after(self, now: float) -> float:
        return 0.0 if self.remaining(now) == self.limit else _SLOT_WAIT

    def allowed(self, now: float) -> float:  # noqa: ARG002 - there is no such bound
        return math.inf
