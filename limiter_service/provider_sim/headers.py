"""How providers write numbers of seconds into headers."""

import math

from limiter_service.provider_sim.limits import Meter, Quotas

_MILLISECONDS = {"h": 3_600_000, "m": 60_000}


def go_duration(seconds: float) -> str:
    """Write `seconds` as Go does (`6m0s`, `1.146s`, `120ms`), rounded up to milliseconds.

    Up, because a caller who comes back a fraction too early is refused again.
    """
    left = milliseconds(seconds)
    if 0 < left < 1000:  # noqa: PLR2004 - below one second Go changes the unit
        return f"{left}ms"
    text = ""
    for unit, size in _MILLISECONDS.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count or text else ""
    return f"{text}{left / 1000:g}s"


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up."""
    # A difference of two floats may exceed a whole number by its last bits.
    return math.ceil(round(seconds * 1000, 6))


def whole_seconds(seconds: float) -> int:
    """Whole seconds, rounded up."""
    return -(-milliseconds(seconds) // 1000)


def rate_limit_headers(quotas: Quotas, speed: float) -> dict[str, str]:
    """OpenAI's headers; reset times are in the caller's seconds."""
    found: dict[str, str] = {}
    for meter in (Meter.REQUESTS, Meter.TOKENS):
        if quota := quotas.get(meter):
            found |= {
                f"x-ratelimit-limit-{meter}": str(quota.limit),
                f"x-ratelimit-remaining-{meter}": str(quota.remaining),
                f"x-ratelimit-reset-{meter}": go_duration(quota.reset_after / speed),
            }
    return found


def retry_headers(seconds: float) -> dict[str, str]:
    """When to come back, never at once: to the millisecond, and in whole seconds."""
    wait = max(1, milliseconds(seconds))
    return {"retry-after-ms": str(wait), "retry-after": str(math.ceil(wait / 1000))}
