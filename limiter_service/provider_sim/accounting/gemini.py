"""The accounting of the Gemini API.

Requests per minute and per day, and tokens per minute of input alone, in fixed windows.
Limits are told in no header; the body of a refusal names the quota and the wait.
"""

from limiter_service.provider_sim.accounting.base import (
    Sizes,
    Stamp,
    shared_limits,
    smoothed_window,
)
from limiter_service.provider_sim.levels import MINUTE, FixedWindow
from limiter_service.provider_sim.limits import Charges, Limit, Meter, Quotas
from limiter_service.provider_sim.options import SimOptions

LIVE = False


def limits(options: SimOptions) -> list[Limit]:
    """Fixed minutes."""
    return [
        Limit(meter=Meter.REQUESTS, level=FixedWindow(options.rpm, MINUTE)),
        *smoothed_window(options, 0.0),
        *shared_limits(options),
        Limit(meter=Meter.INPUT, level=FixedWindow(options.itpm or options.tpm, MINUTE)),
    ]


def charges(options: SimOptions, sizes: Sizes) -> Charges:  # noqa: ARG001 - as the others
    """One request and its input."""
    return {Meter.REQUESTS: 1, Meter.INPUT: sizes.input}


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:  # noqa: ARG001
    """As admitted: output costs money, and no quota."""
    return charges(options, sizes)


def headers(quotas: Quotas, stamp: Stamp) -> dict[str, str]:  # noqa: ARG001 - as the others
    """Nothing."""
    return {}


def retry_headers(seconds: float) -> dict[str, str]:  # noqa: ARG001 - as the others
    """Nothing: RetryInfo stands in the body."""
    return {}
