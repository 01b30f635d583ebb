"""What the store knows of the sizes of calls (lua/lib/sizes): quantiles and a ratio. Pure."""

import math
from collections.abc import Sequence
from functools import cached_property

import msgspec

from limiter_wire import Calibration

EXPECTED = 0.96
"""The quantile of outputs that `expected_output` holds: benchmarks/reservation.py says why."""

SUGGESTED = 0.99
"""The quantile of outputs that answers suggest as `max_tokens`."""

_OUTPUTS, _SAMPLES, _RATIO, _SPREAD, _FIRST, _WEIGHTS = 0, 1, 2, 3, 20, 22
_PER_OCTAVE = 8
_LEAST_SEEN = 5
_LEAST_TO_SUGGEST = 100
_LEAST_OF_MODEL = 10


class Sizes(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The sizes of one kind of calls: `weights` are those of bins from number `first` on."""

    outputs: int = 0
    samples: int = 0
    ratio: float = 1.0
    spread: float = 0.0
    first: int = 0
    weights: Sequence[float] = ()

    @cached_property
    def expected_output(self) -> float | None:
        """An output that nearly all stay below; None while too few were seen."""
        return self.quantile(EXPECTED) if self.outputs >= _LEAST_SEEN else None

    @cached_property
    def suggested_max_tokens(self) -> int | None:
        """A bound that one output in a hundred exceeds; None while too few were seen.

        It is the end of a bin: outputs that were cut off there do not lower it further.
        """
        if self.outputs < _LEAST_TO_SUGGEST:
            return None
        place, _ = self._place(SUGGESTED)
        return math.floor(_edge(self.first + place) + 1e-6)

    def quantile(self, q: float) -> float:
        """The output that a share of *q* does not exceed, by interpolation within its bin."""
        place, share = self._place(q)
        low, high = _edge(self.first + place - 1), _edge(self.first + place)
        return low + share * (high - low)

    def _place(self, q: float) -> tuple[int, float]:
        wanted, seen = q * sum(self.weights), 0.0
        for place, weight in enumerate(self.weights):
            if weight > 0 and seen + weight >= wanted - 1e-9:
                return place, min(1.0, (wanted - seen) / weight)
            seen += weight
        return len(self.weights) - 1, 1.0


def _edge(place: int) -> float:
    """Where a bin ends; outputs of one token and none share the first."""
    return 0.0 if place < 0 else 2.0 ** (place / _PER_OCTAVE)


def sizes_of(numbers: Sequence[float]) -> Sizes:
    """What a state says; no numbers, nothing known."""
    if not numbers:
        return Sizes()
    return Sizes(
        outputs=int(numbers[_OUTPUTS]),
        samples=int(numbers[_SAMPLES]),
        ratio=numbers[_RATIO],
        spread=numbers[_SPREAD],
        first=int(numbers[_FIRST]),
        weights=tuple(numbers[_WEIGHTS:]),
    )


def expected_output(route: Sizes, model: Sizes) -> float | None:
    """What a call of a route is expected to answer; what its model does, while the route is new."""
    own = route.expected_output
    return model.expected_output if own is None else own


def bound(of_route: int | None, of_model: int | None, asked: int | None) -> int | None:
    """A bound for the answer, by those that are suggested: never more than the caller's own."""
    found = of_model if of_route is None else of_route
    return found if found is None or asked is None else min(found, asked)


def calibration(route: Sizes, model: Sizes) -> Calibration | None:
    """How estimates of the route's inputs compare with reality; those of the model, while
    the route is new.
    """
    if route.samples > 0:
        found, of_route = route, True
    elif model.samples >= _LEAST_OF_MODEL:
        found, of_route = model, False
    else:
        return None
    return Calibration(
        ratio=found.ratio, spread=found.spread, samples=found.samples, of_route=of_route
    )
