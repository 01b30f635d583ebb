"""The accounting of Bedrock's runtime.

A request reserves its input and all the output that it allows (the model's maximum where it
names none). At the end it counts for its input without what was read from the cache, and
for each token of output `burndown` times; the difference goes back, or is charged.
No header tells a limit, and none says when to come back.
"""

from limiter_service.provider_sim.accounting.base import (
    Sizes,
    Stamp,
    shared_limits,
    smoothed_bucket,
)
from limiter_service.provider_sim.levels import Bucket
from limiter_service.provider_sim.limits import Charges, Limit, Meter, Quotas
from limiter_service.provider_sim.options import SimOptions

LIVE = False


def limits(options: SimOptions) -> list[Limit]:
    """Token buckets."""
    return [
        Limit(meter=Meter.REQUESTS, level=Bucket(options.rpm)),
        *smoothed_bucket(options, 0.0),
        *shared_limits(options),
        Limit(meter=Meter.TOKENS, level=Bucket(options.tpm)),
    ]


def charges(options: SimOptions, sizes: Sizes) -> Charges:
    """The input, cached or not, and the most output that may come."""
    most = options.most_output if sizes.max_output is None else sizes.max_output
    return {Meter.REQUESTS: 1, Meter.TOKENS: sizes.input + most}


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:
    """Input that was not read from the cache, and output by its burndown rate."""
    spent = sizes.input - sizes.cache_read + produced * options.burndown
    return {Meter.REQUESTS: 1, Meter.TOKENS: spent}


def headers(quotas: Quotas, stamp: Stamp) -> dict[str, str]:  # noqa: ARG001 - as the others
    """Nothing."""
    return {}


def retry_headers(seconds: float) -> dict[str, str]:  # noqa: ARG001 - as the others
    """Nothing."""
    return {}
