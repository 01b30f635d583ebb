"""Mistral's accounting: requests by the second, prompt and `max_tokens` by the minute."""

from limiter_service.provider_sim.accounting.base import (
    Sizes,
    Stamp,
    shared_limits,
    smoothed_window,
)
from limiter_service.provider_sim.headers import whole_seconds
from limiter_service.provider_sim.levels import MINUTE, FixedWindow
from limiter_service.provider_sim.limits import Charges, Limit, Meter, Quotas
from limiter_service.provider_sim.options import SimOptions

LIVE = False


def limits(options: SimOptions) -> list[Limit]:
    """Requests in seconds, tokens in fixed minutes."""
    return [
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
    """Both families of Mistral's names for the tokens of a minute."""
    tokens = quotas.get(Meter.TOKENS)
    if tokens is None:
        return {}
    return {
        "x-ratelimitbysize-limit-minute": str(tokens.limit),
        "x-ratelimitbysize-remaining-minute": str(tokens.remaining),
        "ratelimitbysize-limit": str(tokens.limit),
        "ratelimitbysize-remaining": str(tokens.remaining),
        "ratelimitbysize-reset": str(whole_seconds(tokens.reset_after / stamp.speed)),
    }


def retry_headers(seconds: float) -> dict[str, str]:
    """Whole seconds."""
    return {"retry-after": str(max(1, whole_seconds(seconds)))}
