"""AWS Bedrock: exception names instead of codes, and never a Retry-After."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Backoff, Pin, Refund, Retry
from limiter_wire.providers.rules import (
    Rule,
    conflict,
    exhausted,
    failed,
    filtered,
    forbidden,
    garbled,
    http,
    in_stream,
    interrupted,
    invalid,
    late,
    missing,
    overloaded,
    server_error,
    stream,
    throttled,
    too_long,
    unauthenticated,
)

# When the day of a quota ends is not documented: wait long, and try.
_DAY = exhausted("daily", Pin.MODEL, retry=Retry.RESET, refund=Refund.TOKENS, backoff=Backoff.LONG)
_TOO_LONG = r"input is too long|too many input tokens|input too long|maximum context"

RULES: tuple[Rule, ...] = (
    http(429, overloaded("warming_up", refund=Refund.ALL), code=r"ModelNotReady"),
    http(429, _DAY, code=r"Throttling", text=r"per day"),
    http(429, throttled("minute"), code=r"Throttling"),
    http(400, exhausted("service_quota", Pin.ACCOUNT), code=r"ServiceQuotaExceeded"),
    http(400, too_long(), code=r"Validation", text=_TOO_LONG),
    http(400, invalid(), code=r"Validation"),
    http(400, conflict(), code=r"Conflict"),
    http(403, unauthenticated(), code=r"ExpiredToken|UnrecognizedClient|InvalidSignature"),
    http(403, forbidden("model_access", Pin.MODEL)),
    http(404, missing()),
    http(408, late("model")),
    http(
        424,
        in_stream(failed(Outcome.STREAM_INTERRUPTED, "model_stream")),
        code=r"ModelStreamError",
    ),
    http(424, server_error("model", retry=Retry.ONCE)),
    http(503, overloaded()),
    http(500, server_error()),
    stream(r"throttlingException", in_stream(throttled("in_stream"))),
    stream(r"serviceUnavailableException", in_stream(overloaded("in_stream"))),
    stream(
        r"modelStreamErrorException|internalServerException|modelTimeoutException",
        interrupted("exception_frame"),
    ),
    stream(r"validationException", in_stream(invalid())),
    stream(r"guardrail_intervened|content_filtered", filtered("guardrail")),
    stream(r"malformed_model_output|malformed_tool_use", garbled("model_output")),
    stream(r"crc|prelude", in_stream(failed(Outcome.MALFORMED_STREAM, "frame"))),
)
