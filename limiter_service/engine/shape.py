"""What is the same for every grant of a chain of ordinary limits, computed once. Pure.

Ordinary are enforced buckets (lua/lib/ordinary). A grant then has its levels at known places, and
says of them only what is left and when they are full again: nothing is explained that nobody asks
for. What any chain costs and looks like is in `charging`, `levels` and `answers`; for ordinary
ones this comes to the same.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar

import msgspec

from limiter_service.engine import breaking
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
_TIME, _SKEW, _CELLS = 2, 3, 5  # of a scope, and the numbers before its cells (lua/lib/layout)
_NOTHING = (0.0, 0.0)
_TOKENS = {
    Meter.TOKENS: (1.0, 1.0),
    Meter.INPUT_TOKENS: (1.0, 0.0),
    Meter.OUTPUT_TOKENS: (0.0, 1.0),
}


Face = tuple[str, Meter, float, float | None, str]
"""Of a limit: name, meter, amount, period, scope."""

Levels = tuple[float, ...]
"""What is in each limit, in units of its meter."""


class History(msgspec.Struct, frozen=True):
    """What has come of a lease: the limits that it holds, by id, what was moved of each when it
    was settled, and how long it was held, in microseconds.
    """

    limit_ids: Sequence[float]
    moved: Sequence[float]
    held: float


class Shape:
    """The chain of one policy whose limits are all ordinary, and count no money."""

    __slots__ = (
        "_alone",
        "_counts",
        "_levels",
        "_meter_of",
        "_meters",
        "_named",
        "_of_tokens",
        "_starts",
        "faces",
        "fills",
        "length",
        "limit_ids",
    )

    def __init__(self, scopes: Sequence[Sequence["Limit"]]) -> None:
        every = [limit for limits in scopes for limit in limits]
        self.faces: tuple[Face, ...] = tuple(
            (limit.name, limit.meter, _whole(limit.limit), limit.per, limit.scope)
            for limit in every
        )
        self._of_tokens = tuple(limit.meter is not Meter.REQUESTS for limit in every)
        found: dict[str, list[int]] = {}
        for i, limit in enumerate(every):
            found.setdefault(limit.meter, []).append(i)
        self._meters = tuple((meter, tuple(places)) for meter, places in found.items())
        self._meter_of = tuple(limit.meter for limit in every)
        self._counts = tuple(map(_what_counts, every))
        alone = all(len(places) == 1 for places in found.values())
        self._alone = tuple(found) if alone else None
        starts: list[int] = []
        places: list[int] = []
        at = _CHARGES + len(every)
        for limits in scopes:
            starts.append(at)
            at += _CELLS
            for _ in limits:
                places.append(at + 1)
                at += 2
        self._starts, self._levels, self.length = tuple(starts), _picker(places), at
        self.fills = tuple((limit.capacity, limit.rate) for limit in every)
        self.limit_ids = tuple(float(limit.id) for limit in every)
        self._named = tuple(zip([at - 1 for at in places], self.limit_ids, strict=True))

    def named(self, faces: tuple[Face, ...]) -> "Shape":
        """The same, for limits that show other *faces*."""
        found = object.__new__(Shape)
        for part in self.__slots__:
            setattr(found, part, getattr(self, part))
        found.faces = faces
        return found

    def of_tokens(self, tokens: int) -> list[float]:
        """What each limit holds for a request of so many tokens."""
        return [float(tokens) if counts else 1.0 for counts in self._of_tokens]

    def used(self, usage: Usage) -> list[float] | None:
        """What each limit should have been charged for *usage*, as `charging.used` says it; None
        where a limit weighs tokens by their kind.
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
        if self._alone is not None:
            return dict(zip(self._alone, map(int, amounts), strict=True))
        return {meter: int(max([amounts[i] for i in places])) for meter, places in self._meters}

    def levels(self, lease: Sequence[float]) -> Levels | None:
        """What is in each limit; None where the states in a new lease are not as the policy has
        them: something is learned, or held by hand.
        """
        if len(lease) != self.length:
            return None
        for at in self._starts:
            if lease[at] < 0:
                return None
        return self._levels(lease)

    def left(self, levels: Levels) -> list[float]:
        """Of each limit what is left, and the seconds until it is full."""
        found: list[float] = []
        for level, (capacity, rate) in zip(levels, self.fills, strict=True):
            found += (remaining(level), reset_after(level, capacity, rate))
        return found

    def history(self, lease: Sequence[float]) -> History | None:
        """What has come of a settled *lease*; None where it was granted under other limits, or its
        states are not as the policy has them.
        """
        end = self.length
        if len(lease) != end + len(self.fills):
            return None
        for at in self._starts:
            if lease[at] < 0:
                return None
        for at, limit_id in self._named:
            if lease[at] != limit_id:
                return None
        start = self._starts[0]
        granted = lease[start + _TIME] - lease[start + _SKEW]
        return History(self.limit_ids, lease[end:], max(0.0, lease[_SETTLED] - granted))

    def moved(self, history: History) -> tuple[dict[str, float], dict[str, float]]:
        """What came back and what was added, by meter: of several limits the most."""
        refunded: dict[str, float] = {}
        debited: dict[str, float] = {}
        for meter, units in zip(self._meter_of, history.moved, strict=True):
            if units < 0:
                refunded[meter] = max(refunded.get(meter, 0), _whole(-units))
            elif units > 0:
                debited[meter] = max(debited.get(meter, 0), _whole(units))
        return refunded, debited


class Taken(msgspec.Struct):
    """A grant of ordinary limits, just made; `told` is `charged` as msgpack, `levels` what is in
    each limit, and `circuit` a place in breaking.CIRCUITS.
    """

    shape: Shape
    lease: str
    expires_in: float
    charged: dict[str, float]
    told: bytes
    levels: Levels
    circuit: int
    suggested: int | None = None

    waited: ClassVar[float] = 0.0
    settled: ClassVar[bool] = False

    @property
    def left(self) -> list[float]:
        """Of each limit what is left, and the seconds until it is full."""
        return self.shape.left(self.levels)

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
                    scope=scope,
                )
                for (name, meter, limit, per, scope), left, reset in parts
            ],
            breaker=breaker,
            probe=probe,
            suggested_max_tokens=self.suggested,
        )


def _picker(places: Sequence[int]) -> Callable[[Sequence[float]], Levels]:
    """What takes the numbers at these places out of others."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda numbers: tuple([numbers[at] for at in places])


def _what_counts(limit: "Limit") -> tuple[float, float] | None:
    """How much of input and output a limit counts when a call is settled; None where that is not
    so simple.
    """
    if limit.meter is Meter.REQUESTS or limit.config.settle == "none":
        return _NOTHING
    if limit.config.weights:
        return None
    return _TOKENS.get(limit.meter)


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
