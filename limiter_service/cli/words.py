"""Figures and times as people read them, and names as they type them."""

import math
import time
from typing import Any

from limiter_service.cli.ending import WRONG_WORDS, fail

_THOUSAND = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def parts(resource: str) -> tuple[str, str]:
    """Pool and model. Ends the command when *resource* has not both."""
    pool, slash, model = resource.partition("/")
    if not (pool and slash and model):
        fail(f"{resource!r} is no resource: give it as pool/model", WRONG_WORDS)
    return pool, model


def clock(then: float) -> str:
    """A Unix time."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(then))


def amount(value: float | None, meter: str = "") -> str:
    """A number of tokens, requests or dollars."""
    if value is None:
        return "-"
    if meter == "cost_usd":
        return f"${value:,.2f}"
    if value == int(value) or abs(value) >= _THOUSAND:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def lasting(seconds: float | None) -> str:
    """A duration in its largest two units."""
    if seconds is None:
        return "-"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def share_used(limit: dict[str, Any]) -> float:
    """The share of a limit that is used: more than 1 where it is overdrawn."""
    whole = limit["limit"] or 1.0
    return max(0.0, 1 - float(limit["remaining"]) / float(whole))


def bar(share: float, width: int) -> str:
    """A share of *width* characters."""
    full = min(width, math.ceil(min(1.0, share) * width)) if share > 0 else 0
    return "#" * full + "." * (width - full)


def tightest(limits: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The limit of which the largest share is used, of those that refuse."""
    enforced = [limit for limit in limits if not limit["shadow"]]
    return max(enforced, key=share_used, default=None)
