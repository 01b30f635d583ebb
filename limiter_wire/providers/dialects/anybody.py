"""What holds for every provider: HTTP's own meaning of statuses, and causes on our side."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Backoff, Impact, Pin, Refund, Retry
from limiter_wire.providers.rules import (
    Verdict,
    cancelled,
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
    local,
    missing,
    overloaded,
    server_error,
    stream,
    throttled,
    too_long,
    unauthenticated,
)

# Codes and messages speak of quota also where a rate is meant: both must agree, or the code
# be one that everybody uses for money.
_MONEY = r"quota|billing|credit|spend"
_NO_MONEY = r"exceeded your current quota|billing|credit"
_SURELY_MONEY = r"insufficient_quota|billing_hard_limit|credit_balance|spend_limit"

_POOL_FULL = Verdict(
    category=Outcome.TIMEOUT,
    kind="local_pool",
    retry=Retry.YES,
    impact=Impact.NEUTRAL,
    refund=Refund.ALL,
    backoff=Backoff.EXPONENTIAL,
)
_STALE_SOCKET = Verdict(
    category=Outcome.CONNECTION,
    kind="stale_socket",
    retry=Retry.YES,
    impact=Impact.NEUTRAL,
    refund=Refund.HOLD,
    backoff=Backoff.AT_ONCE,
)

UNKNOWN = Verdict(
    category=Outcome.CANCELLED,
    kind="unknown",
    retry=Retry.NO,
    impact=Impact.NEUTRAL,
    refund=Refund.HOLD,
    backoff=Backoff.NONE,
)
"""Nothing is known: not the provider's fault as far as anybody can say."""

STREAM_ERROR = interrupted("error_event")
"""An error event that no table knows."""

STATUS_UNKNOWN = {
    4: invalid("unlisted_status"),
    5: server_error("unlisted_status"),
}
"""By the first digit of a status that no table lists."""

RULES = (
    http((400, 413, 422, 500), too_long(), code=r"context_length|exceed_context_size"),
    http(429, exhausted("billing", Pin.KEY), code=_MONEY, text=_NO_MONEY),
    http(429, exhausted("billing", Pin.KEY), code=_SURELY_MONEY),
    http(429, throttled("unspecified")),
    http(402, exhausted("payment", Pin.KEY)),
    http(401, unauthenticated()),
    http(403, forbidden()),
    http(404, missing("unknown")),
    http((408, 425), late("request", retry=Retry.YES)),
    http(409, conflict()),
    http(529, overloaded()),
    http(503, overloaded()),
    http((504, 522, 524), late()),
    http((500, 502, 520, 521, 523), server_error()),
    http((400, 405, 413, 415, 422), invalid()),
    # Words that providers use inside streams. None of them is anybody's own.
    stream(r"context_length|context window", in_stream(too_long())),
    stream(r"insufficient_quota|billing|credit_balance", in_stream(exhausted("billing", Pin.KEY))),
    stream(r"content_filter|content_policy", in_stream(filtered("output"))),
    stream(r"rate_?limit|too_many_requests|throttl", in_stream(throttled("in_stream"))),
    stream(r"overload|capacity|unavailable", in_stream(overloaded("in_stream"))),
    stream(r"authentication|invalid_api_key", in_stream(unauthenticated())),
    stream(r"invalid_request|bad_?request|invalid_prompt", in_stream(invalid())),
    stream(r"time_?out", in_stream(late("in_stream"))),
    stream(r"server_error|internal|api_error", in_stream(server_error("in_stream"))),
    local(r"PoolTimeout", _POOL_FULL),
    local(r"ConnectTimeout", failed(Outcome.CONNECTION, "connect_timeout", refund=Refund.ALL)),
    local(
        r"ConnectError|gaierror|SSL|ConnectionRefused",
        failed(Outcome.CONNECTION, "connect", refund=Refund.ALL),
    ),
    local(r"WriteTimeout|WriteError|BrokenPipe", failed(Outcome.CONNECTION, "send")),
    local(
        r"RemoteProtocolError.*without sending a response|ReadError.*\b0 ?bytes",
        _STALE_SOCKET,
    ),
    local(r"ReadTimeout.*\bheaders?\b", late("no_response")),
    local(r"RemoteProtocolError.*complete|ReadError|ReadTimeout", interrupted("mid_body")),
    local(r"eof_without_terminator", interrupted("eof")),
    local(r"idle_watchdog", interrupted("idle")),
    local(r"progress_watchdog", in_stream(failed(Outcome.TIMEOUT, "no_progress"))),
    local(
        r"bad_json|bad_utf8|bad_frame", in_stream(failed(Outcome.MALFORMED_STREAM, "undecodable"))
    ),
    local(r"html_body", failed(Outcome.MALFORMED_STREAM, "html", retry=Retry.ONCE)),
    local(r"tool_args_invalid", garbled("tool_arguments")),
    local(r"cancelled", cancelled()),
    local(r"TimeoutException|TimeoutError|APITimeoutError", late("unspecified")),
    local(
        r"TransportError|RemoteProtocolError|ConnectionError|APIConnectionError|ConnectionReset",
        failed(Outcome.CONNECTION, "transport", refund=Refund.HOLD),
    ),
    local(r"empty_stream", interrupted("empty")),
)
