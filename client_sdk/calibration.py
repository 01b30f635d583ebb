"""Estimates, and how they compare with reality: small values without the weights behind them."""

import math
from typing import Protocol

import msgspec

from limiter_wire import Calibration

DEFAULT = "default"
"""The route of requests that name none."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How reality compares with estimates: the mean of actual over estimated.

    The first ten samples count equally, later ones a tenth each. `spread` is the mean error
    that remains after the correction. Plain data: it can be stored and shared.
    """

    samples: int = 0
    ratio: float = 1.0
    spread: float = 0.0

    def learned(self, estimated: float, actual: float) -> "Ratio":
        """The ratio after one more comparison; what cannot be compared changes nothing."""
        if not (estimated > 0 and actual > 0 and math.isfinite(estimated + actual)):
            return self
        seen = min(max(actual / estimated, _LEAST), _MOST)
        step = max(1 / (self.samples + 1), _STEP)
        error = abs(seen / self.ratio - 1) if self.samples else 0.0
        spread = self.spread + max(1 / max(1, self.samples), _STEP) * (error - self.spread)
        ratio = min(max(self.ratio + step * (seen - self.ratio), _LEAST), _MOST)
        return Ratio(samples=self.samples + 1, ratio=ratio, spread=spread if self.samples else 0.0)


_STEP = 0.1
_LEAST, _MOST = 0.1, 10.0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate for one request.

    `tokens` is the best guess, rounded up; `high` is what nineteen of twenty requests stay
    below. `raw` is the guess before the learned correction.
    """

    model: str
    route: str
    raw: float
    tokens: int
    high: int
    exact: bool = False


def label_of(route: str) -> str | None:
    """A route as the service knows it: calls without a route count for their model."""
    return None if route == DEFAULT else route


class Adopts(Protocol):
    """Whatever begins with what others have learned: an `Estimator`."""

    def adopt(self, model: str, route: str, shared: Calibration) -> None:
        """Take it over, unless more is known already."""
