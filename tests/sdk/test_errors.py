"""The tree of exceptions: every code of the service has its place in it."""

import inspect
import re
import subprocess
import sys

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
from client_sdk.options import LimiterOptions
from client_sdk.retry import pause_after
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
    ErrorCode.NOT_LENT: RateLimited,
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


def test_pauses_double_up_to_a_bound_and_keep_to_what_the_service_asked_for():
    """Spread over their whole length; a service that asks for more than a second is asked anew."""
    options = LimiterOptions(backoff=0.1, max_backoff=0.5)
    silent = ServiceUnavailable("it does not answer")
    assert [pause_after(silent, n, options, 0.5) for n in (1, 2, 3, 4)] == [0.05, 0.1, 0.2, 0.25]
    assert pause_after(silent, 4, options, 0.0) == 0
    for asks, least in ((0.3, 0.3), (60, 1.0)):
        told = problem(ErrorCode.STORE_UNAVAILABLE, "", retry_after=asks)
        error = error_of(told, "acquire", "r")
        assert isinstance(error, ServiceUnavailable)
        assert pause_after(error, 1, options, 0.0) == least


_UNREACHABLE = """
import asyncio
from client_sdk import Limiter, LimiterOptions, ServiceUnavailable

async def main():
    options = LimiterOptions(attempts=3, backoff=0.001)
    async with Limiter("http://127.0.0.1:1", options=options) as limiter:
        try:
            await limiter.acquire("p/m", tokens=1)
        except ServiceUnavailable:
            return
    raise SystemExit("nothing is raised")

asyncio.run(main())
"""


def test_an_unreachable_service_prints_nothing():
    """What fails is raised, once, and nothing is written to the caller's terminal."""
    done = subprocess.run([sys.executable, "-c", _UNREACHABLE], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


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
