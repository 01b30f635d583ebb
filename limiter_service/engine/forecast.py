"""How long a waiter will wait: from the need ahead of it, refill, and what is given back.

A limit serves its rate, and what settles refund on top: when calls use a part r of what they
reserve, it grants rate / r. So n units of need above the room that there is take n * r / rate. A
concurrency limit of c slots, each held for h, serves c / h. The raw forecast is the longest over
all limits.

It does not know who comes later and is served before. Lines that wait now go on asking: at
most they use their whole share until the waiter's turn. So there are rival raw forecasts, from
the need that stands before the waiter now, from the most that it can become, and from between.
The truth may be beyond (a tenant whose line is empty may come), but while traffic is steady it
is near one of them, stretched by one factor: the pace of a line, the median of actual over raw
waits, of the line or, while it is new, of the resource. Whichever raw forecast has the
steadiest ratio for a line is used; at its pace it is `p50`.

How far waits stray from that depends on how far the forecast looks: `p90` is a percentile by
horizon, which each line moves until one wait in ten is longer.

What is learned is this replica's own: losing it costs accuracy, never a limit.
"""

import bisect
import math
from collections.abc import Sequence

import msgspec

from limiter_service.engine.levels import Level, allowance, left
from limiter_service.engine.paces import Bound, Known, Paces, Recent
from limiter_service.engine.policy import Limit, Policy
from limiter_service.engine.returns import Returns
from limiter_service.engine.shape import History

_MICRO = 1_000_000
_DAY = 86_400 * _MICRO
_MONTH = 31 * _DAY
_LEAST_RATIO, _MOST_RATIO = 0.02, 5.0
_PACE_OF, _SPREAD_OF = 128, 512
"""Waits that are remembered: of a line, and of a horizon."""
_FEW = 8
_MOST_PACES = 1000
"""Resources, and lines, of which waits are remembered: 30 kB each, and callers make up names."""
_PRIOR_PACE = (1.0,) * 9  # so that a few short waits say little about long ones
_PRIOR_SPREAD = (0.6, 0.8, 0.9, 1.0, 1.0, 1.0, 1.1, 1.2, 1.3, 1.6)
_BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the need now and the most that it can become."""
_LEAST_PACE = _SHORTEST = 1e-3
_HORIZONS = (0.2, 1.0, 4.0, 16.0, 64.0)
UNKNOWN = -1.0


class Prediction(msgspec.Struct, frozen=True):
    """Seconds: the raw forecasts, from the need now to the most that it can become; the median
    and the 90th percentile after correction. `judged` is how many bounds of the line had been.
    """

    raws: tuple[float, ...]
    p50: float
    p90: float
    judged: int


class Forecast:
    """What one replica has learned about waits."""

    def __init__(self, most: int = 10_000) -> None:
        self._returns = Returns(most)
        few = min(most, _MOST_PACES)
        self._paces = Known(few, lambda: Paces(len(_BLENDS), _PACE_OF, _PRIOR_PACE))
        self._line_paces = Known(few, lambda: Paces(len(_BLENDS), _PACE_OF))
        self._bounds = Known(few, Bound)
        self._spreads = Known(few, lambda: Recent(_SPREAD_OF, _PRIOR_SPREAD))

    def learn_settle(
        self,
        policy: Policy,
        charges: Sequence[float],
        history: History,
    ) -> None:
        """Take in how much of a reservation was used, and how long the lease was held."""
        self._returns.learn(policy.resource, charges, history)

    def learn_wait(
        self,
        policy: Policy,
        priority: int,
        predicted: Prediction,
        actual: float,
        *,
        over: bool = True,
    ) -> None:
        """Take in how long somebody really waited; without *over*, has waited in vain: that
        says something only when it was longer than predicted.
        """
        if predicted.p50 <= 0 or not (over or actual > predicted.p50):
            return
        ratios = [actual / max(raw, _SHORTEST) for raw in predicted.raws]
        self._paces.at(policy.resource).add(ratios)
        self._line_paces.at((policy.resource, policy.tenant, priority)).add(ratios)
        spread = self._spreads.at((policy.resource, _horizon(predicted.p50)))
        spread.add(actual / max(predicted.p50, _SHORTEST))
        bound = self._bounds.at((policy.resource, policy.tenant, priority))
        bound.learn(predicted.judged, held=actual <= predicted.p90)

    def allowed(
        self, policy: Policy, priority: int, max_wait: float, wall: float
    ) -> tuple[list[float], float]:
        """For each limit the need above its room that is served within *max_wait* seconds; and
        which need that is, from 0, the one now, to 1, the most that it can become.
        """
        paces = self._paces_of(policy, priority)
        most = max_wait / max(_LEAST_PACE, paces.pace())
        allowed = [self._allowed(policy, limit, most, wall) for limit in policy.limits]
        return allowed, _BLENDS[paces.best]

    def predict(
        self,
        policy: Policy,
        priority: int,
        needs: tuple[Sequence[float], Sequence[float]],
        amounts: Sequence[float],
        levels: Sequence[Level],
        wait_us: float,
    ) -> Prediction:
        """The wait of a request for *amounts* that has *needs* ahead of it, now and at most;
        *wait_us* is what the limits themselves say, for limits whose speed nobody knows.
        """
        raws = tuple(
            self._raw(policy, _between(needs, blend), amounts, levels, wait_us) for blend in _BLENDS
        )
        paces = self._paces_of(policy, priority)
        p50 = raws[paces.best] * max(_LEAST_PACE, paces.pace())
        spread = self._spreads.of((policy.resource, _horizon(p50)))
        bound = self._bounds.of((policy.resource, policy.tenant, priority))
        return Prediction(raws, p50, p50 * max(1.0, bound.of(spread)), bound.judged)

    def _raw(
        self,
        policy: Policy,
        needs: Sequence[float],
        amounts: Sequence[float],
        levels: Sequence[Level],
        wait_us: float,
    ) -> float:
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
        return raw if known else max(raw, wait_us / _MICRO)

    def _paces_of(self, policy: Policy, priority: int) -> Paces:
        of_line = self._line_paces.of((policy.resource, policy.tenant, priority))
        return of_line if len(of_line) >= _FEW else self._paces.of(policy.resource)

    def _ratio(self, policy: Policy, limit: Limit) -> float:
        ratio = self._returns.ratio(policy.resource, limit.id)
        return min(_MOST_RATIO, max(_LEAST_RATIO, ratio))

    def _speed(self, policy: Policy, limit: Limit) -> float | None:
        """Units of reservation per microsecond."""
        if limit.window == "concurrency":
            held = self._returns.held(policy.resource)
            return limit.capacity / held if held else None
        per = (limit.per or 31 * 86_400) * _MICRO
        return limit.limit * limit.unit / per / self._ratio(policy, limit)

    def _wait(self, policy: Policy, limit: Limit, excess: float, level: Level) -> float | None:
        if limit.window == "calendar":
            first = policy.next_edge(limit, level.wall) - level.wall
            windows = math.ceil(excess * self._ratio(policy, limit) / limit.capacity)
            return (first + (windows - 1) * (limit.per or 31 * 86_400) * _MICRO) / _MICRO
        if limit.window == "ramp":
            return _climb(limit, allowance(limit, level), excess * self._ratio(policy, limit))
        speed = self._speed(policy, limit)
        return excess / speed / _MICRO if speed else None

    def _allowed(self, policy: Policy, limit: Limit, max_wait: float, wall: float) -> float:
        if limit.shadow or limit.window == "ramp":  # what it allows by now is in the store
            return UNKNOWN
        if limit.window == "calendar":
            after = wall + max_wait * _MICRO - policy.next_edge(limit, wall)
            if after < 0:
                return 0.0
            period = limit.per * _MICRO if limit.per else _MONTH
            return limit.capacity * (1 + after // period) / self._ratio(policy, limit)
        speed = self._speed(policy, limit)
        return UNKNOWN if speed is None else speed * max_wait * _MICRO


def _climb(ramp: Limit, allowed: float, excess: float) -> float:
    """Seconds until a ramp that allows so much has let pass *excess* more, when all that it
    allows is used: a sum of powers of its factor.
    """
    assert ramp.per is not None
    growth = ramp.factor - 1
    return ramp.per * math.log1p(excess * growth / (allowed * ramp.factor)) / math.log1p(growth)


def _between(needs: tuple[Sequence[float], Sequence[float]], blend: float) -> list[float]:
    return [now + blend * (most - now) for now, most in zip(*needs, strict=True)]


def _horizon(wait: float) -> int:
    return bisect.bisect(_HORIZONS, wait)
