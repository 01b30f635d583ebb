"""Bodies and answers of the HTTP API: JSON or msgpack in, the same or a Problem out."""

import asyncio
import itertools
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from limiter_service.engine.ids import new_short_id
from limiter_service.engine.refusals import Refusal, refuse
from limiter_wire import ErrorCode, LimitState, Meter, Problem, Waiting

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON, MSGPACK = "application/json", "application/msgpack"
_PROBLEM = {JSON: b"application/problem+json", MSGPACK: b"application/msgpack"}
_ENCODE = {JSON: msgspec.json.Encoder().encode, MSGPACK: msgspec.msgpack.Encoder().encode}
_HEADERS = "sluicegate.headers"
_REQUEST_ID = re.compile(r"[!-~]{1,200}")

T = TypeVar("T")


class Media(msgspec.Struct, frozen=True):
    """How this request is read and answered."""

    body: str
    answer: str


def header(scope: Scope, name: bytes) -> str | None:
    """The last value of a header, None when it is not sent."""
    known: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if known is None:
        known = scope[_HEADERS] = dict(scope["headers"])
    found = known.get(name)
    return None if found is None else found.decode("latin-1")


def media(scope: Scope) -> Media:
    """The media types to use. Raises Refusal for a body that is neither JSON nor msgpack."""
    return media_of(header(scope, b"content-type"), header(scope, b"accept"))


@lru_cache(256)
def media_of(named: str | None, accepted: str | None) -> Media:
    """The same of the headers `Content-Type` and `Accept`; the body's may be none of ours."""
    sent = (named or JSON).partition(";")[0].strip().lower()
    accepted = accepted or ""
    if sent in {MSGPACK, "application/x-msgpack", "application/vnd.msgpack"}:
        sent = MSGPACK
    if MSGPACK in accepted:
        wanted = MSGPACK
    elif JSON in accepted or sent not in _ENCODE:
        wanted = JSON
    else:
        wanted = sent
    return Media(sent, wanted)


def refuse_method(scope: Scope) -> None:
    """Raise Refusal when the method is not POST."""
    if scope["method"] != "POST":
        raise refuse(ErrorCode.METHOD_NOT_ALLOWED, f"{scope['path']} takes POST")


def refuse_media(kind: Media) -> None:
    """Raise Refusal when the body's media type is not ours."""
    if kind.body not in _ENCODE:
        raise refuse(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"a body is {JSON} or {MSGPACK}, not {kind.body[:100]!r}: set the header Content-Type",
        )


async def read_body(receive: Receive, scope: Scope, most: int, timeout: float) -> bytes:
    """The whole body. Raises Refusal when it is larger than *most* or slower than *timeout*."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    patience = _Patience(timeout)
    try:
        return await _collect(receive, most)
    except asyncio.CancelledError:
        if not patience.is_over():
            raise
        message = f"the body did not arrive within {timeout:g} s"
        raise refuse(ErrorCode.REQUEST_TIMEOUT, message) from None
    finally:
        patience.end()


class _Patience:
    """Cancels the task that has begun it when its time is over, as `asyncio.timeout` does, which
    costs three times as much: every request sets one, and hardly any needs it.
    """

    def __init__(self, timeout: float) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(timeout, self._over)
        self._expired = False

    def is_over(self) -> bool:
        """Whether this is why the task was cancelled: then it goes on."""
        assert self._task is not None
        return self._expired and self._task.uncancel() == 0

    def end(self) -> None:
        """What was waited for has come."""
        self._timer.cancel()

    def _over(self) -> None:
        assert self._task is not None
        self._expired = True
        self._task.cancel()


async def _collect(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts) if len(parts) > 1 else parts[0]


async def while_connected(work: Coroutine[Any, Any, T], scope: Scope) -> T:
    """Do *work* while the caller of *scope* stays; raise ClientGone, with *work* cancelled, when
    it hangs up.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnect(scope["sluicegate.receive"]))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.wait({task, gone})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def status_of_answer(value: object) -> int:
    """The HTTP status of an answer that is no Problem."""
    return 202 if isinstance(value, Waiting) else 200


class ClientGone(Exception):  # what happened
    """The client hung up before its request was complete; there is nobody to answer."""


def _too_large(most: int) -> Refusal:
    return refuse(ErrorCode.TOO_LARGE, f"a body has at most {most} bytes")


class Reader:
    """Decodes bodies of one type."""

    def __init__(self, kind: Any) -> None:
        self._decode = {
            JSON: msgspec.json.Decoder(kind).decode,
            MSGPACK: msgspec.msgpack.Decoder(kind).decode,
        }

    def read(self, body: bytes | msgspec.Raw, kind: str) -> Any:
        """The body as a Struct. Raises Refusal: 422 names the field, 400 the syntax."""
        try:
            return self._decode[kind](body)
        except msgspec.ValidationError as error:
            raise refuse(ErrorCode.INVALID, _field_error(str(error))) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            detail = f"the body is not {kind.removeprefix('application/')}: {error}"
            raise refuse(ErrorCode.MALFORMED, detail[:300]) from error


def _field_error(message: str) -> str:
    """`$.tokens: expected int >= 1`, from msgspec's wording."""
    text, at, path = message.rpartition(" - at `")
    return f"{path.rstrip('`')}: {text[0].lower()}{text[1:]}" if at else message


def encode(value: Any, kind: str) -> bytes:
    """*value* as bytes of a media type."""
    return _ENCODE[kind](value)


async def answer(
    send: Send, status: int, body: bytes, headers: Headers, over: str = "http"
) -> None:
    """Send a complete response; *over* `websocket.http`, to a handshake."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": f"{over}.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": f"{over}.response.body", "body": body})


def content_type(kind: str, *, problem: bool = False) -> tuple[bytes, bytes]:
    """The header that names the media type of an answer."""
    return b"content-type", _PROBLEM[kind] if problem else kind.encode()


def problem_headers(problem: Problem) -> Headers:
    """`Retry-After` in whole seconds, and the exact time beside it; what a key looks like."""
    if problem.code is ErrorCode.UNAUTHENTICATED:
        return [(b"www-authenticate", b'Bearer realm="sluicegate"')]
    if problem.retry_after is None:
        return []
    return [
        (b"retry-after", str(max(1, math.ceil(problem.retry_after))).encode()),
        (b"retry-after-ms", str(math.ceil(problem.retry_after * 1000)).encode()),
    ]


def degraded_headers(value: object) -> Headers:
    """`Sluicegate-Degraded`, where one replica has decided alone."""
    return [(b"sluicegate-degraded", b"true")] if getattr(value, "degraded", None) is True else []


def limit_headers(limits: Sequence[LimitState]) -> Headers:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11)."""
    counted = [limit for limit in limits if limit.per is not None]
    if not counted:
        return []
    named = tuple((limit.name, limit.limit, limit.per, limit.meter) for limit in counted)
    return [
        (b"ratelimit", ", ".join([_state(limit) for limit in counted]).encode()),
        (b"ratelimit-policy", policies(named)),
    ]


def _state(limit: LimitState) -> str:
    left = max(0, math.floor(limit.remaining))
    return f"{quote(limit.name)};r={left};t={math.ceil(limit.reset_after)}"


@lru_cache(1024)
def policies(named: tuple[tuple[str, float, float, Meter], ...]) -> bytes:
    """`RateLimit-Policy` of one chain: it changes when the configuration does."""
    return ", ".join(itertools.starmap(_policy, named)).encode()


def _policy(name: str, limit: float, per: float, meter: Meter) -> str:
    unit = "requests" if meter is Meter.REQUESTS else str(meter)
    return f'{quote(name)};q={math.floor(limit)};w={math.ceil(per)};qu="{unit}"'


@lru_cache(4096)
def quote(name: str) -> str:
    """A name as a string of a structured field."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def request_id(scope: Scope) -> str:
    """The caller's `X-Request-Id` where it is usable, else a new one."""
    sent = header(scope, b"x-request-id")
    return usable_id(sent) or new_short_id()


def usable_id(sent: str | None) -> str | None:
    """The id that a caller has sent, if it is usable."""
    return sent if sent and _REQUEST_ID.fullmatch(sent) else None
