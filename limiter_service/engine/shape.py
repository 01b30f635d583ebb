"""What is the same for every grant of a chain, computed once. Pure.

While nothing is learned of its limits a grant has their cells at known places, and says of them
only what is left and when they are full again: nothing is explained that nobody asks for. What any
chain costs and looks like is in `charging`, `levels` and `answers`; this comes to the same. Chains
with a ramp have no shape: how much one allows changes with its use.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar

import msgspec

from limiter_service.engine import breaking
from limiter_service.engine.cells import SKEW, TIME, Edges, View, size, views
from limiter_service.store.messages import KEEP
from limiter_wire import Granted, LimitState, Meter, Usage
from limiter_wire.brief import remaining, reset_after

if TYPE_CHECKING:
    from limiter_service.engine.limits import Limit

_MICRO = 1_000_000
_SETTLED, _CHARGES = (
    5,
    9,
)  # where the time of it is in a lease, and where they begin (lua/lib/lease)
_CELLS = 5  # numbers of a scope before its cells (lua/lib/layout)
_NOTHING = (0.0, 0.0)
_TOKENS = {
    Meter.TOKENS: (1.0, 1.0),
    Meter.INPUT_TOKENS: (1.0, 0.0),
    Meter.OUTPUT_TOKENS: (0.0, 1.0),
}
_REFUSED = -1.0  # in place of a charge: a shadow had no room


Face = tuple[str, Meter, float, float | None, str, str, bool]
"""Of a limit: name, meter, amount, period, window, scope, whether it is only watched."""


class History(msgspec.Struct, frozen=True):
    """What has come of a lease: the limits that it holds, by id, what was moved of each when it
    was settled, and how long it was held, in microseconds.
    """

    limit_ids: Sequence[float]
    moved: Sequence[float]
    held: float


class Shape:
    """The chain of one policy. `money` are the places of the limits that settles charge for what a
    call has cost.
    """

    __slots__ = (
        "_alone",
        "_budgets",
        "_counts",
        "_levels",
        "_meter_of",
        "_meters",
        "_named",
        "_places",
        "_starts",
        "_units",
        "_views",
        "_watches",
        "faces",
        "fills",
        "length",
        "limit_ids",
        "money",
    )

    def __init__(self, scopes: Sequence[Sequence["Limit"]], edges: Mapping[int, Edges]) -> None:
        """*edges* has the boundaries of each calendar window, by the id of its limit, which change
        with time.
        """
        every = [limit for limits in scopes for limit in limits]
        self.faces: tuple[Face, ...] = tuple(map(_face, every))
        self._watches = any(limit.shadow for limit in every)
        self._units = tuple(limit.unit for limit in every) if any_money(every) else None
        self.money = tuple(n for n, limit in enumerate(every) if _is_settled_in_money(limit))
        found: dict[str, list[int]] = {}
        for i, limit in enumerate(every):
            found.setdefault(limit.meter, []).append(i)
        self._meters = tuple((meter, tuple(places)) for meter, places in found.items())
        self._meter_of = tuple(limit.meter for limit in every)
        self._counts = tuple(map(_what_counts, every))
        alone = all(len(places) == 1 for places in found.values())
        self._alone = tuple(found) if alone else None
        starts: list[int] = []
        places: list[tuple[int, float, float, int]] = []
        budgets: list[tuple[int, int, int]] = []
        self._views: dict[int, View] = {}
        at = _CHARGES + len(every)
        for limits in scopes:
            start = at
            starts.append(start)
            at += _CELLS
            for limit in limits:
                places.append((at + 1, limit.capacity, limit.rate, limit.unit))
                if limit.window != "bucket":
                    self._views[at + 1] = views[limit.window](limit, start, at + 1, edges)
                if limit.window == "calendar":
                    budgets.append((limit.id, start, at + 1))
                at += 1 + size(limit.id)
        self._starts, self._places, self.length = tuple(starts), tuple(places), at
        self._budgets = tuple(budgets)
        plain = not self._views and all(limit.unit == 1 for limit in every)
        self.fills = tuple((limit.capacity, limit.rate) for limit in every) if plain else None
        self._levels = _picker([each[0] for each in places])
        self.limit_ids = tuple(float(limit.id) for limit in every)
        self._named = tuple(zip([each[0] - 1 for each in places], self.limit_ids, strict=True))

    def named(self, faces: tuple[Face, ...]) -> "Shape":
        """The same, for limits that show other *faces*."""
        found = object.__new__(Shape)
        for part in self.__slots__:
            setattr(found, part, getattr(self, part))
        found.faces = faces
        return found

    def used(self, usage: Usage) -> list[float] | None:
        """What each limit should have been charged for *usage*, as `charging.used` says it, but
        for `money`; None where a limit weighs tokens by their kind.
        """
        inputs = max(usage.input_tokens, usage.cache_read_tokens + usage.cache_write_tokens)
        outputs = max(usage.output_tokens, usage.reasoning_tokens)
        found: list[float] = []
        for counts in self._counts:
            if counts is None:
                return None
            found.append(KEEP if counts == _NOTHING else counts[0] * inputs + counts[1] * outputs)
        return found

    def charged(self, amounts: Sequence[float]) -> dict[str, float]:
        """The largest charge of each meter."""
        if self._units is not None:
            amounts = [_whole(much / unit) for much, unit in zip(amounts, self._units, strict=True)]
            return {meter: max([amounts[i] for i in places]) for meter, places in self._meters}
        if self._alone is not None:
            return dict(zip(self._alone, map(int, amounts), strict=True))
        return {meter: int(max([amounts[i] for i in places])) for meter, places in self._meters}

    def fits(self, lease: Sequence[float]) -> bool:
        """Whether the states in a new lease are as the policy has them: nothing is learned, or held
        by hand, and no shadow was without room.
        """
        if len(lease) != self.length:
            return False
        for at in self._starts:
            if lease[at] < 0:
                return False
        charges = _CHARGES + len(self._places)
        return not (self._watches and _REFUSED in lease[_CHARGES:charges])

    def levels(self, lease: Sequence[float]) -> tuple[float, ...]:
        """What is in each limit, of a lease that fits."""
        return self._levels(lease)

    def left(self, lease: Sequence[float]) -> list[float]:
        """Of each limit what is left, and the seconds until it is full, of a lease that fits."""
        found: list[float] = []
        for at, capacity, rate, unit in self._places:
            if rate:
                level = lease[at]
                full = reset_after(level, capacity, rate)
            else:
                level, wait = self._views[at](lease)
                full = ceil(wait) / _MICRO
            left = remaining(level)
            found.append(left if unit == 1 else left / unit)
            found.append(full)
        return found

    def budgets(self, lease: Sequence[float]) -> Iterator[tuple[int, float, float, float]]:
        """Of each budget its limit's id, when its window began, what is spent in it, and when that
        was so, in Unix µs.
        """
        for limit_id, start, at in self._budgets:
            yield limit_id, lease[at], lease[at + 1], lease[start + TIME] - lease[start + SKEW]

    def history(self, lease: Sequence[float]) -> History | None:
        """What has come of a settled *lease*; None where it was granted under other limits, or its
        states are not as the policy has them.
        """
        end = self.length
        if len(lease) != end + len(self._places):
            return None
        for at in self._starts:
            if lease[at] < 0:
                return None
        for at, limit_id in self._named:
            if lease[at] != limit_id:
                return None
        start = self._starts[0]
        granted = lease[start + TIME] - lease[start + SKEW]
        return History(self.limit_ids, lease[end:], max(0.0, lease[_SETTLED] - granted))

    def moved(self, history: History) -> tuple[dict[str, float], dict[str, float]]:
        """What came back and what was added, by meter: of several limits the most."""
        refunded: dict[str, float] = {}
        debited: dict[str, float] = {}
        moved = history.moved
        if self._units is not None:
            moved = [much / unit for much, unit in zip(moved, self._units, strict=True)]
        for meter, units in zip(self._meter_of, moved, strict=True):
            if units < 0:
                refunded[meter] = max(refunded.get(meter, 0), _whole(-units))
            elif units > 0:
                debited[meter] = max(debited.get(meter, 0), _whole(units))
        return refunded, debited


class Taken(msgspec.Struct):
    """A grant that has a shape, just made: `lease` is its id, and `numbers` what the store has;
    `told` is `charged` as msgpack, and `circuit` a place in breaking.CIRCUITS.
    """

    shape: Shape
    lease: str
    expires_in: float
    charged: dict[str, float]
    told: bytes
    numbers: Sequence[float]
    circuit: int
    suggested: int | None = None

    waited: ClassVar[float] = 0.0
    settled: ClassVar[bool] = False

    @property
    def left(self) -> list[float]:
        """Of each limit what is left, and the seconds until it is full."""
        return self.shape.left(self.numbers)

    def granted(self) -> Granted:
        """The same as it crosses the wire."""
        breaker, probe = breaking.CIRCUITS[self.circuit]
        left = self.left
        parts = zip(self.shape.faces, left[::2], left[1::2], strict=True)
        return Granted(
            lease=self.lease,
            expires_in=self.expires_in,
            charged=self.charged,
            limits=[
                LimitState(
                    name=name,
                    meter=meter,
                    limit=limit,
                    remaining=left,
                    reset_after=reset,
                    per=per,
                    window=window,
                    scope=scope,
                    shadow=shadow,
                )
                for (name, meter, limit, per, window, scope, shadow), left, reset in parts
            ],
            breaker=breaker,
            probe=probe,
            suggested_max_tokens=self.suggested,
        )


def _picker(places: Sequence[int]) -> Callable[[Sequence[float]], tuple[float, ...]]:
    """What takes the numbers at these places out of others."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda numbers: tuple([numbers[at] for at in places])


def _face(limit: "Limit") -> Face:
    amount = _whole(limit.limit)
    return limit.name, limit.meter, amount, limit.per, limit.window, limit.scope, limit.shadow


def any_money(limits: Iterable["Limit"]) -> bool:
    """Whether one of them counts money."""
    return any(limit.meter is Meter.COST_USD for limit in limits)


def _is_settled_in_money(limit: "Limit") -> bool:
    return limit.meter is Meter.COST_USD and limit.config.settle != "none"


def _what_counts(limit: "Limit") -> tuple[float, float] | None:
    """How much of input and output a limit counts when a call is settled; None where that is not
    so simple.
    """
    if limit.meter not in _TOKENS or limit.config.settle == "none":
        return _NOTHING
    if limit.config.weights:
        return None
    return _TOKENS.get(limit.meter)


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
