"""How waits have gone, against what was forecast: learned ratios, bounded. Pure."""

import bisect
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent:
    """The last values of something, in order of size as well."""

    def __init__(self, most: int, prior: Sequence[float] = ()) -> None:
        self._in_turn, self._most = deque(prior), most
        self._ordered = sorted(prior)

    def __len__(self) -> int:
        return len(self._in_turn)

    def add(self, value: float) -> None:
        """Take in a value; the oldest goes when there are too many."""
        self._in_turn.append(value)
        bisect.insort(self._ordered, value)
        if len(self._in_turn) > self._most:
            oldest = self._in_turn.popleft()
            del self._ordered[bisect.bisect_left(self._ordered, oldest)]

    def quantile(self, q: float) -> float:
        """The nearest value."""
        return self._ordered[min(len(self._ordered) - 1, int(q * len(self._ordered)))]

    def scatter(self) -> float:
        """The median distance from the median, as a part of it."""
        middle = self.quantile(0.5)
        distances = sorted(abs(value - middle) for value in self._ordered)
        return distances[len(distances) // 2] / middle if middle else 0.0


class Paces:
    """Actual over forecast waits, for rival forecasts of the same waits.

    The best is not the one that is right, which its pace would repair, but the one whose
    ratio scatters least; the first one where they are equal.
    """

    def __init__(self, rivals: int, most: int, prior: Sequence[float] = ()) -> None:
        self._ratios = [Recent(most, prior) for _ in range(rivals)]
        self.best = 0

    def __len__(self) -> int:
        return len(self._ratios[0])

    def add(self, ratios: Sequence[float]) -> None:
        """Take in one wait: its ratio to each forecast."""
        for recent, ratio in zip(self._ratios, ratios, strict=True):
            recent.add(ratio)
        self.best = min(range(len(ratios)), key=lambda rival: self._ratios[rival].scatter())

    def pace(self) -> float:
        """The median ratio of the best."""
        return self._ratios[self.best].quantile(0.5)


class Known(Generic[T]):
    """What is known by key. Keys are bounded: the one that came first goes first."""

    def __init__(self, most: int, make: Callable[[], T]) -> None:
        self._most, self._make = most, make
        self._known: dict[object, T] = {}
        self._new = make()

    def of(self, key: object) -> T:
        """What is known of a key, for reading."""
        return self._known.get(key, self._new)

    def at(self, key: object) -> T:
        """The same, to add to it."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            known = self._known[key] = self._make()
        return known
