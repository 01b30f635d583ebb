"""OpenAI. Its vocabulary is also Azure's."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Backoff, Pin, Refund
from limiter_wire.providers.rules import (
    Rule,
    conflict,
    daily,
    exhausted,
    filtered,
    forbidden,
    http,
    in_stream,
    invalid,
    missing,
    never_fits,
    overloaded,
    server_error,
    stream,
    throttled,
    too_long,
    unauthenticated,
    useless,
)

_MONEY = (
    r"insufficient_quota|billing_hard_limit|credit_balance_exhausted"
    r"|(organization|project)_(spend|usage)_limit_exceeded"
)
# Growth that is too fast is answered with patience, not with one more try in a second.
_RAMP = throttled("ramp", backoff=Backoff.LONG)
_OF_A_DAY = r"per day|\((RPD|TPD)\)"

RULES: tuple[Rule, ...] = (
    http(429, exhausted("billing", Pin.PROJECT), code=_MONEY),
    http(429, never_fits(), text=r"Request too large for"),
    http(429, daily(), code=r"rate_limit_exceeded|requests|tokens", text=_OF_A_DAY),
    http(429, _RAMP, code=r"slow_down"),
    http(429, overloaded("engine"), text=r"currently overloaded"),
    http(429, throttled("minute"), code=r"rate_limit_exceeded|tokens|requests"),
    http(503, _RAMP, code=r"slow_down"),
    http(503, _RAMP, text=r"slow[ _]down"),
    http(503, overloaded(), code=r"server_is_overloaded|service_unavailable"),
    http(500, server_error(), code=r"server_error|internal"),
    http(400, too_long(), code=r"context_length_exceeded"),
    http(400, invalid("string_length"), code=r"string_above_max_length"),
    http(
        400,
        filtered("prompt", refund=Refund.TOKENS),
        code=r"content_policy_violation|invalid_prompt|content_filter",
    ),
    http(401, forbidden("ip_address"), code=r"ip_not_authorized"),
    http(401, unauthenticated(), code=r"invalid_api_key|authentication"),
    http(403, forbidden("region", Pin.ROUTE), code=r"unsupported_country"),
    http(403, forbidden("region", Pin.ROUTE), text=r"country|region"),
    http(404, missing(), code=r"model_not_found"),
    http(409, conflict()),
    stream(
        r"insufficient_quota|credit_balance_exhausted|(spend|usage)_limit_exceeded",
        in_stream(exhausted("billing", Pin.PROJECT)),
    ),
    stream(r"server_is_overloaded|slow_down", in_stream(overloaded("in_stream"))),
    stream(r"rate_limit_exceeded", in_stream(throttled("in_stream"))),
    stream(r"server_error|internal_error", in_stream(server_error("in_stream"))),
    stream(r"content_filter\b(?!_error)", filtered("output")),
    stream(
        r"^(?=.*response\.incomplete).*max_output_tokens",
        useless(Outcome.INVALID_REQUEST, "output_truncated"),
    ),
)
