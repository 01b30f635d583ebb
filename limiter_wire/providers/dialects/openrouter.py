"""OpenRouter: its own refusals, and those of the provider behind it."""

from limiter_wire.providers.failures import Pin, Refund, Retry
from limiter_wire.providers.rules import (
    Rule,
    exhausted,
    exhausted_until,
    filtered,
    http,
    in_stream,
    interrupted,
    late,
    overloaded,
    server_error,
    stream,
    throttled,
    too_long,
)

_TOO_LONG = r"context_length_exceeded|token_limit_exceeded|max_tokens_exceeded"
_UPSTREAM = throttled("upstream", retry=Retry.ELSEWHERE, refund=Refund.ALL)
_MODERATION = filtered("moderation", refund=Refund.ALL)

RULES: tuple[Rule, ...] = (
    http(
        402, throttled("in_flight_budget", refund=Refund.ALL), code=r"openrouter_in_flight_budget"
    ),
    http(402, exhausted("credits", Pin.KEY)),
    http(403, _MODERATION, code=r"content_policy_violation|moderation"),
    http(403, _MODERATION, text=r"moderat|flagged"),
    http(
        429,
        exhausted_until("free_daily", Pin.KEY, "day"),
        text=r"per-day|free-models-per-day",
    ),
    http(429, _UPSTREAM, code=r"provider|upstream"),
    http(429, throttled("platform", refund=Refund.ALL)),
    http(502, server_error("upstream", retry=Retry.ELSEWHERE, refund=Refund.ALL)),
    http((503, 529), overloaded(refund=Refund.ALL)),
    http((408, 524), late("upstream")),
    http(400, too_long(refund=Refund.ALL), code=_TOO_LONG),
    stream(r"provider_overloaded", in_stream(overloaded("in_stream"))),
    stream(r"\berror\b", interrupted("finish_error")),
)
