"""What a provider says has gone wrong, found in whatever shape it says it."""

import re
from collections.abc import Callable, Mapping

import msgspec

from client_sdk.outcomes import by_status
from limiter_wire import Outcome


class ProviderFault(msgspec.Struct, frozen=True, kw_only=True):
    """An error as plain data; `status` is that of HTTP, or its equivalent where known.

    `message` is the provider's text. It may quote the request, so it is in no exception
    text and no log unless you put it there.
    """

    status: int | None = None
    code: str | None = None
    type: str | None = None
    message: str = ""
    retry_after: float | None = None


Classify = Callable[[ProviderFault], Outcome]
"""Decides the category of a fault; `category_of` is the one that is built in."""

# Words of codes, types and exception names, in lower case, with the status that they stand for.
_WORDS: list[tuple[int, Outcome, str]] = [
    (429, Outcome.RATE_LIMITED, "rate_limit_exceeded rate_limit_error rate_limited"),
    (429, Outcome.RATE_LIMITED, "too_many_requests too_many_requests_error throttlingexception"),
    (429, Outcome.RATE_LIMITED, "resource_exhausted ramp_limit_exceeded request_quota_exceeded"),
    (429, Outcome.QUOTA_EXHAUSTED, "insufficient_quota credit_balance_exhausted billing_error"),
    (429, Outcome.QUOTA_EXHAUSTED, "billing_hard_limit_reached enforced_spend_limit_reached"),
    (429, Outcome.QUOTA_EXHAUSTED, "organization_spend_limit_exceeded"),
    (429, Outcome.QUOTA_EXHAUSTED, "project_spend_limit_exceeded"),
    (429, Outcome.QUOTA_EXHAUSTED, "organization_usage_limit_exceeded"),
    (529, Outcome.OVERLOADED, "overloaded_error overloaded provider_overloaded"),
    (503, Outcome.OVERLOADED, "server_is_overloaded slow_down unavailable service_unavailable"),
    (503, Outcome.OVERLOADED, "serviceunavailableexception modelnotreadyexception"),
    (503, Outcome.OVERLOADED, "model_capacity_exhausted service_tier_capacity_exceeded"),
    (503, Outcome.OVERLOADED, "insufficient_system_resource capacity_exceeded"),
    (500, Outcome.SERVER_ERROR, "api_error server_error internal_error internal error"),
    (500, Outcome.SERVER_ERROR, "internal_server_error internalserverexception"),
    (500, Outcome.SERVER_ERROR, "content_filter_error"),
    (504, Outcome.TIMEOUT, "timeout_error timeout request_timeout deadline_exceeded"),
    (504, Outcome.TIMEOUT, "modeltimeoutexception"),
    (500, Outcome.STREAM_INTERRUPTED, "modelstreamerrorexception abort"),
    (502, Outcome.MALFORMED_STREAM, "malformed_function_call unexpected_tool_call"),
    (502, Outcome.MALFORMED_STREAM, "malformed_model_output malformed_tool_use"),
    (502, Outcome.MALFORMED_STREAM, "too_many_tool_calls"),
    (400, Outcome.INVALID_REQUEST, "invalid_request_error invalid_argument bad_request"),
    (400, Outcome.INVALID_REQUEST, "validationexception badrequesterror failed_precondition"),
    (400, Outcome.CONTEXT_LENGTH_EXCEEDED, "context_length_exceeded"),
    (401, Outcome.AUTH, "authentication_error invalid_api_key unauthenticated"),
    (403, Outcome.PERMISSION, "permission_error permission_denied accessdeniedexception"),
    (404, Outcome.NOT_FOUND, "not_found_error model_not_found not_found"),
    (404, Outcome.NOT_FOUND, "resourcenotfoundexception"),
    (413, Outcome.INVALID_REQUEST, "request_too_large"),
    (400, Outcome.CONTENT_FILTERED, "content_filter content_policy_violation"),
    (400, Outcome.CONTENT_FILTERED, "responsibleaipolicyviolation"),
]
_KNOWN = {word: (status, category) for status, category, words in _WORDS for word in words.split()}
_STATUSES = range(400, 600)
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
_LONGEST_DELAY = 1e9


def category_of(fault: ProviderFault) -> Outcome:
    """The category by code, type or status; what nobody knows is the server's error."""
    for word in (fault.code, fault.type):
        known = _KNOWN.get((word or "").lower())
        if known is not None:
            return known[1]
    return by_status(fault.status) if fault.status else Outcome.SERVER_ERROR


def fault_of(payload: object) -> ProviderFault | None:
    """The error in *payload*, None when there is none.

    It is an object under `error`, a text there, the object itself (`object` or `type` says
    error, or there is a message with a code), or the first of a list of these.
    """
    if isinstance(payload, list):
        return next((found for item in payload[:1] if (found := fault_of(item))), None)
    if not isinstance(payload, Mapping):
        return None
    error = payload.get("error")
    if isinstance(error, Mapping) and error:
        return _from_object(error)
    if error and not isinstance(error, Mapping):
        return named_fault(error, payload)
    if payload.get("object") == "error" or payload.get("type") == "error":
        return _from_object(payload)
    if isinstance(payload.get("message"), str) and (payload.get("code") or payload.get("type")):
        return _from_object(payload)
    return None


def named_fault(payload: object, around: Mapping[str, object] | None = None) -> ProviderFault:
    """The error that *payload* must be, since its frame is named one."""
    found = fault_of(payload)
    if found is not None:
        return found
    if isinstance(payload, Mapping):
        return _from_object(payload)
    said = payload if isinstance(payload, str) else ""
    known = _KNOWN.get(said.strip().lower())
    code = _word((around or {}).get("code")) or (said.strip().lower() if known else None)
    return _from_object({"message": said, "code": code})


def _from_object(error: Mapping[str, object]) -> ProviderFault:
    details = error.get("details")
    inner = details.get("error_code") if isinstance(details, Mapping) else None
    code = _word(inner) or _word(error.get("code")) or _word(error.get("status"))
    type_ = _word(error.get("type"))
    if type_ is None or code is None or _number(code) is not None:
        # Google puts the word into `status` and the number into `code`.
        word = _word(error.get("status"))
        if word is not None and _number(word) is None:
            type_ = type_ or word
    metadata = error.get("metadata")
    if type_ is None and isinstance(metadata, Mapping):
        type_ = _word(metadata.get("error_type"))
    message = error.get("message")
    return ProviderFault(
        status=_status(error, code, type_),
        code=code,
        type=type_,
        message=message if isinstance(message, str) else "",
        retry_after=_retry_after(error),
    )


def _status(error: Mapping[str, object], code: str | None, type_: str | None) -> int | None:
    for value in (error.get("status_code"), error.get("code"), error.get("status")):
        number = _number(value)
        if number is not None:
            return number
    for word in (code, type_):
        known = _KNOWN.get((word or "").lower())
        if known is not None:
            return known[0]
    return None


def _retry_after(error: Mapping[str, object]) -> float | None:
    availability = error.get("availability")
    places = [error, availability] if isinstance(availability, Mapping) else [error]
    for place in places:
        value = place.get("retry_after")
        if isinstance(value, (int, float)) and 0 <= value < _LONGEST_DELAY:
            return float(value)
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, Mapping) else None
        if isinstance(delay, str) and (match := _DELAY.fullmatch(delay)):
            return float(match[1])
    return None


def _word(value: object) -> str | None:
    if isinstance(value, str) and value:
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 3:  # noqa: PLR2004  # a status
        value = int(value)
    return value if isinstance(value, int) and value in _STATUSES else None
