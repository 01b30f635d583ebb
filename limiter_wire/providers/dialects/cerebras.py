"""Cerebras: no `error` wrapper, and a code that says quota where a rate is meant."""

from limiter_wire.providers.failures import Refund
from limiter_wire.providers.rules import Rule, daily, http, throttled, too_long

RULES: tuple[Rule, ...] = (
    # A request that is too long is answered with no body at all.
    http((400, 413), too_long("no_body", refund=Refund.ALL), code=r"^$", text=r"^$"),
    http(429, daily(), text=r"per day"),
    http(429, throttled("rate")),
)
