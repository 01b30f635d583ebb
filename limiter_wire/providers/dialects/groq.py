"""Groq: OpenAI's bodies, with statuses of its own."""

from limiter_wire.providers.failures import Refund, Retry
from limiter_wire.providers.rules import (
    Rule,
    daily,
    garbled,
    http,
    missing,
    never_fits,
    overloaded,
    throttled,
)

_FLEX = overloaded("flex_tier", retry=Retry.ELSEWHERE, refund=Refund.ALL)

RULES: tuple[Rule, ...] = (
    http(498, _FLEX),
    http(413, never_fits(refund=Refund.ALL)),
    http(429, daily(), text=r"per day|\((RPD|TPD|ASD)\)"),
    http(429, never_fits(), text=r"Request too large"),
    http(429, throttled("minute")),
    http(400, garbled("tool_call"), code=r"tool_use_failed"),
    http((400, 404), missing(), code=r"model_decommissioned|model_not_found"),
)
