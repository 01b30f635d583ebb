"""What a failed provider call means: the words that service and SDK share about it."""

from enum import StrEnum

from limiter_wire._base import Wire
from limiter_wire.limits import SpentLimit
from limiter_wire.outcomes import Outcome


class Retry(StrEnum):
    """Whether the same request may be sent again."""

    YES = "yes"
    NO = "no"
    CHANGED = "changed"
    """Only an altered request can succeed."""
    RESET = "reset"
    """Only after the reset time: fail fast and say when."""
    ONCE = "once"
    BEFORE_CONTENT = "before_content"
    """Only while nothing of the answer was delivered."""
    ELSEWHERE = "elsewhere"
    """Only with another key, model or region."""


class Impact(StrEnum):
    """What the circuit breaker makes of a failure."""

    FAILURE = "failure"
    """Counts against the circuit."""
    CAPACITY = "capacity"
    """Counts against the model's circuit alone: its provider is short of this model."""
    THROTTLE = "throttle"
    """Pauses the limit; no failure."""
    NEUTRAL = "neutral"
    """No vote: the cause is here, or unknown."""
    ALIVE = "alive"
    """No vote: the provider answered, and the answer is of no use."""
    QUOTA_PIN = "quota_pin"
    """Holds the pin's scope shut until the quota resets or an operator acts."""
    AUTH_PIN = "auth_pin"
    """Holds the pin's scope shut until somebody mends the credential or its rights."""
    MODEL_PIN = "model_pin"
    """No vote, and the model stays shut until somebody mends its name or installs it."""


class Pin(StrEnum):
    """What a pin holds shut."""

    KEY = "key"
    MODEL = "model"
    DEPLOYMENT = "deployment"
    PROJECT = "project"
    WORKSPACE = "workspace"
    ORG = "org"
    ACCOUNT = "account"
    ROUTE = "route"


class Scope(StrEnum):
    """How far a failure reaches."""

    REQUEST = "request"
    MODEL = "model"
    PROVIDER = "provider"
    """Every call with this account or to this host."""


class Refund(StrEnum):
    """What goes back to the budget."""

    ALL = "all"
    """Tokens and the request."""
    TOKENS = "tokens"
    """Tokens; the provider counts the request."""
    SETTLE = "settle"
    """What observed or estimated usage does not need."""
    HOLD = "hold"
    """Nothing: the provider may have served the call."""


class Backoff(StrEnum):
    """Where the time of the next attempt comes from."""

    RETRY_AFTER = "retry_after"
    """`retry-after-ms` or `retry-after`."""
    BODY = "body"
    """A delay or a date in the error's body."""
    HEADER = "header"
    """The reset header of the limit that is exhausted."""
    WINDOW = "window"
    """The end of the provider's calendar window."""
    EXPONENTIAL = "exponential"
    """Exponential with full jitter."""
    LONG = "long"
    """The same from a base of 15 seconds or more: the provider asks for less traffic."""
    AT_ONCE = "at_once"
    """A new connection is enough; exponential when that fails too."""
    NONE = "none"
    """There is no next attempt."""


class ContextTokens(Wire, frozen=True, kw_only=True):
    """What an error said about a request's size: exact figures from the provider."""

    context_limit: int | None = None
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    requested: int | None = None
    excess: int | None = None


class Failure(Wire, frozen=True, kw_only=True):
    """One failed call, understood.

    `category` is the outcome in the words of the taxonomy and `kind` the finer cause.
    `retry_after` is in seconds from now, `retry_at` in Unix seconds: for resets that a
    clock tells. Either may be unknown; `backoff` says where it came from, or which schedule
    applies.
    """

    provider: str
    category: Outcome
    kind: str
    retry: Retry
    impact: Impact
    refund: Refund
    backoff: Backoff
    pin: Pin | None = None
    retry_after: float | None = None
    retry_at: float | None = None
    status: int | None = None
    code: str = ""
    message: str = ""
    request_id: str | None = None
    tokens: ContextTokens | None = None
    limit: SpentLimit | None = None

    @property
    def retryable(self) -> bool:
        """Whether the same request may be sent again on the same route, before any content."""
        return self.retry in {Retry.YES, Retry.ONCE, Retry.BEFORE_CONTENT}

    @property
    def scope(self) -> Scope:
        """How far the failure reaches."""
        if self.pin is not None:
            return Scope.MODEL if self.pin in {Pin.MODEL, Pin.DEPLOYMENT} else Scope.PROVIDER
        if self.impact in {Impact.NEUTRAL, Impact.ALIVE}:
            return Scope.REQUEST
        return Scope.PROVIDER if self.category is Outcome.CONNECTION else Scope.MODEL

    @property
    def outcome(self) -> Outcome:
        """The outcome to settle with, so that breaker and refund follow from it alone.

        It is the category, except where the category would be counted otherwise than the
        impact says: a conflict is no server error to a breaker, a full local pool no timeout.
        """
        if self.impact is Impact.THROTTLE:
            return Outcome.RATE_LIMITED
        if self.impact is Impact.ALIVE and self.category in _CUT_BY_LENGTH:
            return Outcome.SUCCESS
        if self.impact in {Impact.NEUTRAL, Impact.ALIVE} and self.category in _FAILING:
            unserved = self.refund in {Refund.ALL, Refund.TOKENS}
            return Outcome.INVALID_REQUEST if unserved else Outcome.CANCELLED
        if self.impact is Impact.AUTH_PIN and self.category in _FAILING:
            return Outcome.PERMISSION
        return self.category


_CUT_BY_LENGTH = {Outcome.INVALID_REQUEST, Outcome.CONTEXT_LENGTH_EXCEEDED}
_FAILING = {
    Outcome.OVERLOADED,
    Outcome.SERVER_ERROR,
    Outcome.TIMEOUT,
    Outcome.CONNECTION,
    Outcome.STREAM_INTERRUPTED,
    Outcome.MALFORMED_STREAM,
}
