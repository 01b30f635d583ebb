"""What one request is to a limiter, and the interface of a provider's accounting."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from limiter_service.provider_sim.levels import (
    DAY,
    MINUTE,
    Bucket,
    FixedWindow,
    Growth,
    Slots,
)
from limiter_service.provider_sim.limits import Charges, Limit, Meter, Period, Quotas
from limiter_service.provider_sim.options import SimOptions


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of one request, as the provider sees them when it comes.

    `input` is the whole prompt; `cache_read` and `cache_write` are parts of it.
    `max_output` is None when the caller set none; `output` is what the answer will have.
    """

    input: int
    cache_read: int = 0
    cache_write: int = 0
    max_output: int | None = None
    output: int = 0


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """When an answer leaves: what headers need to tell times in the caller's seconds."""

    speed: float
    date: datetime


class Accounting(Protocol):
    """How one provider counts. A module of this package."""

    @property
    def LIVE(self) -> bool:  # noqa: N802 - a constant of the module
        """Whether output is charged while it is generated, and not at the end."""
        ...

    def limits(self, options: SimOptions) -> Sequence[Limit]:
        """The limits of a new account."""
        ...

    def charges(self, options: SimOptions, sizes: Sizes) -> Charges:
        """What a request is charged when it is admitted."""
        ...

    def settled(self, options: SimOptions, sizes: Sizes, produced: int) -> Charges:
        """What it counts for in the end, with `produced` tokens of output."""
        ...

    def headers(self, quotas: Quotas, stamp: Stamp) -> dict[str, str]:
        """The limits as every answer tells them."""
        ...

    def retry_headers(self, seconds: float) -> dict[str, str]:
        """What a refusal says about when to come back."""
        ...


def shared_limits(options: SimOptions) -> list[Limit]:
    """The limits that any provider may have besides: per day, on running calls, and on how fast
    requests grow.
    """
    found = []
    if options.rpd is not None:
        level = FixedWindow(options.rpd, DAY)
        found.append(Limit(meter=Meter.REQUESTS, level=level, period=Period.DAY))
    if options.concurrency is not None:
        slots = Slots(options.concurrency)
        found.append(Limit(meter=Meter.CONCURRENCY, level=slots, period=Period.NONE))
    if options.acceleration is not None:
        span = options.acceleration_seconds
        growth = Growth(options.acceleration_start, options.acceleration, span)
        found.append(Limit(meter=Meter.REQUESTS, level=growth, told=False, growth=True))
    return found


def smoothed_bucket(options: SimOptions, default: float) -> list[Limit]:
    """Requests per minute that may not come all at once: a bucket of a second or so."""
    seconds = default if options.smoothing is None else options.smoothing
    if seconds == 0:
        return []
    level = Bucket(options.rpm, max(1.0, options.rpm * seconds / MINUTE))
    return [Limit(meter=Meter.REQUESTS, level=level, told=False)]


def smoothed_window(options: SimOptions, default: float) -> list[Limit]:
    """The same in fixed windows, which are never too short for one request."""
    seconds = default if options.smoothing is None else options.smoothing
    if seconds == 0:
        return []
    width = max(seconds, MINUTE / options.rpm)
    level = FixedWindow(options.rpm * width / MINUTE, width)
    return [Limit(meter=Meter.REQUESTS, level=level, told=False)]
