"""The Gemini API, and the words that Vertex AI shares with it.

What tells the kinds of a 429 apart stands in `details`: the id of the violated quota, not
the message, which speaks of plan and billing in every case.
"""

from limiter_wire.providers.failures import Backoff, Pin, Refund, Retry
from limiter_wire.providers.rules import (
    Rule,
    cancelled,
    exhausted,
    exhausted_until,
    filtered,
    forbidden,
    garbled,
    http,
    late,
    missing,
    overloaded,
    server_error,
    stream,
    throttled,
    too_long,
    unauthenticated,
)

PACIFIC = "America/Los_Angeles"
_DAY = exhausted_until("daily", Pin.MODEL, "day", PACIFIC)
_CAPACITY = overloaded("model_capacity", retry=Retry.ELSEWHERE, backoff=Backoff.LONG)
# A rolling window of ten minutes: room comes back within it.
_SPEND = exhausted(
    "rolling_spend",
    Pin.PROJECT,
    retry=Retry.RESET,
    refund=Refund.TOKENS,
    backoff=Backoff.WINDOW,
    span="10 minutes",
)
_BLOCKED = r"\b(SAFETY|RECITATION|BLOCKLIST|PROHIBITED_CONTENT|SPII|IMAGE_SAFETY|blockReason)\b"

RULES: tuple[Rule, ...] = (
    http(429, _CAPACITY, code=r"MODEL_CAPACITY_EXHAUSTED"),
    http(429, exhausted("not_in_tier", Pin.MODEL), text=r"limit: ?0\b"),
    http(429, _DAY, code=r"PerDay"),
    http(429, throttled("minute"), code=r"PerMinute"),
    http(429, _DAY, text=r"per day|PerDay"),
    http(429, _SPEND, text=r"spend|billing"),
    http(429, throttled("minute"), code=r"RATE_LIMIT_EXCEEDED"),
    http(429, throttled("unspecified"), code=r"RESOURCE_EXHAUSTED"),
    http(503, overloaded(), code=r"UNAVAILABLE"),
    http(503, throttled("inside_503"), code=r"\b429\b"),
    http(503, overloaded()),
    http(500, server_error(retry=Retry.ONCE)),
    http(504, late("deadline")),
    http(499, cancelled()),
    http(400, too_long(), text=r"input token count|exceeds the maximum number of tokens"),
    http(400, unauthenticated(), code=r"API_KEY_INVALID"),
    http(400, unauthenticated(), text=r"API key not valid"),
    http(400, forbidden("billing_or_region", Pin.PROJECT), code=r"FAILED_PRECONDITION"),
    http(403, forbidden()),
    http(404, missing()),
    stream(_BLOCKED, filtered("blocked")),
    stream(r"MALFORMED_FUNCTION_CALL|UNEXPECTED_TOOL_CALL", garbled("tool_call")),
)
