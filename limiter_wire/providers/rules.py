"""Rules: which observation means which failure. A table of them is a dialect's knowledge.

A rule matches by where the error was seen, by status, by a pattern over the error's codes
and by one over its message; patterns ignore case, and an empty one matches all. The first
rule that matches decides: those of the provider, then those of the dialect that it
descends from, then those for everybody.
"""

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import cache

import msgspec

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Backoff, Impact, Pin, Refund, Retry


class Where(StrEnum):
    """Where an error was seen."""

    HTTP = "http"
    STREAM = "stream"
    """Inside an answer that began with 200."""
    LOCAL = "local"
    """Raised here, by the HTTP client or a watchdog."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says. `backoff` is the schedule when the provider gives no time itself."""

    category: Outcome
    kind: str
    retry: Retry
    impact: Impact
    refund: Refund
    backoff: Backoff
    pin: Pin | None = None
    zone: str = ""
    """Of a calendar window: its zone, and its span."""
    span: str = ""


class Rule(msgspec.Struct, frozen=True):
    """One row of a dialect's table."""

    where: Where
    statuses: frozenset[int]
    code: str
    message: str
    verdict: Verdict

    def matches(self, where: Where, status: int | None, codes: str, message: str) -> bool:
        """Whether this rule is about that observation."""
        return (
            where is self.where
            and (not self.statuses or status in self.statuses)
            and (not self.code or compiled(self.code).search(codes) is not None)
            and (not self.message or compiled(self.message).search(message) is not None)
        )


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """*pattern*, compiled when it is first needed: importing a table costs nothing."""
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def find(
    tables: Iterable[tuple[Rule, ...]], where: Where, status: int | None, codes: str, message: str
) -> Verdict | None:
    """The verdict of the first rule that matches."""
    for table in tables:
        for rule in table:
            if rule.matches(where, status, codes, message):
                return rule.verdict
    return None


def http(status: int | Iterable[int], verdict: Verdict, *, code: str = "", text: str = "") -> Rule:
    """A rule on the status of a response."""
    statuses = frozenset([status] if isinstance(status, int) else status)
    return Rule(Where.HTTP, statuses, code, text, verdict)


def stream(code: str, verdict: Verdict, *, text: str = "") -> Rule:
    """A rule on an error event, or a reason to finish, inside a stream."""
    return Rule(Where.STREAM, frozenset(), code, text, verdict)


def local(code: str, verdict: Verdict) -> Rule:
    """A rule on an error that was raised here."""
    return Rule(Where.LOCAL, frozenset(), code, "", verdict)


# Verdicts by category. Each has the defaults of its usual case.


def throttled(
    kind: str,
    *,
    retry: Retry = Retry.YES,
    refund: Refund = Refund.TOKENS,
    backoff: Backoff = Backoff.EXPONENTIAL,
    category: Outcome = Outcome.RATE_LIMITED,
) -> Verdict:
    """The provider asks for less: no failure, and the limit pauses."""
    return Verdict(
        category=category,
        kind=kind,
        retry=retry,
        impact=Impact.THROTTLE,
        refund=refund,
        backoff=backoff,
    )


def daily(kind: str = "daily") -> Verdict:
    """A window of a day is used up: no failure, and no use to wait for."""
    return throttled(kind, retry=Retry.RESET, backoff=Backoff.NONE)


def overloaded(
    kind: str = "overloaded",
    *,
    retry: Retry = Retry.YES,
    refund: Refund = Refund.TOKENS,
    backoff: Backoff = Backoff.EXPONENTIAL,
) -> Verdict:
    """The provider has no capacity for this model."""
    return Verdict(
        category=Outcome.OVERLOADED,
        kind=kind,
        retry=retry,
        impact=Impact.CAPACITY,
        refund=refund,
        backoff=backoff,
    )


def failed(
    category: Outcome,
    kind: str,
    *,
    retry: Retry = Retry.YES,
    refund: Refund = Refund.TOKENS,
    backoff: Backoff = Backoff.EXPONENTIAL,
) -> Verdict:
    """The provider, or the way to it, is broken."""
    return Verdict(
        category=category,
        kind=kind,
        retry=retry,
        impact=Impact.FAILURE,
        refund=refund,
        backoff=backoff,
    )


def server_error(
    kind: str = "internal",
    *,
    retry: Retry = Retry.YES,
    refund: Refund = Refund.TOKENS,
    backoff: Backoff = Backoff.EXPONENTIAL,
) -> Verdict:
    """The provider failed."""
    return failed(Outcome.SERVER_ERROR, kind, retry=retry, refund=refund, backoff=backoff)


def late(
    kind: str = "gateway", *, retry: Retry = Retry.ONCE, backoff: Backoff = Backoff.EXPONENTIAL
) -> Verdict:
    """The provider took too long, and may have done the work."""
    return failed(Outcome.TIMEOUT, kind, retry=retry, refund=Refund.HOLD, backoff=backoff)


def conflict() -> Verdict:
    """Two requests met: try again, nobody is broken."""
    return Verdict(
        category=Outcome.SERVER_ERROR,
        kind="conflict",
        retry=Retry.YES,
        impact=Impact.NEUTRAL,
        refund=Refund.TOKENS,
        backoff=Backoff.EXPONENTIAL,
    )


def cancelled() -> Verdict:
    """The caller went away."""
    return Verdict(
        category=Outcome.TIMEOUT,
        kind="cancelled",
        retry=Retry.NO,
        impact=Impact.NEUTRAL,
        refund=Refund.SETTLE,
        backoff=Backoff.NONE,
    )


def exhausted(
    kind: str,
    pin: Pin,
    *,
    retry: Retry = Retry.NO,
    refund: Refund = Refund.ALL,
    backoff: Backoff = Backoff.NONE,
    zone: str = "",
    span: str = "",
) -> Verdict:
    """Quota or money is used up."""
    return Verdict(
        category=Outcome.QUOTA_EXHAUSTED,
        kind=kind,
        retry=retry,
        impact=Impact.QUOTA_PIN,
        refund=refund,
        backoff=backoff,
        pin=pin,
        zone=zone,
        span=span,
    )


def exhausted_until(
    kind: str, pin: Pin, span: str, zone: str = "UTC", *, refund: Refund = Refund.ALL
) -> Verdict:
    """Quota is used up until the provider's day or month ends."""
    return exhausted(
        kind,
        pin,
        retry=Retry.RESET,
        backoff=Backoff.WINDOW,
        refund=refund,
        zone=zone,
        span=span,
    )


def unauthenticated(kind: str = "credential", pin: Pin = Pin.KEY) -> Verdict:
    """The credential is not valid."""
    return _pinned(Outcome.AUTH, kind, pin)


def forbidden(kind: str = "rights", pin: Pin = Pin.KEY) -> Verdict:
    """The credential may not do this."""
    return _pinned(Outcome.PERMISSION, kind, pin)


def _pinned(category: Outcome, kind: str, pin: Pin) -> Verdict:
    return Verdict(
        category=category,
        kind=kind,
        retry=Retry.NO,
        impact=Impact.AUTH_PIN,
        refund=Refund.ALL,
        backoff=Backoff.NONE,
        pin=pin,
    )


def missing(kind: str = "model", pin: Pin = Pin.MODEL) -> Verdict:
    """There is no such model here."""
    return Verdict(
        category=Outcome.NOT_FOUND,
        kind=kind,
        retry=Retry.ELSEWHERE,
        impact=Impact.MODEL_PIN,
        refund=Refund.ALL,
        backoff=Backoff.NONE,
        pin=pin,
    )


def invalid(
    kind: str = "request", *, retry: Retry = Retry.NO, refund: Refund = Refund.TOKENS
) -> Verdict:
    """The request is wrong."""
    return Verdict(
        category=Outcome.INVALID_REQUEST,
        kind=kind,
        retry=retry,
        impact=Impact.NEUTRAL,
        refund=refund,
        backoff=Backoff.NONE,
    )


def never_fits(*, refund: Refund = Refund.TOKENS) -> Verdict:
    """The request alone exceeds a limit: a 429 that waiting does not heal."""
    return invalid("too_large_for_limit", retry=Retry.CHANGED, refund=refund)


def too_long(kind: str = "prompt", *, refund: Refund = Refund.TOKENS) -> Verdict:
    """The prompt does not fit the model's window."""
    return Verdict(
        category=Outcome.CONTEXT_LENGTH_EXCEEDED,
        kind=kind,
        retry=Retry.CHANGED,
        impact=Impact.NEUTRAL,
        refund=refund,
        backoff=Backoff.NONE,
    )


def useless(
    category: Outcome,
    kind: str,
    *,
    retry: Retry = Retry.NO,
    refund: Refund = Refund.SETTLE,
    backoff: Backoff = Backoff.NONE,
) -> Verdict:
    """The provider is alive, and its answer is of no use: filtered, cut off, garbled."""
    return Verdict(
        category=category,
        kind=kind,
        retry=retry,
        impact=Impact.ALIVE,
        refund=refund,
        backoff=backoff,
    )


def filtered(kind: str, *, refund: Refund = Refund.SETTLE) -> Verdict:
    """A content filter stopped prompt or output."""
    return useless(Outcome.CONTENT_FILTERED, kind, refund=refund)


def garbled(kind: str) -> Verdict:
    """The model wrote what cannot be used: another try may do."""
    return useless(Outcome.MALFORMED_STREAM, kind, retry=Retry.ONCE, backoff=Backoff.EXPONENTIAL)


# The same inside a stream: usage has begun, and delivered content cannot be taken back.


def in_stream(verdict: Verdict) -> Verdict:
    """*verdict* when it comes after a 200: settled by usage, repeated only before content."""
    again = verdict.retry in {Retry.YES, Retry.ONCE, Retry.ELSEWHERE}
    alive = verdict.impact is Impact.ALIVE
    return msgspec.structs.replace(
        verdict,
        refund=Refund.SETTLE,
        retry=Retry.BEFORE_CONTENT if again and not alive else verdict.retry,
    )


def interrupted(kind: str) -> Verdict:
    """The stream ended before its end."""
    return in_stream(failed(Outcome.STREAM_INTERRUPTED, kind))
