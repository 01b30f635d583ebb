"""OpenAI's accounting, and its variations by `window` and `charge`.

Requests and tokens are token buckets that refill with every moment. A request is charged
max(input, max_tokens) when it is admitted, and nothing comes back.
"""

from typing import assert_never

from limiter_service.provider_sim.accounting.base import (
    Sizes,
    Stamp,
    shared_limits,
    smoothed_bucket,
    smoothed_window,
)
from limiter_service.provider_sim.headers import rate_limit_headers, retry_headers
from limiter_service.provider_sim.levels import MINUTE, Bucket, FixedWindow, Level
from limiter_service.provider_sim.limits import Charges, Limit, Meter, Quotas
from limiter_service.provider_sim.options import Charge, SimOptions, Window

__all__ = ["LIVE", "charge_of", "charges", "headers", "limits", "retry_headers", "settled"]

LIVE = False


def limits(options: SimOptions) -> list[Limit]:
    """One bucket or fixed minute for requests, and one for tokens."""

    def level(limit: float) -> Level:
        return Bucket(limit) if options.window is Window.BUCKET else FixedWindow(limit, MINUTE)

    if options.window is Window.BUCKET:
        hidden = smoothed_bucket(options, 0.0)
    else:
        hidden = smoothed_window(options, 1.0 if options.window is Window.SECOND else 0.0)
    return [
        Limit(meter=Meter.REQUESTS, level=level(options.rpm)),
        *hidden,
        *shared_limits(options),
        Limit(meter=Meter.TOKENS, level=level(options.tpm)),
    ]


def charge_of(rule: Charge, sizes: Sizes) -> int:
    """The tokens that a request counts for by `rule`."""
    most = sizes.max_output or 0
    match rule:
        case Charge.MAX:
            return max(sizes.input, most)
        case Charge.SUM:
            return sizes.input + most
        case Charge.ACTUAL:
            return sizes.input + sizes.output
        case _:
            assert_never(rule)


def charges(options: SimOptions, sizes: Sizes) -> Charges:
    """One request, and the tokens that the rule counts."""
    return {Meter.REQUESTS: 1, Meter.TOKENS: charge_of(options.charge, sizes)}


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:  # noqa: ARG001
    """As admitted: whatever the answer had, nothing comes back."""
    return charges(options, sizes)


def headers(quotas: Quotas, stamp: Stamp) -> dict[str, str]:
    """`x-ratelimit-*` with durations."""
    return rate_limit_headers(quotas, stamp.speed)
