"""The hatch: ordinary acquires and settles over HTTP, handed in and answered at the connection.

A request that goes into the application costs a scope, a task and four messages, which is more than
the decision. One that comes whole, that a known caller sends, and that can begin at once
(docs/decisions/0022) needs nothing of that. What is not plain is not judged here: it goes into the
application, which has seen nothing of it yet.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import ClassVar

import msgspec
import structlog

from limiter_service import http, replies
from limiter_service.door import HOT_ROLES, Door, shown_in
from limiter_service.engine.admission import Engine
from limiter_service.engine.begun import Begun, BegunSettle
from limiter_service.engine.callers import Caller
from limiter_service.engine.credentials import Credential
from limiter_service.engine.ids import new_short_id
from limiter_service.engine.refusals import Refusal
from limiter_service.engine.shape import Taken
from limiter_service.front import Bounds
from limiter_service.http import JSON, MSGPACK, Media, Reader
from limiter_service.routes.swift import begin, conclude, reaches
from limiter_service.telemetry import REQUEST_ID
from limiter_wire import Acquire, Role, Settle

HATCH = "sluicegate.hatch"
"""Where the state of the lifespan has the hatch of the process."""

Lines = list[tuple[bytes, bytes]]
"""Headers as they were sent, with names in lower case."""

_READERS = {b"/v1/acquire": Reader(Acquire), b"/v1/settle": Reader(Settle)}
_NOT_PLAIN = {b"expect", b"idempotency-key", b"origin", b"transfer-encoding"}
_MOST_KNOWN = 512
_log = structlog.get_logger()


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a head says that is plain. *length* is that of the body."""

    path: bytes
    headers: Lines
    length: int
    kind: Media
    shown: Credential | None
    identity: str | None
    roles: tuple[Role, ...]


class Silence:
    """What wakes nobody: nobody waits for more of an order."""

    def set(self) -> None:
        """Do nothing."""


class Order(msgspec.Struct, kw_only=True):
    """A request at the hatch. Its connection treats it as it does uvicorn's `RequestResponseCycle`
    of any other request.
    """

    head: Head
    body: bytes
    identity: str
    told: "Callable[[Order], None]"
    begun: Begun | None = None

    keep_alive: bool = True
    disconnected: bool = False
    response_started: bool = False
    response_complete: bool = False

    message_event: ClassVar = Silence()
    gone: ClassVar[bool] = False  # a report counts though its answer is written for nobody

    def hear(self) -> None:
        """What it has begun has come to something."""
        self.told(self)


class Hatch:
    """Takes orders, and says what came of them."""

    def __init__(self, engine: Engine, door: Door, bounds: Bounds) -> None:
        self._engine, self._door, self._bounds = engine, door, bounds
        self.paths = frozenset(_READERS)
        self.known: dict[bytes, Head] = {}
        """Heads as they come from the network, that came more than once: what they say."""
        self._errands: set[asyncio.Task[None]] = set()

    def read(self, path: bytes, headers: Lines) -> Head | None:
        """What the head of a request says; None where it is not plain."""
        said = dict(headers)
        length, sent = said.get(b"content-length"), said.get(b"authorization")
        size = len(path) + sum([len(name) + len(value) + 4 for name, value in headers])
        if length is None or not length.isdigit() or said.keys() & _NOT_PLAIN:
            return None
        if size > self._bounds.head or int(length) > self._bounds.body:
            return None
        shown = None if sent is None else shown_in(sent.decode("latin-1"))
        if sent is not None and shown is None:
            return None
        kind = http.media_of(_text(said.get(b"content-type")), _text(said.get(b"accept")))
        if kind.body not in {JSON, MSGPACK}:
            return None
        return Head(
            path=path,
            headers=headers,
            length=int(length),
            kind=kind,
            shown=shown,
            identity=http.usable_id(_text(said.get(b"x-request-id"))),
            roles=HOT_ROLES[path.decode()],
        )

    def remember(self, raw: bytes, head: Head) -> None:
        """Know what *raw* says when it comes again."""
        if len(self.known) >= _MOST_KNOWN:
            del self.known[next(iter(self.known))]
        self.known[raw] = head

    def order(self, head: Head, body: bytes, told: Callable[[Order], None]) -> Order | None:
        """Begin what is asked for, if it is plain who asks and for what: then *told* hears when
        `answer` has something to say.
        """
        caller = self._door.knows(head.shown)
        if caller is None or caller.roles.isdisjoint(head.roles):
            return None
        identity = head.identity or new_short_id()
        order = Order(head=head, body=body, identity=identity, told=told)
        token = REQUEST_ID.set(identity)
        try:
            return order if self._begin(order, caller) else None
        finally:
            REQUEST_ID.reset(token)

    def _begin(self, order: Order, caller: Caller) -> bool:
        try:
            request = _READERS[order.head.path].read(order.body, order.head.kind.body)
            if not reaches(caller, request):
                return False
            order.begun = begin(self._engine, caller, request, order)
        except Exception:  # noqa: BLE001  # whatever it is: the application comes upon it too
            return False
        return order.begun is not None

    def answer(self, order: Order) -> bytes | None:
        """The whole answer; None where the application has to go on."""
        assert order.begun is not None
        kind, identity = order.head.kind.answer, order.identity
        token = REQUEST_ID.set(identity)
        try:
            value = conclude(self._engine, order.begun)
            if value is None:
                return None
            if isinstance(value, Taken):
                return replies.granted(value, kind, identity)
            return replies.whole(replies.told(value, kind, identity))
        except Refusal as refusal:
            return replies.whole(replies.refused(refusal.problem, kind, identity))
        except Exception:  # noqa: BLE001  # whatever it is: the caller gets an answer
            _log.exception("request failed", path=order.head.path.decode(), request_id=identity)
            return replies.whole(replies.refused(replies.failed(), kind, identity))
        finally:
            REQUEST_ID.reset(token)

    def finish(self, order: Order) -> None:
        """Take in a report whose caller is gone; what is asked for nobody is not."""
        if isinstance(order.begun, BegunSettle):
            errand = asyncio.get_running_loop().create_task(self._settle(order.begun))
            self._errands.add(errand)
            errand.add_done_callback(self._errands.discard)

    async def _settle(self, begun: BegunSettle) -> None:
        with contextlib.suppress(Refusal):
            await self._engine.settle(begun.request, begun)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
