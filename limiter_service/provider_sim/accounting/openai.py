"""OpenAI's accounting, whatever `window` and `charge` say."""

from msgspec.structs import replace

from limiter_service.provider_sim.accounting import plain
from limiter_service.provider_sim.accounting.base import Sizes
from limiter_service.provider_sim.accounting.plain import LIVE, headers, retry_headers
from limiter_service.provider_sim.limits import Charges, Limit
from limiter_service.provider_sim.options import Charge, SimOptions, Window

__all__ = ["LIVE", "charges", "headers", "limits", "retry_headers", "settled"]


def limits(options: SimOptions) -> list[Limit]:
    """Token buckets."""
    return plain.limits(replace(options, window=Window.BUCKET))


def charges(options: SimOptions, sizes: Sizes) -> Charges:
    """One request, and max(input, max_tokens)."""
    return plain.charges(replace(options, charge=Charge.MAX), sizes)


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:  # noqa: ARG001
    """As admitted."""
    return charges(options, sizes)
