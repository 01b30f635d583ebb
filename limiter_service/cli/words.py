"""Figures and times as people read them, and names as they type them."""

import math
import time
from typing import Any

from limiter_service.cli.ending import WRONG_WORDS, fail

_THOUSAND = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_ROUNDS_TO_IT = 0.05


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
    if seconds < _MINUTE - _ROUNDS_TO_IT:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


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
