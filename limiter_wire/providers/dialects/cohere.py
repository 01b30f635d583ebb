"""Cohere: a bare message, months that end with the calendar, statuses of its own."""

from limiter_wire.providers.failures import Pin
from limiter_wire.providers.rules import (
    Rule,
    cancelled,
    exhausted_until,
    http,
    interrupted,
    stream,
    throttled,
    too_long,
    unauthenticated,
)

_CALLS_PER_MONTH = r"calls? ?/ ?month|per month|trial key.*month"

RULES: tuple[Rule, ...] = (
    http(402, exhausted_until("monthly_cap", Pin.KEY, "month")),
    http(429, exhausted_until("trial_month", Pin.KEY, "month"), text=_CALLS_PER_MONTH),
    http(429, throttled("minute")),
    http(498, unauthenticated("token_or_blocked")),
    http(499, cancelled()),
    http(400, too_long(), text=r"too many tokens|size limit exceeded"),
    stream(r"\b(ERROR|TIMEOUT)\b", interrupted("finish_error")),
)
