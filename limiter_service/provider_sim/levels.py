"""How one limit fills up and opens again.

Pure: `now` is in the provider's own seconds, counted from its start. The shapes are
written independently of the limiter's Lua, so that one can find the other wrong.
"""

import math
from bisect import bisect_right
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


class Growth:
    """Use that may not grow too fast: in the `width` seconds that end now at most `factor` times
    what it was in those before them, or `limit` where that is more. What is larger passes when
    nothing else was used in that time.
    """

    def __init__(self, limit: float, factor: float, width: float) -> None:
        self.limit = limit
        self._factor = factor
        self._width = width
        self._times: list[float] = []
        self._sums = [0.0]  # of what was taken before each time, and of all

    def remaining(self, now: float) -> float:
        before = self._used(now - self._width)
        return max(self.limit, self._factor * before) - self._used(now)

    def wait(self, amount: float, now: float) -> float:
        changes = [at + n * self._width for at in self._times for n in (1, 2)]
        # It fits at the latest when all that was taken has left the present span.
        moments = [now, *sorted(at for at in changes if at > now)]
        return next(at for at in moments if self._fits(amount, at)) - now

    def _fits(self, amount: float, now: float) -> bool:
        return self._used(now) <= 0 or amount <= self.remaining(now) + _FORGIVEN

    def take(self, amount: float, now: float) -> None:
        old = bisect_right(self._times, now - 2 * self._width)
        self._times = [*self._times[old:], now]
        self._sums = [*self._sums[old:], self._sums[-1] + amount]

    def reset_after(self, now: float) -> float:
        newest = self._times[-1] if self._times else -math.inf
        return max(0.0, newest + 2 * self._width - now)

    def allowed(self, now: float) -> float:  # noqa: ARG002 - there is no such bound
        return math.inf

    def _used(self, end: float) -> float:
        # What leaves at exactly `end` may miss it by the last bits.
        begin = bisect_right(self._times, end - self._width + _FORGIVEN)
        return self._sums[bisect_right(self._times, end + _FORGIVEN)] - self._sums[begin]
