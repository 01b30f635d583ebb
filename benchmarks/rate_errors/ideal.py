"""The ideal schedule: every call as early as its provider's limits allow, in order of arrival.

Pure, and written without a look at the limiter's windows or the simulator's. Times are
seconds of the workload. A caller who has this schedule is never refused and wastes nothing;
no limiter can be quicker without breaking a limit or the order.

Windows that begin at fixed moments are modelled twice. Nobody outside knows those moments, so
what is safe wherever they are is a limit on every period: `Sliding`. `Fixed` is for whoever
knows them.
"""

import heapq
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

# Sums of floats may miss by their last bits; nothing here is smaller than a token.
_CLOSE = 1e-6


class Window(Protocol):
    """What one limit has left."""

    def fits_at(self, amount: float, now: float) -> float:
        """When *amount* fits if nothing else comes: *now*, or later. Raises NeverFitsError."""
        ...

    def take(self, amount: float, now: float) -> None:
        """Spend *amount*, whether it fits or not; what is negative comes back."""
        ...


class NeverFitsError(ValueError):
    """A call is larger than a limit."""


class Bucket:
    """Refills with *rate* in a second, and holds *capacity*."""

    def __init__(self, rate: float, capacity: float) -> None:
        self._rate, self._capacity = rate, capacity
        self._level, self._at = capacity, 0.0

    def _now(self, now: float) -> float:
        return min(self._capacity, self._level + (now - self._at) * self._rate)

    def fits_at(self, amount: float, now: float) -> float:
        if amount > self._capacity + _CLOSE:
            raise NeverFitsError(f"{amount:g} of {self._capacity:g}")
        short = amount - self._now(now)
        return now + short / self._rate if short > _CLOSE else now

    def take(self, amount: float, now: float) -> None:
        self._level, self._at = min(self._capacity, self._now(now) - amount), now


class Sliding:
    """Never more than *limit* in any *width* seconds."""

    def __init__(self, limit: float, width: float) -> None:
        self._limit, self._width = limit, width
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def _forget(self, now: float) -> None:
        while self._taken and self._taken[0][0] + self._width <= now + _CLOSE:
            self._sum -= self._taken.popleft()[1]

    def fits_at(self, amount: float, now: float) -> float:
        if amount > self._limit + _CLOSE:
            raise NeverFitsError(f"{amount:g} of {self._limit:g}")
        self._forget(now)
        excess = self._sum + amount - self._limit
        for at, taken in self._taken:
            if excess <= _CLOSE:
                break
            excess -= taken
            now = at + self._width
        return now

    def take(self, amount: float, now: float) -> None:
        self._forget(now)
        self._taken.append((now, amount))
        self._sum += amount


class Fixed:
    """Never more than *limit* from one multiple of *width* seconds to the next."""

    def __init__(self, limit: float, width: float) -> None:
        self._limit, self._width = limit, width
        self._number, self._used = 0, 0.0

    def _window(self, now: float) -> int:
        return math.floor((now + _CLOSE) / self._width)

    def fits_at(self, amount: float, now: float) -> float:
        if amount > self._limit + _CLOSE:
            raise NeverFitsError(f"{amount:g} of {self._limit:g}")
        number = self._window(now)
        used = self._used if number == self._number else 0.0
        return now if used + amount <= self._limit + _CLOSE else (number + 1) * self._width

    def take(self, amount: float, now: float) -> None:
        number = self._window(now)
        self._used = amount + (self._used if number == self._number else 0.0)
        self._number = number


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """One call: due *at*, charged when it begins, and counted anew after *lasts* seconds.

    `charges` and `settled` are by meter. A charge of nothing still needs a limit that is not
    overdrawn.
    """

    at: float
    charges: Mapping[str, float]
    settled: Mapping[str, float]
    lasts: float


def schedule(demands: Sequence[Demand], limits: Sequence[tuple[str, Window]]) -> list[float]:
    """When each call begins; *demands* come in order of time. Raises NeverFitsError."""
    now, starts = 0.0, []
    ending: list[tuple[float, int]] = []
    for number, demand in enumerate(demands):
        now = max(now, demand.at)
        while True:
            _settle(demands, limits, ending, now)
            fits = max((w.fits_at(max(1, demand.charges[m]), now) for m, w in limits), default=now)
            if fits <= now + _CLOSE:
                break
            # What ends meanwhile may give back, or take more.
            now = min(fits, ending[0][0]) if ending else fits
        for meter, window in limits:
            window.take(demand.charges[meter], now)
        if demand.settled != demand.charges:
            heapq.heappush(ending, (now + demand.lasts, number))
        starts.append(now)
    return starts


def _settle(
    demands: Sequence[Demand],
    limits: Sequence[tuple[str, Window]],
    ending: list[tuple[float, int]],
    now: float,
) -> None:
    """Count anew the calls that have ended by *now*."""
    while ending and ending[0][0] <= now + _CLOSE:
        ended, number = heapq.heappop(ending)
        demand = demands[number]
        for meter, window in limits:
            moved = demand.settled[meter] - demand.charges[meter]
            if moved:
                window.take(moved, ended)
