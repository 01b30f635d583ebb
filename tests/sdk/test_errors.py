"""The tree of exceptions: every code of the service has its place in it."""

import inspect
import re

import pytest

import client_sdk
from client_sdk import errors
from client_sdk.errors import (
    BreakerOpen,
    InvalidRequest,
    LeaseExpired,
    NeverFits,
    NotAllowed,
    QueueFull,
    RateLimited,
    Refused,
    RequestConflict,
    RetryBudgetExhausted,
    ServiceFault,
    ServiceUnavailable,
    SluicegateError,
    UnknownLease,
    UnknownResource,
    WaitTimeout,
    WaitTooLong,
    error_of,
)
from client_sdk.retry import again
from limiter_wire import ErrorCode, problem, status_of, title_of

EXPECTED = {
    ErrorCode.MALFORMED: InvalidRequest,
    ErrorCode.TOO_LARGE: InvalidRequest,
    ErrorCode.HEADERS_TOO_LARGE: InvalidRequest,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: InvalidRequest,
    ErrorCode.INVALID: InvalidRequest,
    ErrorCode.UNAUTHENTICATED: NotAllowed,
    ErrorCode.FORBIDDEN: NotAllowed,
    ErrorCode.TOO_MANY_FAILURES: NotAllowed,
    ErrorCode.UNKNOWN_RESOURCE: UnknownResource,
    ErrorCode.UNKNOWN_LEASE: UnknownLease,
    ErrorCode.NOT_FOUND: ServiceFault,
    ErrorCode.METHOD_NOT_ALLOWED: ServiceFault,
    ErrorCode.CANCELLED: ServiceFault,
    ErrorCode.INTERNAL: ServiceFault,
    ErrorCode.REQUEST_TIMEOUT: ServiceUnavailable,
    ErrorCode.STORE_UNAVAILABLE: ServiceUnavailable,
    ErrorCode.SHUTTING_DOWN: ServiceUnavailable,
    ErrorCode.REQUEST_CONFLICT: RequestConflict,
    ErrorCode.GENERATION_CONFLICT: RequestConflict,
    ErrorCode.LEASE_EXPIRED: LeaseExpired,
    ErrorCode.NEVER_FITS: NeverFits,
    ErrorCode.RATE_LIMITED: RateLimited,
    ErrorCode.QUEUE_FULL: QueueFull,
    ErrorCode.WAIT_TOO_LONG: WaitTooLong,
    ErrorCode.WAIT_TIMEOUT: WaitTimeout,
    ErrorCode.RETRY_BUDGET: RetryBudgetExhausted,
    ErrorCode.BREAKER_OPEN: BreakerOpen,
    ErrorCode.COOLDOWN: BreakerOpen,
    ErrorCode.LATCHED: BreakerOpen,
}


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_a_status_a_title_and_an_exception(code: ErrorCode):
    """A code that is added to the wire and forgotten elsewhere fails here."""
    assert 400 <= status_of(code) < 600
    assert title_of(code)
    answer = problem(code, "why", resource="p/m", retry_after=1.5, limit="m.rpm", would_fit=3)
    error = error_of(answer, "acquire", None)
    assert type(error) is EXPECTED[code]
    assert (error.code, error.resource, error.retry_after) == (code, "p/m", 1.5)
    assert (error.limit, error.would_fit, error.phase) == ("m.rpm", 3, "acquire")


def test_only_answers_that_can_change_are_retryable():
    """Refusals of the moment and failures of the network are; mistakes are not."""
    retryable = {code for code, kind in EXPECTED.items() if kind.retryable}
    assert {status_of(code) for code in retryable} == {408, 429, 503}
    mistakes = EXPECTED.keys() - retryable - {ErrorCode.TOO_MANY_FAILURES}  # no key is the mistake
    assert {status_of(code) for code in mistakes}.isdisjoint({408, 429, 503})


def test_only_failures_of_network_and_store_are_sent_again():
    """A refusal is an answer; the wait that the service asked for is kept to."""
    for code, kind in EXPECTED.items():
        error = error_of(problem(code, ""), "acquire", "r")
        assert bool(again(error)) is issubclass(kind, ServiceUnavailable)
    asked = error_of(problem(ErrorCode.STORE_UNAVAILABLE, "", retry_after=0.3), "acquire", "r")
    assert again(asked) == 0.3


def test_the_drawing_in_the_docstring_is_the_tree():
    """Every class stands under its parent, and none is missing."""
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    assert errors.__doc__
    for line in errors.__doc__.splitlines():
        if entry := re.match(r"( *)([A-Z]\w+)(?:  .*)?$", line):
            depth = len(entry[1]) // 2
            path = [*path[:depth], entry[2]]
            drawn[entry[2]] = path[-2] if depth else None
    real = {
        name: kind.__mro__[1].__name__ if kind is not SluicegateError else None
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, SluicegateError)
    }
    assert drawn == real


def test_the_text_names_resource_and_request():
    """Whoever reads a log finds both."""
    error = error_of(problem(ErrorCode.RATE_LIMITED, "full", resource="p/m"), "acquire", "r1")
    assert str(error) == "full [resource p/m, request r1]"
    assert str(SluicegateError("plain")) == "plain"
    assert (error.provider, error.model) == ("p", "m")
    assert SluicegateError("plain").provider is None
    assert isinstance(error, Refused)


def test_the_public_names_are_the_ones_listed():
    """`__all__` is sorted, complete, and every exception of the tree is in it."""
    public = {
        name
        for name, value in vars(client_sdk).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert client_sdk.__all__ == sorted(client_sdk.__all__)
    public |= set(client_sdk._WHEN_NEEDED)
    assert all(hasattr(client_sdk, name) for name in public)
    assert set(client_sdk.__all__) == public
    tree = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, SluicegateError)
    }
    assert tree <= public
