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
        """How far the middle half reaches, as a part of the median."""
        middle = self.quantile(0.5)
        return (self.quantile(0.75) - self.quantile(0.25)) / middle if middle else 0.0


class Bound:
    """What nine of ten values do not exceed, also while they change.

    The 90th percentile of recent values lags behind, and so fails more often than one time in
    ten. Hence the level that is asked for is moved: up by each failure, down a ninth of that by
    each success, so that failures are one in ten in the long run whatever the values do
    (adaptive conformal inference: I. Gibbs, E. Candes, NeurIPS 2021). The more bounds are out
    before the first of them is judged, the less each may move it: otherwise it swings.
    """

    HELD, STEP, SOON = 0.9, 0.01, 10

    def __init__(self) -> None:
        self._level = self.HELD
        self.judged = 0

    def learn(self, since: int, *, held: bool) -> None:
        """Take in whether a bound held, given when *since* were judged."""
        step = self.STEP / (1 + (self.judged - since) / self.SOON)
        self.judged += 1
        self._level = min(1.5, max(0.5, self._level + step * (self.HELD - held)))

    def of(self, values: Recent) -> float:
        """The bound, from values like those to come; beyond their largest when it has to be."""
        beyond = max(0.0, self._level - 1)
        return values.quantile(min(1.0, self._level)) * (1 + beyond)


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
