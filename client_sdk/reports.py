"""What one attempt of a provider call reports, and what went wrong with it. Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from client_sdk.outcomes import Headers, cause_in, failure_of
from client_sdk.streaming import ProviderFault, StreamAccumulator, StreamOutcome, StreamStatistics
from limiter_wire import Cause, Outcome, Provenance, SpentLimit, Usage

if TYPE_CHECKING:
    from limiter_wire.providers import Failure

_REQUEST_IDS = frozenset({"x-request-id", "request-id", "x-amzn-requestid", "apim-request-id"})
_LOCAL = {
    StreamOutcome.CANCELLED: "cancelled",
    StreamOutcome.TRUNCATED: "eof_without_terminator",
    StreamOutcome.INTERRUPTED: "ReadError",
    StreamOutcome.STALLED_FIRST_TOKEN: "progress_watchdog",
    StreamOutcome.STALLED_CONTENT: "progress_watchdog",
    StreamOutcome.STALLED_BYTES: "idle_watchdog",
    StreamOutcome.PROTOCOL_ERROR: "bad_frame",
    StreamOutcome.NOT_AN_EVENT_STREAM: "html_body",
    StreamOutcome.EMPTY: "empty_stream",
}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a lease is settled with. Times are seconds; None is what nobody knows."""

    outcome: Outcome
    usage: Usage | None = None
    latency: float | None = None
    ttft: float | None = None
    retry_after: float | None = None
    headers: dict[str, str] | None = None
    cause: Cause | None = None
    spent: SpentLimit | None = None


def request_id_in(headers: Headers) -> str | None:
    """The provider's id of the request, for its support."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return next((value for name, value in pairs if name.lower() in _REQUEST_IDS), None)


def judge(provider: str, fault: ProviderFault) -> "Failure":
    """What an error inside a stream means."""
    from limiter_wire.providers import classify  # noqa: PLC0415  # loaded when a call fails

    said = {"code": fault.code, "type": fault.type, "message": fault.message}
    error = {name: value for name, value in said.items() if value}
    failure = classify(provider, status=fault.status, body={"error": error}, stream=True)
    if fault.retry_after is None:
        return failure
    return msgspec.structs.replace(failure, retry_after=fault.retry_after)


def broken(provider: str, error: BaseException, *, begun: bool) -> "Failure | None":
    """What an exception of the transport means; None when it is none of the transport's.

    *begun* says that bytes of the answer had arrived: what is a lost connection before them
    is an interrupted stream after them.
    """
    from limiter_wire.providers import classify_local  # noqa: PLC0415  # as above

    failure = failure_of(error)
    if failure is None or failure.status is not None or not begun:
        return failure
    return classify_local("ReadError", provider)


def ended(provider: str, outcome: StreamOutcome) -> "Failure | None":
    """What a stream that ended so means, None when its answer is whole."""
    from limiter_wire.providers import classify_local  # noqa: PLC0415  # as above

    cause = _LOCAL.get(outcome)
    return None if cause is None else classify_local(cause, provider)


def unserved(failure: "Failure | None") -> bool:
    """Whether the provider has counted no tokens for a call that failed so."""
    return failure is not None and failure.refund.value in {"all", "tokens"}


def usage_to_report(stream: StreamAccumulator, input_tokens: int | None) -> Usage:
    """What is known of the tokens: the provider's figures, else an estimate if content came,
    else that nothing is known. Never a zero that nobody has counted.
    """
    usage = stream.usage
    if usage.provenance is not Provenance.UNKNOWN:
        if not usage.input_tokens and input_tokens and usage.provenance is not Provenance.FINAL:
            return msgspec.structs.replace(usage, input_tokens=input_tokens)
        return usage
    if stream.committed and input_tokens:
        return stream.estimated_usage(input_tokens)
    return usage


def report(
    outcome: Outcome,
    usage: Usage,
    statistics: StreamStatistics,
    *,
    retry_after: float | None,
    headers: dict[str, str],
    failure: "Failure | None" = None,
) -> Report:
    """Everything that a settle says about one attempt; the consumer's time is not its latency."""
    took = max(0.0, statistics.duration - statistics.held)
    return Report(
        outcome=outcome,
        usage=usage,
        latency=took,
        ttft=statistics.time_to_first_token,
        retry_after=retry_after,
        headers=headers or None,
        cause=None if failure is None else cause_in(failure),
        spent=None if failure is None else failure.limit,
    )
