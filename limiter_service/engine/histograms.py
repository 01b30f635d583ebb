"""Distributions as counts of bins whose width grows with the value. Pure.

A bin ends 2^(1/8) times as high as it begins, so a quantile is right to 4.5 percent either
way. Bins of several histograms add up to those of all their values.
"""

import math
from collections.abc import Mapping

from limiter_wire import Quantiles

PER_OCTAVE = 8
SHORTEST = 0.001
"""Seconds; what is shorter shares the first bin."""

BINS = 256
"""Bins of one histogram: the last ends beyond a month."""

_SHARES = (0.5, 0.9, 0.95, 0.99)


def bin_of(value: float) -> int:
    """The bin of a value in seconds."""
    if value <= SHORTEST:
        return 0
    return min(BINS - 1, math.ceil(math.log2(value / SHORTEST) * PER_OCTAVE - 1e-9))


def quantiles(bins: Mapping[int, float]) -> Quantiles | None:
    """What a histogram says; None without values."""
    total = sum(bins.values())
    if total <= 0:
        return None
    ordered = sorted((place, count) for place, count in bins.items() if count > 0)
    p50, p90, p95, p99 = (_at(ordered, share * total) for share in _SHARES)
    return Quantiles(
        count=round(total), p50=p50, p90=p90, p95=p95, p99=p99, max=_edge(ordered[-1][0])
    )


def _at(ordered: list[tuple[int, float]], rank: float) -> float:
    """The middle of the bin in which the value of that rank is."""
    seen = 0.0
    for place, count in ordered:
        seen += count
        if seen >= rank - 1e-9:
            return _edge(place) if place == 0 else math.sqrt(_edge(place - 1) * _edge(place))
    return _edge(ordered[-1][0])


def _edge(place: int) -> float:
    """Where a bin ends, in seconds."""
    return float(SHORTEST * 2.0 ** (place / PER_OCTAVE))
