"""What the provider did, by second and by minute."""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from limiter_service.provider_sim.limits import (
    Admitted,
    Budget,
    Decision,
    Meter,
    Refused,
    TooLarge,
)

# A day of minutes and an hour of seconds: enough for any look back, and a simulator
# that runs for a week does not grow.
KEPT_MINUTES = 1440
KEPT_SECONDS = 3600


class Tally(msgspec.Struct, kw_only=True):
    """Counts of one span of time, which begins `at` seconds after the start."""

    at: int
    requests: int = 0
    granted: int = 0
    refused: int = 0
    too_large: int = 0
    tokens_granted: int = 0

    def count(self, decision: Decision, charged: int) -> None:
        """Add one request."""
        self.requests += 1
        match decision:
            case Admitted():
                self.granted += 1
                self.tokens_granted += charged
            case Refused():
                self.refused += 1
            case TooLarge():
                self.too_large += 1
            case _:
                assert_never(decision)


class SimStats(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of /sim/stats. Times are the provider's seconds since its start.

    `requests_allowed` and `tokens_allowed` are the most that the limits could have
    granted up to the last grant, which was at `last_grant`.
    """

    elapsed: float
    last_grant: float
    requests: int
    granted: int
    refused: int
    too_large: int
    tokens_granted: int
    requests_allowed: float
    tokens_allowed: float
    by_second: list[Tally]
    by_minute: list[Tally]


class Counters:
    """Counts requests in total and in bounded series."""

    def __init__(self) -> None:
        self._total = Tally(at=0)
        self._seconds: dict[int, Tally] = {}
        self._minutes: dict[int, Tally] = {}
        self._last_grant = 0.0

    def count(self, decision: Decision, *, charged: int, now: float) -> None:
        """Add one request that was decided at `now`."""
        if isinstance(decision, Admitted):
            self._last_grant = now
        for tally in (
            self._total,
            _tally_at(self._seconds, int(now), KEPT_SECONDS),
            _tally_at(self._minutes, int(now) // 60 * 60, KEPT_MINUTES),
        ):
            tally.count(decision, charged)

    def stats(self, budgets: Sequence[Budget], now: float) -> SimStats:
        """Everything counted so far, of all accounts."""

        def allowed(meter: Meter) -> float:
            return sum(budget.allowed(meter, self._last_grant) for budget in budgets)

        return SimStats(
            elapsed=now,
            last_grant=self._last_grant,
            requests=self._total.requests,
            granted=self._total.granted,
            refused=self._total.refused,
            too_large=self._total.too_large,
            tokens_granted=self._total.tokens_granted,
            requests_allowed=allowed(Meter.REQUESTS),
            tokens_allowed=allowed(Meter.TOKENS) + allowed(Meter.INPUT),
            by_second=list(self._seconds.values()),
            by_minute=list(self._minutes.values()),
        )


def _tally_at(series: dict[int, Tally], at: int, kept: int) -> Tally:
    tally = series.get(at)
    if tally is None:
        tally = series[at] = Tally(at=at)
        if len(series) > kept:
            del series[next(iter(series))]
    return tally
