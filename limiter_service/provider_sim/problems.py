"""What can be wrong with a request, in no provider's words."""

from enum import StrEnum

import msgspec

from limiter_service.provider_sim.limits import Refused, TooLarge


class Kind(StrEnum):
    """The kinds of error that every provider has a body for."""

    RATE_LIMIT = "rate-limit"
    TOO_LARGE = "too-large"
    QUOTA = "insufficient-quota"
    OVERLOADED = "overloaded"
    SERVER = "server-error"
    TIMEOUT = "timeout"
    KEY = "bad-key"
    PERMISSION = "permission"
    MODEL = "model-not-found"
    CONTEXT = "context-length"
    FILTERED = "content-filter"
    INVALID = "bad-request"
    MISSING = "not-found"
    ROUTE = "unknown-route"
    METHOD = "wrong-method"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One error, with what bodies need to describe it.

    `refused` and `retry_after` (in the caller's seconds) belong to rate limits; `message`,
    `param` and `code` to requests that cannot be read.
    """

    kind: Kind
    model: str = ""
    refused: Refused | TooLarge | None = None
    retry_after: float | None = None
    input_tokens: int = 0
    message: str = ""
    param: str | None = None
    code: str | None = None


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An error as one provider writes it."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = {}


class BadRequestError(Exception):
    """The request cannot be understood, or asks for what is not there."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        kind: Kind = Kind.INVALID,
    ) -> None:
        self.problem = Problem(kind=kind, message=message, param=param, code=code)
        super().__init__(message)


CONTEXT_WINDOW = 128_000
"""The window that an error about too long a prompt names."""


def too_long(problem: Problem) -> int:
    """The tokens that such an error says the prompt had."""
    return max(problem.input_tokens, CONTEXT_WINDOW + 1)
