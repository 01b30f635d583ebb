"""DeepSeek: a 429 means too many at once, and a 402 an empty balance."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Backoff, Pin, Refund
from limiter_wire.providers.rules import (
    Rule,
    exhausted,
    failed,
    http,
    invalid,
    overloaded,
    stream,
    throttled,
)

# The server hangs up when it has not begun within ten minutes: nothing was computed.
_NOT_BEGUN = failed(
    Outcome.TIMEOUT,
    "not_begun",
    refund=Refund.ALL,
    backoff=Backoff.LONG,
)

RULES: tuple[Rule, ...] = (
    http(402, exhausted("balance", Pin.KEY)),
    http(429, throttled("concurrency", refund=Refund.ALL)),
    http(503, overloaded()),
    http(422, invalid("parameters")),
    stream(r"closed_before_inference", _NOT_BEGUN),
)
