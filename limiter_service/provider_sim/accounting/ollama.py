"""Ollama has no limits but the number of calls that it runs and holds."""

from limiter_service.provider_sim.accounting.base import Sizes, Stamp, shared_limits
from limiter_service.provider_sim.limits import Charges, Limit, Quotas
from limiter_service.provider_sim.options import SimOptions

LIVE = False


def limits(options: SimOptions) -> list[Limit]:
    """Only what was asked for."""
    return shared_limits(options)


def charges(options: SimOptions, sizes: Sizes) -> Charges:  # noqa: ARG001 - as the others
    """Nothing."""
    return {}


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:  # noqa: ARG001
    """Nothing."""
    return {}


def headers(quotas: Quotas, stamp: Stamp) -> dict[str, str]:  # noqa: ARG001 - as the others
    """Nothing."""
    return {}


def retry_headers(seconds: float) -> dict[str, str]:  # noqa: ARG001 - as the others
    """Nothing."""
    return {}
