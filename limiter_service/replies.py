"""Answers to hot routes: status, headers and body, and the same as bytes of HTTP/1.1. Pure."""

from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from limiter_service import http, stencil
from limiter_service.engine.refusals import refuse
from limiter_service.engine.shape import Taken
from limiter_service.http import JSON, Headers
from limiter_service.page_policy import NO_SNIFFING, NOT_KEPT
from limiter_wire import Checked, ErrorCode, Granted, Problem, Wire


class Reply(NamedTuple):
    """An answer, but for the length of its body."""

    status: int
    headers: Headers
    body: bytes


def told(value: Wire, kind: str, identity: str) -> Reply:
    """What a handler has answered, in the media type *kind*."""
    headers = [http.content_type(kind), named(identity), NO_SNIFFING, NOT_KEPT]
    if isinstance(value, (Granted, Checked)):
        headers += http.limit_headers(value.limits)
    headers += http.degraded_headers(value)
    return Reply(http.status_of_answer(value), headers, http.encode(value, kind))


def refused(problem: Problem, kind: str, identity: str) -> Reply:
    """Why there is no such answer."""
    headers = [
        http.content_type(kind, problem=True),
        named(identity),
        NO_SNIFFING,
        NOT_KEPT,
        *http.problem_headers(problem),
        *http.limit_headers(problem.limits),
        *http.degraded_headers(problem),
    ]
    if problem.code is ErrorCode.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"POST"))
    body = http.encode(msgspec.structs.replace(problem, request_id=identity), kind)
    return Reply(problem.status, headers, body)


def failed() -> Problem:
    """What a caller is told of a mistake of ours."""
    return refuse(ErrorCode.INTERNAL, "the service failed; its log has the request id").problem


def named(identity: str) -> tuple[bytes, bytes]:
    """The header with the id of a request."""
    return b"x-request-id", identity.encode()


def whole(reply: Reply) -> bytes:
    """The answer as it crosses the network."""
    lines = [_status_line(reply.status)]
    lines += [b"%b: %b\r\n" % header for header in reply.headers]
    lines += [b"content-length: %d\r\n\r\n" % len(reply.body), reply.body]
    return b"".join(lines)


_GRANTED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: %b\r\n%b%bcontent-length: %d\r\n\r\n%b"
)
_ALWAYS = b"".join([b"%b: %b\r\n" % header for header in (NO_SNIFFING, NOT_KEPT)])


def granted(taken: Taken, kind: str, identity: str) -> bytes:
    """The same as `told` has it of a grant by ordinary limits."""
    body = stencil.text(taken) if kind == JSON else stencil.grant(taken)
    said = (kind.encode(), identity.encode(), _ALWAYS, stencil.lines(taken), len(body), body)
    return _GRANTED % said


def parting(answer: bytes) -> bytes:
    """The same, with the word that the connection ends after it."""
    head, end, body = answer.partition(b"\r\n\r\n")
    return head + b"\r\nconnection: close" + end + body


@lru_cache(64)
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
