"""Errors in OpenAI's words."""

import msgspec

from limiter_service.provider_sim.dialects.base import encode
from limiter_service.provider_sim.headers import go_duration
from limiter_service.provider_sim.limits import Meter, Period, Refused, TooLarge
from limiter_service.provider_sim.problems import (
    CONTEXT_WINDOW,
    ErrorAnswer,
    Kind,
    Problem,
    too_long,
)

_ORGANIZATION = "org-sim"
_NAMES = {
    (Meter.REQUESTS, Period.MINUTE): "requests per min (RPM)",
    (Meter.REQUESTS, Period.DAY): "requests per day (RPD)",
    (Meter.TOKENS, Period.MINUTE): "tokens per min (TPM)",
    (Meter.INPUT, Period.MINUTE): "input tokens per min (ITPM)",
    (Meter.OUTPUT, Period.MINUTE): "output tokens per min (OTPM)",
    (Meter.CONCURRENCY, Period.NONE): "concurrent requests",
}
_SERVER = "The server had an error while processing your request. Sorry about that!"


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """The inside of an error body."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


_PLAIN: dict[Kind, tuple[int, str, str | None, str]] = {
    Kind.QUOTA: (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Kind.OVERLOADED: (
        503,
        "server_error",
        "server_is_overloaded",
        "The engine is currently overloaded, please try again later.",
    ),
    Kind.SERVER: (500, "server_error", None, _SERVER),
    Kind.TIMEOUT: (504, "server_error", None, "The request timed out."),
    Kind.KEY: (
        401,
        "invalid_request_error",
        "invalid_api_key",
        (
            "Incorrect API key provided: sk-sim. You can find your API key at"
            " https://platform.openai.com/account/api-keys."
        ),
    ),
    Kind.PERMISSION: (
        403,
        "permission_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    Kind.FILTERED: (
        400,
        "invalid_request_error",
        "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
}


def error(problem: Problem) -> ErrorAnswer:
    """The status and body of an error."""
    status, inside = describe(problem)
    return ErrorAnswer(status=status, body=encode({"error": inside}))


def describe(problem: Problem) -> tuple[int, ApiError]:
    """The status and the inside of the body."""
    if problem.kind in _PLAIN:
        status, kind, code, message = _PLAIN[problem.kind]
        return status, ApiError(message=problem.message or message, type=kind, code=code)
    match problem.kind:
        case Kind.RATE_LIMIT:
            return 429, _refusal(problem)
        case Kind.TOO_LARGE:
            return 429, _too_large(problem)
        case Kind.CONTEXT:
            return 400, _context(problem)
        case Kind.MODEL:
            text = f"The model `{problem.model}` does not exist or you do not have access to it."
            return 404, _invalid_request(text, code="model_not_found")
        case Kind.MISSING:
            return 404, _invalid_request(problem.message, param=problem.param)
        case Kind.ROUTE:
            return 404, _invalid_request(f"Invalid URL ({problem.message})")
        case Kind.METHOD:
            hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
            text = f"Not allowed to {problem.message}. {hint}"
            return 405, _invalid_request(text, code="method_not_supported")
        case _:
            message = problem.message or "Invalid request."
            return 400, _invalid_request(message, param=problem.param, code=problem.code)


def _invalid_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(message=message, type="invalid_request_error", param=param, code=code)


def _refusal(problem: Problem) -> ApiError:
    refused, wait = problem.refused, problem.retry_after or 0.0
    assert isinstance(refused, Refused)
    if refused.too_fast:
        text = "Slow down: your requests have increased too fast. Please increase them gradually."
        return ApiError(message=text, type="requests", code="slow_down")
    name = _NAMES.get((refused.meter, refused.period), str(refused.meter))
    return _rate_limit_error(
        f"Rate limit reached for {problem.model} in organization {_ORGANIZATION} on {name}:"
        f" Limit {refused.limit}, Used {refused.used}, Requested {refused.requested}."
        f" Please try again in {go_duration(wait)}."
        " Visit https://platform.openai.com/account/rate-limits to learn more.",
        refused.meter,
    )


def _too_large(problem: Problem) -> ApiError:
    refused = problem.refused
    assert isinstance(refused, TooLarge)
    name = _NAMES[refused.meter, Period.MINUTE]
    return _rate_limit_error(
        f"Request too large for {problem.model} in organization {_ORGANIZATION} on {name}:"
        f" Limit {refused.limit}, Requested {refused.requested}."
        " The input or output tokens must be reduced in order to run successfully."
        " Visit https://platform.openai.com/account/rate-limits to learn more.",
        refused.meter,
    )


def _rate_limit_error(message: str, meter: Meter) -> ApiError:
    kind = "requests" if meter in {Meter.REQUESTS, Meter.CONCURRENCY} else "tokens"
    return ApiError(message=message, type=kind, code="rate_limit_exceeded")


def _context(problem: Problem) -> ApiError:
    return _invalid_request(
        f"This model's maximum context length is {CONTEXT_WINDOW} tokens. However, your messages"
        f" resulted in {too_long(problem)} tokens. Please reduce the length of the messages.",
        param="messages",
        code="context_length_exceeded",
    )
