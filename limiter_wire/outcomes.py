"""How provider calls end."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from limiter_wire._base import Wire


class Outcome(StrEnum):
    """How the provider call of a lease ended."""

    SUCCESS = "success"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    STREAM_INTERRUPTED = "stream_interrupted"
    MALFORMED_STREAM = "malformed_stream"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    AUTH = "auth"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    CONTENT_FILTERED = "content_filtered"
    CANCELLED = "cancelled"


class Cause(Wire, frozen=True, kw_only=True):
    """What is known of a failure beyond its outcome; what is left out follows from the outcome.

    `reach` is what an exhausted quota or refused credentials hold shut: the `model`, or the
    whole `pool`. `refund` is what comes back when no usage is known: `all` is the request,
    too, which never reached the provider or is not counted there; `tokens` what was reserved of
    tokens and money; `none` nothing. `status` is the HTTP status, `digest` 32 bits of one of the
    provider's message: they tell failures apart for operators, and no text is sent.
    """

    reach: Literal["model", "pool"] | None = None
    refund: Literal["all", "tokens", "none"] | None = None
    status: Annotated[int, msgspec.Meta(ge=100, le=999)] | None = None
    digest: Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)] | None = None
