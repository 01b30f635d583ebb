"""Anthropic's accounting.

Requests, input and output are separate token buckets. Input counts at the start, without
what was read from the cache; output counts as it is generated, whatever `max_tokens` says,
so that a call may overdraw the bucket and the next one waits. Requests are smoothed.
"""

from datetime import timedelta

from limiter_service.provider_sim.accounting.base import (
    Sizes,
    Stamp,
    shared_limits,
    smoothed_bucket,
)
from limiter_service.provider_sim.headers import whole_seconds
from limiter_service.provider_sim.levels import Bucket
from limiter_service.provider_sim.limits import Charges, Limit, Meter, Quota, Quotas
from limiter_service.provider_sim.options import SimOptions

LIVE = True

_NAMES = {
    Meter.REQUESTS: "requests",
    Meter.INPUT: "input-tokens",
    Meter.OUTPUT: "output-tokens",
}
# Remaining tokens are told to the nearest thousand.
_GRAIN = 1000


def limits(options: SimOptions) -> list[Limit]:
    """Three buckets, and the one-second bucket of requests."""
    itpm = options.tpm if options.itpm is None else options.itpm
    otpm = max(1, options.tpm // 5) if options.otpm is None else options.otpm
    return [
        Limit(meter=Meter.REQUESTS, level=Bucket(options.rpm)),
        *smoothed_bucket(options, 1.0),
        *shared_limits(options),
        Limit(meter=Meter.INPUT, level=Bucket(itpm)),
        Limit(meter=Meter.OUTPUT, level=Bucket(otpm)),
    ]


def charges(options: SimOptions, sizes: Sizes) -> Charges:
    """One request and its input; no output yet."""
    return settled(options, sizes, 0)


def settled(options: SimOptions, sizes: Sizes, produced: int) -> Charges:  # noqa: ARG001
    """Input that was not read from the cache, and output as far as it came."""
    return {
        Meter.REQUESTS: 1,
        Meter.INPUT: sizes.input - sizes.cache_read,
        Meter.OUTPUT: produced,
    }


def headers(quotas: Quotas, stamp: Stamp) -> dict[str, str]:
    """Each limit, and as `tokens` the one that is closest to its end."""
    found: dict[str, str] = {}
    for meter, name in _NAMES.items():
        if quota := quotas.get(meter):
            found |= _headers(name, quota, stamp)
    tokens = [quotas[meter] for meter in (Meter.INPUT, Meter.OUTPUT) if meter in quotas]
    if tokens:
        closest = min(tokens, key=lambda quota: quota.remaining / quota.limit)
        found |= _headers("tokens", closest, stamp)
    return found


def _headers(name: str, quota: Quota, stamp: Stamp) -> dict[str, str]:
    family = f"anthropic-ratelimit-{name}"
    left = quota.remaining
    if name != "requests":
        left = min(quota.limit, round(left / _GRAIN) * _GRAIN)
    # Whole seconds of the provider: where they pass faster, a fraction of the caller's.
    full = stamp.date + timedelta(seconds=whole_seconds(quota.reset_after) / stamp.speed)
    written = full.isoformat(timespec="seconds" if stamp.speed == 1 else "milliseconds")
    return {
        f"{family}-limit": str(quota.limit),
        f"{family}-remaining": str(left),
        f"{family}-reset": written.replace("+00:00", "Z"),
    }


def retry_headers(seconds: float) -> dict[str, str]:
    """Whole seconds, and that a retry makes sense."""
    return {"retry-after": str(max(1, whole_seconds(seconds))), "x-should-retry": "true"}
