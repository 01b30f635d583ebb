"""How long a waiter will wait: from the need ahead of it, refill, and what is given back.

A limit serves its rate, and what settles refund on top: when calls use a part r of what they
reserve, it grants rate / r. So n units of need above the room that there is take n * r / rate. A
concurrency limit of c slots, each held for h, serves c / h. The raw forecast is the longest over
all limits; the ratio of actual to raw waits is kept by how far the forecast looked, and
its median and 90th percentile turn the raw forecast into `p50` and `p90`.

What is learned is this replica's own: losing it costs accuracy, never a limit.
"""

import bisect
import math
from collections import deque
from collections.abc import Sequence

import msgspec

from limiter_service.engine.levels import Level, left
from limiter_service.engine.policy import Limit, Policy

_MICRO = 1_000_000
_DAY = 86_400 * _MICRO
_MONTH = 31 * _DAY
_DECAY = 0.99
_SMOOTHING = 0.1
_LEAST_RATIO, _MOST_RATIO = 0.02, 5.0
_KEPT = 256
_PRIOR = (0.6, 0.8, 0.9, 1.0, 1.0, 1.0, 1.1, 1.2, 1.3, 1.6)
_HORIZONS = (0.2, 1.0, 4.0, 16.0, 64.0)
UNKNOWN = -1.0


class Prediction(msgspec.Struct, frozen=True):
    """Seconds: the raw forecast, its median and its 90th percentile after correction."""

    raw: float
    p50: float
    p90: float


class Forecast:
    """What one replica has learned about waits. Keys are bounded, the oldest go first."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._ratios: dict[tuple[str, int], tuple[float, float]] = {}
        self._held: dict[str, float] = {}
        self._errors: dict[tuple[str, int], deque[float]] = {}

    def learn_settle(
        self,
        policy: Policy,
        levels: Sequence[Level],
        charges: Sequence[float],
        moved: Sequence[float],
        held_us: float,
    ) -> None:
        """Take in how much of a reservation was used, and how long the lease was held."""
        for level, charge, change in zip(levels, charges, moved, strict=True):
            if charge > 0:
                key = policy.resource, int(level.limit_id)
                reserved, used = self._ratios.pop(key, (0.0, 0.0))
                reserved, used = reserved * _DECAY + charge, used * _DECAY + charge + change
                self._bound(self._ratios)
                self._ratios[key] = reserved, used
        before = self._held.pop(policy.resource, held_us)
        self._bound(self._held)
        self._held[policy.resource] = before + _SMOOTHING * (held_us - before)

    def learn_wait(self, resource: str, predicted: Prediction, actual: float) -> None:
        """Take in how long somebody really waited."""
        if predicted.raw > 0:
            self._recent(resource, predicted.raw).append(actual / predicted.raw)

    def allowed(self, policy: Policy, max_wait: float, wall: float) -> list[float]:
        """For each limit the need above its room that is served within *max_wait* seconds."""
        stretch = self._quantile(policy.resource, max_wait, 0.5)
        return [self._allowed(policy, limit, max_wait / stretch, wall) for limit in policy.limits]

    def predict(
        self,
        policy: Policy,
        needs: Sequence[float],
        amounts: Sequence[float],
        levels: Sequence[Level],
        wait_us: float,
    ) -> Prediction:
        """The wait of a request for *amounts* that has *needs* ahead of it; *wait_us* is
        what the limits themselves say, for limits whose speed nobody knows.
        """
        raw, known = 0.0, True
        parts = zip(policy.limits, needs, amounts, levels, strict=True)
        for limit, need, amount, level in parts:
            excess = need + amount - left(limit, level)
            if limit.shadow or excess <= 0:
                continue
            wait = self._wait(policy, limit, excess, level)
            if wait is None:
                known = False
            else:
                raw = max(raw, wait)
        if not known:
            raw = max(raw, wait_us / _MICRO)
        return Prediction(
            raw,
            raw * self._quantile(policy.resource, raw, 0.5),
            raw * self._quantile(policy.resource, raw, 0.9),
        )

    def _ratio(self, policy: Policy, limit: Limit) -> float:
        reserved, used = self._ratios.get((policy.resource, limit.id), (1.0, 1.0))
        return min(_MOST_RATIO, max(_LEAST_RATIO, used / reserved))

    def _speed(self, policy: Policy, limit: Limit) -> float | None:
        """Units of reservation per microsecond."""
        if limit.window == "concurrency":
            held = self._held.get(policy.resource)
            return limit.capacity / held if held else None
        per = (limit.per or 31 * 86_400) * _MICRO
        return limit.limit * limit.unit / per / self._ratio(policy, limit)

    def _wait(self, policy: Policy, limit: Limit, excess: float, level: Level) -> float | None:
        if limit.window == "calendar":
            first = policy.next_edge(limit, level.wall) - level.wall
            windows = math.ceil(excess * self._ratio(policy, limit) / limit.capacity)
            return (first + (windows - 1) * (limit.per or 31 * 86_400) * _MICRO) / _MICRO
        speed = self._speed(policy, limit)
        return excess / speed / _MICRO if speed else None

    def _allowed(self, policy: Policy, limit: Limit, max_wait: float, wall: float) -> float:
        if limit.shadow:
            return UNKNOWN
        if limit.window == "calendar":
            after = wall + max_wait * _MICRO - policy.next_edge(limit, wall)
            if after < 0:
                return 0.0
            period = limit.per * _MICRO if limit.per else _MONTH
            return limit.capacity * (1 + after // period) / self._ratio(policy, limit)
        speed = self._speed(policy, limit)
        return UNKNOWN if speed is None else speed * max_wait * _MICRO

    def _recent(self, resource: str, raw: float) -> deque[float]:
        key = resource, bisect.bisect(_HORIZONS, raw)
        known = self._errors.get(key)
        if known is None:
            self._bound(self._errors)
            known = self._errors[key] = deque(_PRIOR, maxlen=_KEPT)
        return known

    def _quantile(self, resource: str, raw: float, q: float) -> float:
        known = sorted(self._errors.get((resource, bisect.bisect(_HORIZONS, raw)), _PRIOR))
        return max(known[min(len(known) - 1, int(q * len(known)))], 1e-3)

    def _bound(self, learned: dict) -> None:  # type: ignore[type-arg]  # of any key
        if len(learned) >= self._most:
            del learned[next(iter(learned))]
