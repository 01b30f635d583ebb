"""Error bodies in OpenAI's words."""

import msgspec

from limiter_service.provider_sim.headers import go_duration
from limiter_service.provider_sim.limits import Meter, Refused, TooLarge

_ORGANIZATION = "org-sim"


class ApiError(msgspec.Struct, frozen=True, kw_only=True):
    """The inside of an error body."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """An error body."""

    error: ApiError


class BadRequestError(Exception):
    """The request cannot be understood; carries the provider's words for it."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        self.body = ErrorBody(
            ApiError(message=message, type="invalid_request_error", param=param, code=code)
        )
        super().__init__(message)


def refusal(model: str, refused: Refused, retry_after: float) -> ErrorBody:
    """The body of a 429 that waiting cures; `retry_after` is in the caller's seconds."""
    tokens = refused.meter is Meter.TOKENS
    quota = refused.quotas.tokens if tokens else refused.quotas.requests
    return _rate_limit_error(
        f"Rate limit reached for {model} in organization {_ORGANIZATION} on"
        f" {'tokens per min (TPM)' if tokens else 'requests per min (RPM)'}:"
        f" Limit {quota.limit}, Used {refused.used}, Requested {refused.requested}."
        f" Please try again in {go_duration(retry_after)}."
        " Visit https://platform.openai.com/account/rate-limits to learn more.",
        refused.meter,
    )


def too_large(model: str, refused: TooLarge) -> ErrorBody:
    """The body of a 429 that no wait cures."""
    return _rate_limit_error(
        f"Request too large for {model} in organization {_ORGANIZATION} on tokens per min (TPM):"
        f" Limit {refused.quotas.tokens.limit}, Requested {refused.requested}."
        " The input or output tokens must be reduced in order to run successfully."
        " Visit https://platform.openai.com/account/rate-limits to learn more.",
        Meter.TOKENS,
    )


def _rate_limit_error(message: str, meter: Meter) -> ErrorBody:
    return ErrorBody(ApiError(message=message, type=meter, code="rate_limit_exceeded"))


def not_found(method: str, path: str) -> ErrorBody:
    """The body of a 404."""
    text = f"Invalid URL ({method} {path})"
    return ErrorBody(ApiError(message=text, type="invalid_request_error"))


def not_allowed(method: str, path: str) -> ErrorBody:
    """The body of a 405."""
    hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
    text = f"Not allowed to {method} on {path}. {hint}"
    return ErrorBody(
        ApiError(message=text, type="invalid_request_error", code="method_not_supported")
    )
