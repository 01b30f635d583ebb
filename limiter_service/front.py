"""The front door: request ids, size limits, and the hot routes as plain ASGI handlers.

FastAPI's routing costs three to four times the work of these handlers (docs/decisions/0004),
so they stand in front of it; everything else passes through.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog

from limiter_service import http, replies
from limiter_service.door import DOOR, HOT_ROLES, Door
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.http import ClientGone, Media, Message, Receive, Scope, Send
from limiter_service.page_policy import guarded
from limiter_service.telemetry import REQUEST_ID
from limiter_wire import ErrorCode, Problem

Handler = Callable[[bytes, Media, Scope], Awaitable[Any]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = structlog.get_logger()

_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}
"""Methods whose bodies, if they have any, no route reads."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How large and how slow a request may be: bytes, bytes, seconds."""

    body: int
    head: int
    body_timeout: float


class Front:
    """An ASGI application in front of another."""

    def __init__(
        self,
        inner: Application,
        routes: Mapping[str, Handler],
        bounds: Bounds,
        sockets: Mapping[str, Application],
        door: Door,
    ) -> None:
        self._inner, self._routes, self._bounds = inner, routes, bounds
        self._sockets, self._door = sockets, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        identity = http.request_id(scope)
        REQUEST_ID.set(identity)
        handler = self._routes.get(scope["path"])
        try:
            self._bound(scope)
            if handler is None:
                await self._pass_on(scope, receive, send, identity)
            else:
                (await self._door.admit(scope)).needs(*HOT_ROLES[scope["path"]])
                await self._answer(handler, scope, receive, send, identity)
        except ClientGone:
            return
        except Refusal as refusal:
            await _send_problem(send, http.media(scope).answer, refusal.problem, identity)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a WebSocket to its application, or refuse the handshake with a problem."""
        await receive()
        try:
            self._bound(scope)
            self._door.refuse_foreign_pages(scope)
            application = self._sockets.get(scope["path"])
            if application is None:
                raise refuse(ErrorCode.NOT_FOUND, "WebSockets are served at /v1/channel")
            (await self._door.admit(scope)).needs(*HOT_ROLES[scope["path"]])
            REQUEST_ID.set(http.request_id(scope))
            await application(scope, receive, send)
        except Refusal as refusal:
            await _refuse_handshake(scope, send, refusal.problem)

    def _bound(self, scope: Scope) -> None:
        """Whatever holds for requests and handshakes alike. Raises Refusal."""
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size += sum([len(name) + len(value) + 4 for name, value in scope["headers"]])
        if size > self._bounds.head:
            message = f"path and headers have at most {self._bounds.head} bytes"
            raise refuse(ErrorCode.HEADERS_TOO_LARGE, message)

    async def _answer(
        self, handler: Handler, scope: Scope, receive: Receive, send: Send, identity: str
    ) -> None:
        kind = http.media(scope)
        try:
            http.refuse_method(scope)
            http.refuse_media(kind)
            body = await http.read_body(
                receive, scope, self._bounds.body, self._bounds.body_timeout
            )
            scope["sluicegate.receive"] = receive
            value = await handler(body, kind, scope)
        except Refusal as refusal:
            await _send_problem(send, kind.answer, refusal.problem, identity)
        except ClientGone:
            raise
        except Exception:  # noqa: BLE001  # whatever it is: the caller gets an answer
            _log.exception("request failed", path=scope["path"], request_id=identity)
            await _send_problem(send, kind.answer, replies.failed(), identity)
        else:
            status, headers, body = replies.told(value, kind.answer, identity)
            await http.answer(send, status, body, headers)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, identity: str) -> None:
        """Let FastAPI answer, with a body that is read: it would wait for one without end, and
        for that of a stranger too.
        """

        async def with_identity(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = guarded([*message["headers"], replies.named(identity)], scope)
            await send(message)

        scope.setdefault("state", {})["request_id"] = identity
        scope[DOOR] = self._door
        if scope["method"] not in _WITHOUT_BODY:
            await self._door.admit(scope)
            body = await http.read_body(
                receive, scope, self._bounds.body, self._bounds.body_timeout
            )
            receive = _read_already(body, receive)
        await self._inner(scope, receive, with_identity)


def _read_already(body: bytes, receive: Receive) -> Receive:
    """What an application receives whose request has this *body*."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


async def _refuse_handshake(scope: Scope, send: Send, problem: Problem) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    await _send_problem(send, http.JSON, problem, http.request_id(scope), "websocket.http")


async def _send_problem(
    send: Send, kind: str, problem: Problem, identity: str, over: str = "http"
) -> None:
    status, headers, body = replies.refused(problem, kind, identity)
    await http.answer(send, status, body, headers, over)
