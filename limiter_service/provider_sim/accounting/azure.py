"""Azure OpenAI's accounting.

Tokens are counted as prompt + max_tokens when a request comes, in fixed minutes, and never
given back. Requests are counted by the minute and, untold, by the second (or ten).
"""

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
    """Fixed minutes; requests in seconds besides."""
    return [
        Limit(meter=Meter.REQUESTS, level=FixedWindow(options.rpm, MINUTE)),
        *smoothed_window(options, 1.0),
        *shared_limits(options),
        Limit(meter=Meter.TOKENS, level=FixedWindow(options.tpm, MINUTE)),
    ]


def charges(options: SimOptions, sizes: Sizes) -> Charges:  # noqa: ARG001 - as the others
    """One request, and the prompt with all the output that was allowed."""
    return {Meter.REQUESTS: 1, Meter.TOKENS: sizes.input + (sizes.max_output or 0)}


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:  # noqa: ARG001
    """As admitted."""
    return charges(options, sizes)


def headers(quotas: Quotas, stamp: Stamp) -> dict[str, str]:
    """OpenAI's names, with whole seconds."""
    found = {"x-ms-region": "Sim Central"}
    for meter in (Meter.REQUESTS, Meter.TOKENS):
        if quota := quotas.get(meter):
            found |= {
                f"x-ratelimit-limit-{meter}": str(quota.limit),
                f"x-ratelimit-remaining-{meter}": str(quota.remaining),
                f"x-ratelimit-reset-{meter}": str(whole_seconds(quota.reset_after / stamp.speed)),
            }
    return found
