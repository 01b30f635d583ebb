"""Anthropic. `details.error_code` is the word to trust; messages change."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Backoff, Impact, Pin, Refund, Retry
from limiter_wire.providers.rules import (
    Rule,
    Verdict,
    conflict,
    exhausted,
    exhausted_until,
    filtered,
    forbidden,
    http,
    in_stream,
    invalid,
    late,
    missing,
    overloaded,
    server_error,
    stream,
    throttled,
    too_long,
    unauthenticated,
    useless,
)

_MONTH = "month"

# The customer's own key store does not answer: theirs to mend, for the whole workspace.
_KEY_STORE = Verdict(
    category=Outcome.SERVER_ERROR,
    kind="customer_key_store",
    retry=Retry.YES,
    impact=Impact.AUTH_PIN,
    refund=Refund.TOKENS,
    backoff=Backoff.LONG,
    pin=Pin.WORKSPACE,
)

RULES: tuple[Rule, ...] = (
    http(
        429,
        exhausted_until("monthly_spend", Pin.ORG, _MONTH),
        code=r"(enforced|contract)_spend_limit_reached",
    ),
    http(429, throttled("ramp"), code=r"ramp_limit_exceeded"),
    http(429, throttled("ramp"), code=r"rate_limit_error", text=r"acceleration"),
    http(429, throttled("minute"), code=r"rate_limit_error"),
    http(
        400,
        exhausted_until("own_cap", Pin.WORKSPACE, _MONTH),
        code=r"invalid_request_error",
        text=r"reached your specified API usage limits",
    ),
    http(400, forbidden("organization_on_hold", Pin.ORG), code=r"organization_on_hold"),
    http(
        400,
        exhausted("credits", Pin.ORG),
        code=r"invalid_request_error",
        text=r"credit balance is too low",
    ),
    http(402, exhausted("billing", Pin.ORG)),
    http(400, too_long(), text=r"prompt is too long|exceed context limit"),
    http(
        400,
        invalid("max_tokens", retry=Retry.CHANGED),
        text=r"maximum allowed number of output tokens",
    ),
    http(413, invalid("body_size", retry=Retry.CHANGED, refund=Refund.ALL)),
    http(401, unauthenticated(), code=r"authentication_error"),
    http(403, forbidden(), code=r"permission_error"),
    http(404, missing(), code=r"not_found_error"),
    http(409, conflict()),
    http(529, overloaded("compaction"), code=r"compaction_unavailable"),
    http(529, overloaded()),
    http(503, _KEY_STORE, code=r"cmek_key_unreachable"),
    http(504, late("request")),
    http(408, late("request", retry=Retry.YES)),
    http(500, server_error()),
    stream(r"overloaded_error", in_stream(overloaded("in_stream"))),
    stream(r"rate_limit_error", in_stream(throttled("in_stream"))),
    stream(r"api_error|timeout_error", in_stream(server_error("in_stream"))),
    stream(r"refusal", filtered("refusal")),
    stream(
        r"model_context_window_exceeded",
        useless(Outcome.CONTEXT_LENGTH_EXCEEDED, "output_cut_by_window", retry=Retry.CHANGED),
    ),
)
