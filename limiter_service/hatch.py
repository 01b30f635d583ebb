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

from limiter_service import replies
from limiter_service.door import Door
from limiter_service.engine.admission import Engine
from limiter_service.engine.begun import Begun, BegunSettle
from limiter_service.engine.ids import new_short_id
from limiter_service.engine.refusals import Refusal
from limiter_service.engine.shape import Taken
from limiter_service.front import Bounds
from limiter_service.heads import Head, Heads
from limiter_service.routes.swift import conclude, reaches, start
from limiter_service.telemetry import REQUEST_ID

HATCH = "sluicegate.hatch"
"""Where the state of the lifespan has the hatch of the process."""

_log = structlog.get_logger()


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
        self._engine, self._door = engine, door
        self.heads = Heads(bounds)
        self._errands: set[asyncio.Task[None]] = set()

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
            request = head.decode(body)
            if caller.bound and not reaches(caller, request):
                return None
            order.begun = start(self._engine, request, order)
        except Exception:  # noqa: BLE001  # whatever it is: the application comes upon it too
            return None
        finally:
            REQUEST_ID.reset(token)
        return None if order.begun is None else order

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
        try:
            with contextlib.suppress(Refusal):
                await self._engine.settle(begun.request, begun)
        except Exception:  # noqa: BLE001  # whatever it is: there is nobody to tell
            _log.exception("a report was not taken in")
