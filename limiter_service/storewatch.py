"""Says once that the store has gone, and once that it is back, however many calls notice."""

import time
from collections.abc import Callable

import structlog

from limiter_service.store.client import Watch

APART = 10.0
"""Seconds between two losses that are told of, at least: a store may come and go."""

_log = structlog.get_logger()


class StoreWatch:
    """Hears of every script call and hands it on."""

    def __init__(self, *others: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        self._others, self._clock = list(others), clock
        self._failed = 0
        self._told: float | None = None
        self._telling = False

    def tell(self, other: Watch) -> None:
        """Hand calls on to one more."""
        self._others.append(other)

    def called(self, script: str, took: float, good: bool, calls: int = 1) -> None:  # noqa: FBT001  # Watch
        """Script calls are over."""
        if not good:
            self._failed += calls
            if self._failed == calls:
                self._lost(script, took)
        elif self._failed:
            if self._telling:
                _log.info("the store answers again", failed_calls=self._failed)
            self._failed = 0
        for other in self._others:
            other(script, took, good, calls)

    def _lost(self, script: str, took: float) -> None:
        now = self._clock()
        self._telling = self._told is None or now - self._told >= APART
        if self._telling:
            self._told = now
            _log.warning("the store does not answer", script=script, waited=round(took, 3))
