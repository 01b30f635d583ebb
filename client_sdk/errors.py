"""Everything that the SDK raises.

SluicegateError
  InvalidRequest          a field is wrong; the message names it
  RequestConflict         the request id was used with other parameters
  NotAllowed              no valid API key, or one that does not allow this
  UnknownResource         the service has no such pool or model
  LeaseError
    UnknownLease          never granted, or ended long ago
    LeaseExpired          it ended before it was settled or renewed
  Refused                 no budget now
    RateLimited           a limit is reached; `retry_after` says when it fits
      QueueFull           the pool's queue takes no more waiters
      WaitTooLong         the predicted wait is longer than `max_wait`
      WaitTimeout         `max_wait` is over
    RetryBudgetExhausted  the fleet retries too much
    NeverFits             larger than a limit: waiting does not help
    BreakerOpen           the resource is down, cooling down, or latched
  ServiceUnavailable      the service or its store cannot be reached
  ServiceFault            the service failed, or answered what nobody understands
  LimiterClosed           the limiter was closed before; a RuntimeError too
  CallFailed              the provider's call ended badly; `partial` is what arrived
    StreamInterrupted     the stream broke, or stopped without its end
    StreamStalled         nothing, or nothing of use, came in time
    ProviderError         the provider reported an error; `status` and `category` say which
    ProtocolError         what came cannot be understood
      NotAnEventStream    the answer is no stream: a page, or one body
    EmptyStream           the stream ended before it said anything
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from limiter_wire import ErrorCode, LimitState, Outcome, Problem, Usage

if TYPE_CHECKING:
    from client_sdk.llm.results import Response
    from limiter_wire.providers import ContextTokens, Failure, SpentLimit


class SluicegateError(Exception):
    """The root of the tree: data first, the text is made from it.

    `retryable` says whether the same call can succeed later, `retry_after` (seconds, None
    when nobody knows) when. `phase` is what was under way: acquire, settle, renew, check.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        resource: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        phase: str | None = None,
        code: ErrorCode | None = None,
        limit: str | None = None,
        would_fit: int | None = None,
        limits: Sequence[LimitState] = (),
        usage: Usage | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.resource, self.request_id, self.reason = resource, request_id, reason
        self.retry_after, self.phase, self.code = retry_after, phase, code
        self.limit, self.would_fit, self.limits = limit, would_fit, tuple(limits)
        self.partial: str | None = None
        self.usage = usage

    @property
    def provider(self) -> str | None:
        """The pool of the resource: one provider account."""
        return self.resource.partition("/")[0] if self.resource else None

    @property
    def model(self) -> str | None:
        """The model of the resource."""
        return self.resource.partition("/")[2] if self.resource else None

    def __str__(self) -> str:
        parts = [super().__str__()]
        if self.resource:
            parts.append(f"resource {self.resource}")
        if self.request_id:
            parts.append(f"request {self.request_id}")
        return f"{parts[0]} [{', '.join(parts[1:])}]" if parts[1:] else parts[0]


class InvalidRequest(SluicegateError):
    """A field is wrong, or the body too large; the message says which and what is allowed."""


class RequestConflict(SluicegateError):
    """The request id was used before with other parameters."""


class NotAllowed(SluicegateError):
    """The API key is missing, unknown, or does not allow this."""


class UnknownResource(SluicegateError):
    """The service has no such pool or model."""


class LeaseError(SluicegateError):
    """The lease cannot be changed any more."""


class UnknownLease(LeaseError):
    """The lease was never granted, or ended long ago."""


class LeaseExpired(LeaseError):
    """The lease ended before this report; its tokens stay spent."""


class Refused(SluicegateError):
    """There is no budget now."""

    retryable = True


class RateLimited(Refused):
    """A limit is reached."""


class QueueFull(RateLimited):
    """The pool's queue takes no more waiters."""


class WaitTooLong(RateLimited):
    """The predicted wait is longer than `max_wait`."""


class WaitTimeout(RateLimited):
    """`max_wait` is over."""


class RetryBudgetExhausted(Refused):
    """The fleet retries too much; a first attempt may still pass."""


class NeverFits(Refused):
    """The request is larger than a limit can ever hold."""

    retryable = False


class BreakerOpen(Refused):
    """The resource is down, cooling down, or latched.

    `reason` is `open`, `probing`, `cooldown`, `forced_open` or `latched`; `retry_after` is when
    to come back.
    """


class ServiceUnavailable(SluicegateError):
    """The service or its store cannot be reached."""

    retryable = True


class ServiceFault(SluicegateError):
    """The service failed, or its answer cannot be understood."""


class LimiterClosed(SluicegateError, RuntimeError):
    """The limiter was closed: nothing can be asked through it any more. What it had leased and did
    not settle by then ends when its time is over.
    """


class CallFailed(SluicegateError):
    """The provider's call ended badly.

    `outcome` is how the stream ended, `category` what a settle reports. `partial` is the
    text that arrived, `usage` what is known of the tokens, `chunks` and `bytes` count pieces of
    content and bytes. What the provider said stands in `status`, `provider_code`,
    `provider_type`, `provider_message` and `provider_request_id`, and `excerpt` is the begin of
    an answer that is no stream; neither is part of the exception's text, since both may quote
    the request. `failure` is what it means, with `token_limits` (the sizes that the provider
    named) and `spent_limit` (the limit that it named) where there are any. An LLM client adds
    `response`, the answer as far as it came, and `attempts`, the requests that it took.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: StrEnum | None = None,
        category: Outcome | None = None,
        retryable: bool = False,
        partial: str | None = None,
        status: int | None = None,
        provider_code: str | None = None,
        provider_type: str | None = None,
        provider_message: str = "",
        excerpt: str = "",
        resource: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        phase: str | None = None,
        usage: Usage | None = None,
        failure: "Failure | None" = None,
        provider_request_id: str | None = None,
        chunks: int = 0,
        bytes: int = 0,  # noqa: A002  # a count, as in the statistics
    ) -> None:
        super().__init__(
            message,
            resource=resource,
            request_id=request_id,
            retry_after=retry_after,
            phase=phase,
            usage=usage,
        )
        self.failure, self.provider_request_id = failure, provider_request_id
        self.chunks, self.bytes = chunks, bytes
        self.response: Response | None = None
        self.attempts = 1
        self.outcome, self.category, self.retryable = outcome, category, retryable
        self.partial, self.status, self.excerpt = partial, status, excerpt
        self.provider_code, self.provider_type = provider_code, provider_type
        self.provider_message = provider_message

    @property
    def token_limits(self) -> "ContextTokens | None":
        """The sizes that the provider named when the request was too long for it."""
        return None if self.failure is None else self.failure.tokens

    @property
    def spent_limit(self) -> "SpentLimit | None":
        """The limit that the provider named when it was spent."""
        return None if self.failure is None else self.failure.limit


class StreamInterrupted(CallFailed):
    """The stream broke, or stopped without its end."""


class StreamStalled(CallFailed):
    """Nothing, or nothing of use, came in time."""


class ProviderError(CallFailed):
    """The provider reported an error."""


class ProtocolError(CallFailed):
    """What came cannot be understood."""


class NotAnEventStream(ProtocolError):
    """The answer is no stream: a page, or one body."""


class EmptyStream(CallFailed):
    """The stream ended before it said anything."""


_CLASSES: dict[ErrorCode, type[SluicegateError]] = {
    ErrorCode.MALFORMED: InvalidRequest,
    ErrorCode.TOO_LARGE: InvalidRequest,
    ErrorCode.HEADERS_TOO_LARGE: InvalidRequest,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: InvalidRequest,
    ErrorCode.INVALID: InvalidRequest,
    ErrorCode.UNAUTHENTICATED: NotAllowed,
    ErrorCode.FORBIDDEN: NotAllowed,
    ErrorCode.UNKNOWN_RESOURCE: UnknownResource,
    ErrorCode.UNKNOWN_LEASE: UnknownLease,
    ErrorCode.NOT_FOUND: ServiceFault,
    ErrorCode.METHOD_NOT_ALLOWED: ServiceFault,
    ErrorCode.REQUEST_TIMEOUT: ServiceUnavailable,
    ErrorCode.REQUEST_CONFLICT: RequestConflict,
    ErrorCode.GENERATION_CONFLICT: RequestConflict,
    ErrorCode.LEASE_EXPIRED: LeaseExpired,
    ErrorCode.NEVER_FITS: NeverFits,
    ErrorCode.RATE_LIMITED: RateLimited,
    ErrorCode.QUEUE_FULL: QueueFull,
    ErrorCode.WAIT_TOO_LONG: WaitTooLong,
    ErrorCode.WAIT_TIMEOUT: WaitTimeout,
    ErrorCode.RETRY_BUDGET: RetryBudgetExhausted,
    ErrorCode.NOT_LENT: RateLimited,
    ErrorCode.TOO_MANY_FAILURES: NotAllowed,
    ErrorCode.BREAKER_OPEN: BreakerOpen,
    ErrorCode.COOLDOWN: BreakerOpen,
    ErrorCode.LATCHED: BreakerOpen,
    ErrorCode.STORE_UNAVAILABLE: ServiceUnavailable,
    ErrorCode.SHUTTING_DOWN: ServiceUnavailable,
    ErrorCode.CANCELLED: ServiceFault,
    ErrorCode.INTERNAL: ServiceFault,
}


def error_of(problem: Problem, phase: str, request_id: str | None) -> SluicegateError:
    """The exception for what the service said."""
    return _CLASSES[problem.code](
        problem.detail or problem.title,
        resource=problem.resource,
        request_id=request_id or problem.request_id,
        retry_after=problem.retry_after,
        phase=phase,
        code=problem.code,
        limit=problem.limit,
        would_fit=problem.would_fit,
        limits=problem.limits,
        reason=problem.reason,
    )
