"""A fuse on one connection's way: a store that is dead is not asked by every call."""

FAILURES_IN_A_ROW = 5
"""Calls that must have failed one after another before it blows."""

PAUSE = 0.5
"""Seconds between two calls that are let through meanwhile."""


class Fuse:
    """Blown by failures in a row; one success mends it. Time comes in as `now`."""

    def __init__(self) -> None:
        self._failures = 0
        self._next = 0.0
        self.reason = ""

    @property
    def blown(self) -> bool:
        """Whether calls are refused here."""
        return self._failures >= FAILURES_IN_A_ROW

    def admits(self, now: float) -> bool:
        """Whether a call may go; while it is blown one in PAUSE may, whatever becomes of it."""
        if self._failures < FAILURES_IN_A_ROW:
            return True
        if now < self._next:
            return False
        self._next = now + PAUSE
        return True

    def failed(self, now: float, reason: str) -> None:
        """A call got no answer."""
        self._failures += 1
        self.reason = reason
        if self._failures == FAILURES_IN_A_ROW:
            self._next = now + PAUSE

    def succeeded(self) -> None:
        """The store has answered."""
        self._failures = 0
