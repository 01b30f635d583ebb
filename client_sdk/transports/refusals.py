"""What an SDK gets when our service refuses: a response like its provider's own. Pure.

An exception from a transport is a lost connection to an SDK: it would send the request again
at once, and hide the cause. A 429 or 503 with a time is what it waits for, and raises as the
error that its users know. `refusal_of` finds our own error behind that one.
"""

import math
from collections.abc import Mapping

import msgspec

from client_sdk.errors import (
    BreakerOpen,
    LimiterClosed,
    NeverFits,
    NotAllowed,
    Refused,
    RetryBudgetExhausted,
    SluicegateError,
    WaitTimeout,
    WaitTooLong,
)

EXTENSION = "sluicegate"
"""Where a response that was made here keeps the error, among its extensions."""

CODE = "x-sluicegate-code"
"""The header that tells such a response from one of the provider."""

_LONGEST_RETRY = 60.0
"""Seconds that the official SDKs are willing to wait; beyond, they come back far too early."""

_FINAL = (LimiterClosed, NeverFits, NotAllowed, RetryBudgetExhausted, WaitTimeout, WaitTooLong)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Status, headers and body of the response."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer_of(error: SluicegateError, dialect: str) -> Answer:
    """The response for *error*, in the form of *dialect*."""
    status = _status(error)
    headers = {
        "content-type": "application/json",
        CODE: str(error.code) if error.code is not None else type(error).__name__,
    }
    wait = error.retry_after
    if wait is not None:
        headers["retry-after"] = str(math.ceil(wait))
        headers["retry-after-ms"] = str(math.ceil(wait * 1000))
    # Who has waited as long as the caller allows is not sent to wait once more.
    if isinstance(error, _FINAL) or (wait is not None and wait > _LONGEST_RETRY):
        headers["x-should-retry"] = "false"
    return Answer(status=status, headers=headers, body=_body(error, status, dialect))


def refusal_of(error: BaseException) -> SluicegateError | None:
    """Our error behind what an SDK raised; None when the provider itself refused, or nobody.

    It is looked for in the exception's response, and in those of its causes.
    """
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            return None
        if isinstance(seen, SluicegateError):
            return seen
        for name in ("response", "raw_response"):
            extensions = getattr(getattr(seen, name, None), "extensions", None)
            found = extensions.get(EXTENSION) if isinstance(extensions, Mapping) else None
            if isinstance(found, SluicegateError):
                return found
        seen = seen.__cause__ or seen.__context__
    return None


def _status(error: SluicegateError) -> int:
    if isinstance(error, NotAllowed):
        return 403
    if isinstance(error, NeverFits):
        return 422
    if isinstance(error, BreakerOpen):
        return 503
    return 429 if isinstance(error, Refused) else 503


_TYPES = {403: "permission_error", 422: "invalid_request_error", 429: "rate_limit_error"}
_GOOGLE = {403: "PERMISSION_DENIED", 422: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED"}


def _body(error: SluicegateError, status: int, dialect: str) -> bytes:
    message = f"sluicegate: {error}"
    code = str(error.code) if error.code is not None else "sluicegate"
    if dialect == "gemini":
        word = _GOOGLE.get(status, "UNAVAILABLE")
        payload: object = {"error": {"code": status, "message": message, "status": word}}
    elif dialect == "ollama":
        payload = {"error": message}
    elif dialect in {"mistral", "cohere", "bedrock"}:
        payload = {"message": message, "type": _TYPES.get(status, "overloaded"), "code": code}
    else:
        kind = _TYPES.get(status, "overloaded_error")
        said = {"type": kind, "message": message, "code": code, "param": None}
        payload = {"type": "error", "error": said} if dialect == "anthropic" else {"error": said}
    return msgspec.json.encode(payload)
