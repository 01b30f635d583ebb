"""Refusals and errors: one vocabulary for HTTP (RFC 9457) and for exceptions."""

from enum import StrEnum

from limiter_wire._base import Wire
from limiter_wire.limits import LimitState
from limiter_wire.queue import QueueState


class ErrorCode(StrEnum):
    """Why a request was not served."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    UNKNOWN_RESOURCE = "unknown_resource"
    UNKNOWN_LEASE = "unknown_lease"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    REQUEST_CONFLICT = "request_conflict"
    GENERATION_CONFLICT = "generation_conflict"
    LEASE_EXPIRED = "lease_expired"
    INVALID = "invalid"
    NEVER_FITS = "never_fits"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    WAIT_TOO_LONG = "wait_too_long"
    WAIT_TIMEOUT = "wait_timeout"
    RETRY_BUDGET = "retry_budget"
    NOT_LENT = "not_lent"
    TOO_MANY_FAILURES = "too_many_failures"
    HEADERS_TOO_LARGE = "headers_too_large"
    BREAKER_OPEN = "breaker_open"
    COOLDOWN = "cooldown"
    LATCHED = "latched"
    STORE_UNAVAILABLE = "store_unavailable"
    SHUTTING_DOWN = "shutting_down"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


_ANSWERS: dict[ErrorCode, tuple[int, str]] = {
    ErrorCode.MALFORMED: (400, "The body cannot be read"),
    ErrorCode.UNAUTHENTICATED: (401, "No valid API key"),
    ErrorCode.FORBIDDEN: (403, "The API key does not allow this"),
    ErrorCode.UNKNOWN_RESOURCE: (404, "No such resource is configured"),
    ErrorCode.UNKNOWN_LEASE: (404, "No such lease"),
    ErrorCode.NOT_FOUND: (404, "No such route"),
    ErrorCode.METHOD_NOT_ALLOWED: (405, "The route does not know this method"),
    ErrorCode.REQUEST_TIMEOUT: (408, "The body did not arrive in time"),
    ErrorCode.REQUEST_CONFLICT: (409, "The request id was used with other parameters"),
    ErrorCode.GENERATION_CONFLICT: (409, "The state has changed meanwhile"),
    ErrorCode.LEASE_EXPIRED: (410, "The lease has ended"),
    ErrorCode.TOO_LARGE: (413, "The body is too large"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: (415, "The media type is not supported"),
    ErrorCode.INVALID: (422, "A field is invalid"),
    ErrorCode.NEVER_FITS: (422, "The request exceeds a limit and can never fit"),
    ErrorCode.RATE_LIMITED: (429, "A limit is reached"),
    ErrorCode.QUEUE_FULL: (429, "The queue is full"),
    ErrorCode.WAIT_TOO_LONG: (429, "The predicted wait is longer than max_wait"),
    ErrorCode.WAIT_TIMEOUT: (429, "The request has waited for max_wait"),
    ErrorCode.RETRY_BUDGET: (429, "The shared retry budget is spent"),
    ErrorCode.NOT_LENT: (429, "No block is lent"),
    ErrorCode.TOO_MANY_FAILURES: (429, "Too many calls without a valid API key"),
    ErrorCode.HEADERS_TOO_LARGE: (431, "The request head is too large"),
    ErrorCode.CANCELLED: (499, "The caller cancelled the operation"),
    ErrorCode.INTERNAL: (500, "The service failed"),
    ErrorCode.BREAKER_OPEN: (503, "The circuit breaker is open"),
    ErrorCode.COOLDOWN: (503, "The provider asked for a pause"),
    ErrorCode.LATCHED: (503, "The resource is latched until somebody acts"),
    ErrorCode.STORE_UNAVAILABLE: (503, "The store cannot be reached"),
    ErrorCode.SHUTTING_DOWN: (503, "This replica is shutting down"),
}


def status_of(code: ErrorCode) -> int:
    """The HTTP status of *code*."""
    return _ANSWERS[code][0]


def title_of(code: ErrorCode) -> str:
    """The one-line title of *code*."""
    return _ANSWERS[code][1]


class Problem(Wire, frozen=True, kw_only=True, omit_defaults=True):
    """A refusal or an error as `application/problem+json`.

    `retry_after` is in seconds: when the request would fit. `limit` names the limit that
    binds. `would_fit` is the largest token request that fits now. `queue` is where the
    request would stand. `degraded`: the store was lost, and one replica has decided by its share.
    """

    type: str
    title: str
    status: int
    code: ErrorCode
    detail: str = ""
    resource: str | None = None
    retry_after: float | None = None
    limit: str | None = None
    reason: str | None = None
    would_fit: int | None = None
    limits: list[LimitState] = []
    queue: QueueState | None = None
    request_id: str | None = None
    degraded: bool = False


def problem(code: ErrorCode, detail: str, **fields: object) -> Problem:
    """A Problem with the status and title of its code."""
    status, title = _ANSWERS[code]
    kind = f"urn:sluicegate:problem:{code}"
    return Problem(type=kind, title=title, status=status, code=code, detail=detail, **fields)  # type: ignore[arg-type]  # the caller's keywords are fields of Problem
