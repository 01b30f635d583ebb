"""Cohere's accounting: requests per minute, and nothing else."""

from limiter_service.provider_sim.accounting.base import (
    Sizes,
    Stamp,
    shared_limits,
    smoothed_window,
)
from limiter_service.provider_sim.headers import retry_headers, whole_seconds
from limiter_service.provider_sim.levels import MINUTE, FixedWindow
from limiter_service.provider_sim.limits import Charges, Limit, Meter, Quotas
from limiter_service.provider_sim.options import SimOptions

__all__ = ["LIVE", "charges", "headers", "limits", "retry_headers", "settled"]

LIVE = False


def limits(options: SimOptions) -> list[Limit]:
    """Fixed minutes."""
    return [
        Limit(meter=Meter.REQUESTS, level=FixedWindow(options.rpm, MINUTE)),
        *smoothed_window(options, 0.0),
        *shared_limits(options),
    ]


def charges(options: SimOptions, sizes: Sizes) -> Charges:  # noqa: ARG001 - as the others
    """One request."""
    return {Meter.REQUESTS: 1}


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:  # noqa: ARG001
    """As admitted."""
    return charges(options, sizes)


def headers(quotas: Quotas, stamp: Stamp) -> dict[str, str]:
    """The reset is a point in time, in seconds of the epoch."""
    quota = quotas[Meter.REQUESTS]
    reset = int(stamp.date.timestamp()) + whole_seconds(quota.reset_after / stamp.speed)
    return {
        "x-ratelimit-limit": str(quota.limit),
        "x-ratelimit-remaining": str(quota.remaining),
        "x-ratelimit-reset": str(reset),
    }
