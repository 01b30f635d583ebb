"""What the provider admits and what it refuses: all limits of an account, or none.

Pure: `now` is in the provider's own seconds, counted from its start.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from limiter_service.provider_sim.levels import Level


class Meter(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    CONCURRENCY = "concurrency"


class Period(StrEnum):
    """The time that a limit is stated for."""

    MINUTE = "minute"
    DAY = "day"
    NONE = "none"


Charges = Mapping[Meter, int]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of an account.

    A limit that is not `told` appears in no header: callers are refused while the headers
    still promise room, as at the providers that cut a minute into seconds. One of `growth` is
    about how fast use grows, not about how large it is.
    """

    meter: Meter
    level: Level
    period: Period = Period.MINUTE
    told: bool = True
    growth: bool = False


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """One limit at one moment, as response headers tell it."""

    limit: int
    remaining: int
    reset_after: float


Quotas = Mapping[Meter, Quota]


class Admitted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request runs and was charged."""

    quotas: Quotas


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request would fit after `retry_after`; `meter` is what it has to wait for. `too_fast`:
    use is below every limit, and has grown too fast.
    """

    meter: Meter
    period: Period = Period.MINUTE
    too_fast: bool = False
    limit: int
    used: int
    requested: int
    retry_after: float
    quotas: Quotas


class TooLarge(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request alone is larger than the limit: no wait will help."""

    meter: Meter
    limit: int
    requested: int
    quotas: Quotas


Decision = Admitted | Refused | TooLarge


class Budget:
    """The limits of one account."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._limits = tuple(limits)

    def admit(self, charges: Charges, now: float) -> Decision:
        """Charge a request, or say what it has to wait for."""
        charged = [limit for limit in self._limits if limit.meter in charges]
        for limit in charged:
            if limit.told and charges[limit.meter] > limit.level.limit:
                return TooLarge(
                    meter=limit.meter,
                    limit=int(limit.level.limit),
                    requested=charges[limit.meter],
                    quotas=self.quotas(now),
                )
        # A charge of nothing still needs a limit that is not overdrawn: output that is
        # counted as it is generated refuses the next call, not the one that overdraws.
        waits = [limit.level.wait(max(1, charges[limit.meter]), now) for limit in charged]
        longest = max(waits, default=0.0)
        if longest == 0:
            for limit in charged:
                limit.level.take(charges[limit.meter], now)
            return Admitted(quotas=self.quotas(now))
        # Of limits that open together, the later in the list is named: tokens.
        binding = next(
            limit
            for limit, wait in reversed(list(zip(charged, waits, strict=True)))
            if wait == longest
        )
        return self._refusal(binding, charges[binding.meter], longest, now)

    def _refusal(self, limit: Limit, amount: int, wait: float, now: float) -> Refused:
        told = limit if limit.told else self._told(limit.meter) or limit
        most = int(told.level.limit)
        return Refused(
            meter=limit.meter,
            period=limit.period,
            too_fast=limit.growth,
            limit=most,
            used=most - math.floor(told.level.remaining(now)),
            requested=amount,
            retry_after=wait,
            quotas=self.quotas(now),
        )

    def refusal(self, meter: Meter, wait: float, now: float) -> Refused | None:
        """What a refusal by `meter` would say now; None where there is no such limit."""
        limit = self._told(meter)
        return None if limit is None else self._refusal(limit, 1, wait, now)

    def adjust(self, charges: Charges, now: float) -> None:
        """Charge more, or give back what is negative, without asking."""
        for limit in self._limits:
            if charges.get(limit.meter):
                limit.level.take(charges[limit.meter], now)

    def quotas(self, now: float) -> Quotas:
        """Every limit that is told, as it stands; of one meter, the shortest period."""
        found: dict[Meter, Quota] = {}
        for limit in self._limits:
            if limit.told and limit.meter is not Meter.CONCURRENCY:
                found.setdefault(limit.meter, _quota(limit.level, now))
        return found

    def allowed(self, meter: Meter, now: float) -> float:
        """The most that could have been granted of `meter` since the start."""
        levels = [limit.level for limit in self._limits if limit.meter is meter]
        return min((level.allowed(now) for level in levels), default=0.0)

    def _told(self, meter: Meter) -> Limit | None:
        return next((lim for lim in self._limits if lim.meter is meter and lim.told), None)


def _quota(level: Level, now: float) -> Quota:
    return Quota(
        limit=int(level.limit),
        remaining=max(0, math.floor(level.remaining(now))),
        reset_after=level.reset_after(now),
    )
