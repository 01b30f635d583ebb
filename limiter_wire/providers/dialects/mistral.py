"""Mistral: numeric codes, and two kinds of 429 of which one is the provider's shortage."""

from limiter_wire.providers.failures import Backoff
from limiter_wire.providers.rules import (
    Rule,
    http,
    interrupted,
    invalid,
    overloaded,
    stream,
    throttled,
    too_long,
)

_CAPACITY = overloaded("tier_capacity", backoff=Backoff.LONG)

RULES: tuple[Rule, ...] = (
    http(429, _CAPACITY, code=r"\b3505\b|service_tier_capacity_exceeded"),
    http(429, throttled("second_or_minute")),
    http(400, too_long(), text=r"too large for model with"),
    http(422, invalid("schema")),
    stream(r"\berror\b", interrupted("finish_error")),
)
