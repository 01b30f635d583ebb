"""WS /v1/channel: the operations of one worker over one connection, answered as they come.

What ends soon is bounded by leaving the next message unread. Acquires that wait are bounded by
refusal: behind them may come the settle that they wait for, and it has to be read.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, ClassVar, cast

import msgspec
import structlog

from limiter_service import stencil
from limiter_service.door import CALLER, caller_of
from limiter_service.engine.admission import Engine
from limiter_service.engine.begun import Begun, BegunAcquire, BegunSettle
from limiter_service.engine.callers import Caller
from limiter_service.engine.errands import Errands
from limiter_service.engine.queueing import HELD
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.shape import Taken
from limiter_service.frames import (
    NEWS,
    RECALL,
    Answer,
    Closed,
    Closing,
    Frame,
    Id,
    Ready,
    Verb,
    read,
    ready,
    write,
)
from limiter_service.http import Message, Reader, Receive, Scope, Send, status_of_answer
from limiter_service.line import LINE, Line
from limiter_service.routes.batch import failed, refused, result_of
from limiter_service.routes.check import check
from limiter_service.routes.observe import observe
from limiter_service.routes.renew import renew
from limiter_service.routes.settle import settle
from limiter_service.routes.swift import begin, conclude
from limiter_wire import (
    Acquire,
    BatchResult,
    ErrorCode,
    Granted,
    Recalled,
    Settle,
    Settled,
    Waiting,
    Wire,
)
from limiter_wire.naming import new_request_id

MOST_AT_ONCE = 512
"""Operations that end soon, and answers not yet sent, before a message is left unread."""

MOST_WAITING = 10_000
"""Acquires that wait on one connection."""

MOST_RECALLED = 1000
"""Resources whose blocks one connection is asked for: callers make up names of models."""

_PATIENCE = 5.0  # seconds that a shutdown gives to what is under way

_BRIEF = b"limits=brief"
"""What a client asks for that reads limits as limiter_wire/brief says them."""

_acquire_reader = Reader(Acquire)
_log = structlog.get_logger()


_RUN: dict[Verb, Callable[..., Awaitable[Wire]]] = {
    Verb.SETTLE: settle,
    Verb.RENEW: renew,
    Verb.CHECK: check,
    Verb.OBSERVE: observe,
}
_CANCEL = Verb.CANCEL
_HUNG_UP = {Verb.ACQUIRE, Verb.CHECK}  # a report is worth finishing when nobody listens


class Channels:
    """The channels of this process, as an ASGI application for websocket scopes."""

    def __init__(self, engine: Engine, most_bytes: int) -> None:
        self._engine, self._most_bytes = engine, most_bytes
        self._open: dict[_Channel, asyncio.Task[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a channel. Raises Refusal, before it is accepted, while the engine drains."""
        if self._engine.draining is not None:
            raise refuse(ErrorCode.SHUTTING_DOWN, self._engine.draining, retry_after=1.0)
        await send({"type": "websocket.accept"})
        caller = caller_of(scope)
        told = stencil.Told() if _BRIEF in scope.get("query_string", b"").split(b"&") else None
        line: Line | None = (scope.get("extensions") or {}).get(LINE)
        channel = _Channel(self._engine, self._most_bytes, receive, send, caller, told, line)
        task = asyncio.current_task()
        assert task is not None
        self._open[channel] = task
        try:
            with caller.watched(channel.expel):
                await channel.serve()
        finally:
            del self._open[channel]

    @property
    def open(self) -> int:
        """How many are connected."""
        return len(self._open)

    async def aclose(self) -> None:
        """Send every client to another replica."""
        for channel in self._open:
            channel.stop()
        if self._open:
            await asyncio.wait(list(self._open.values()))


_CANCELLED = refuse(ErrorCode.CANCELLED, "cancelled, and nothing is reserved")
_PARTING = refuse(
    ErrorCode.SHUTTING_DOWN,
    "this replica is shutting down; ask again with the same request_id",
    retry_after=0.0,
)


class _Swift(msgspec.Struct):
    """A frame that has no task."""

    frame: Frame
    told: "Callable[[_Swift], None]"
    begun: Begun | None = None
    called_off: bool = False

    gone: ClassVar[bool] = False  # its answer may be written for nobody, but it counts

    def hear(self) -> None:
        """What it has begun has come to something."""
        self.told(self)


class _Channel:
    """One connection: a task that reads, a task that writes, and one for each operation that takes
    longer than an answer of the store. Over a line the first two have work only where something
    has to wait.
    """

    def __init__(
        self,
        engine: Engine,
        most_bytes: int,
        receive: Receive,
        send: Send,
        caller: Caller,
        told: stencil.Told | None,
        line: Line | None,
    ) -> None:
        self._engine, self._most_bytes, self._told = engine, most_bytes, told
        self._receive, self._send, self._line = receive, send, line
        self._caller = caller
        self._scope: Scope = {"headers": [], CALLER: caller}
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[Closed | None] = self._loop.create_future()
        self._under_way: dict[Id, tuple[Frame, asyncio.Task[None]]] = {}
        self._begun: dict[Id, _Swift] = {}
        self._all_heard = asyncio.Event()
        self._asked: dict[Id, Acquire] = {}
        self._lent: dict[str, Frame] = {}
        self._called_off = Errands()
        self._soon, self._waiting = 0, 0
        self._outbox: list[Answer | Ready] = []
        self._gone = self._parting = False
        self._listening = self._speaking = self._writing = self._last_words = False
        self._speak, self._room = asyncio.Event(), asyncio.Event()

    async def serve(self) -> None:
        """Return when the client is gone, or has been told why it must go."""
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        if self._line is not None:
            self._line.listen(self._hear)
        try:
            until: set[asyncio.Future[Any]] = {self._end, reader, writer}
            await asyncio.wait(until, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                await reader  # which raises what was no message's fault
            reader.cancel()
            end = self._end.result() if self._end.done() else None
            if end is not None and end.code is Closing.RESTARTING:
                await self._hand_over()
            else:
                self._hang_up()
            if end is not None:
                await self._part(writer, end)
            await _all(task for _, task in self._under_way.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._called_off.over()
            self._called_off.forget()
        finally:
            for task in (reader, writer, *(t for _, t in self._under_way.values())):
                task.cancel()

    def stop(self) -> None:
        """Hand everything over to another replica."""
        self._finish(_restarting())

    def expel(self, why: str) -> None:
        """End the connection of a caller that may call no more."""
        self._finish(Closed(Closing.MISUSED, why))

    def _finish(self, end: Closed | None) -> None:
        """Listen no more, for this reason; for none if the client is gone."""
        if not self._end.done():
            self._end.set_result(end)

    # What comes in

    async def _read(self) -> None:
        """Take one message after the other, each when there is room for it."""
        while not self._end.done():
            self._listening = True
            message = await self._receive()
            self._listening = False  # to what comes behind it
            if message["type"] == "websocket.disconnect":
                restarts = message.get("code") == Closing.RESTARTING
                self._finish(_restarting() if restarts else None)
                return
            while not self._has_room:
                self._room.clear()
                await self._room.wait()
            if not self._end.done():  # by now it may be
                self._take(_data(message))

    def _hear(self, data: bytes | str) -> bool:
        """The same for a message that comes over the line, if it can be taken at once."""
        if not self._listening or self._end.done() or not self._has_room:
            return False
        self._take(data)
        return True

    def _take(self, data: bytes | str) -> None:
        """Begin what the client asks for, or end with it."""
        if len(data) > self._most_bytes:
            most = f"a message has at most {self._most_bytes} bytes"
            self._finish(Closed(Closing.TOO_LARGE, most))
            return
        try:
            for frame in read(data):
                self._begin(frame)
        except Closed as closed:
            self._finish(closed)

    @property
    def _has_room(self) -> bool:
        return self._soon + len(self._outbox) < MOST_AT_ONCE

    def _begin(self, frame: Frame | Answer) -> None:
        if type(frame) is Answer:
            self._say(frame)
            return
        assert isinstance(frame, Frame)
        if frame.verb is _CANCEL:
            self._cancel(frame.id)
        elif frame.id in self._under_way or frame.id in self._begun:
            raise Closed(Closing.MISUSED, f"the id {frame.id!r} is under way already")
        elif frame.waits and self._waiting >= MOST_WAITING:
            detail = f"one channel has at most {MOST_WAITING} acquires that wait"
            self._say(_refused(frame, refuse(ErrorCode.QUEUE_FULL, detail, retry_after=1.0)))
        else:
            self._soon += not frame.waits
            self._waiting += frame.waits
            if frame.request is None or not self._begin_swiftly(frame, frame.request):
                self._start(frame)

    def _begin_swiftly(self, frame: Frame, request: Acquire | Settle) -> bool:
        """Begin what most likely needs no task; whether that was possible."""
        swift = _Swift(frame, self._heard)
        try:
            swift.begun = begin(self._engine, self._caller, request, swift)
        except Refusal as refusal:
            self._over(frame)
            self._say(_refused(frame, refusal))
            return True
        except Exception as error:  # noqa: BLE001  # whatever it is: the others get their answers
            self._over(frame)
            self._say(Answer(frame.id, frame.style, failed(error)))
            return True
        if swift.begun is None:
            return False
        self._begun[frame.id] = swift
        return True

    def _heard(self, swift: "_Swift") -> None:
        """Answer what has begun, or let a task go on with it."""
        frame, begun = swift.frame, swift.begun
        assert begun is not None
        try:
            answer = conclude(self._engine, begun)
            said = None if answer is None else self._said(frame, answer)
        except Refusal as refusal:
            said = _refused(frame, refusal)
        except Exception as error:  # noqa: BLE001  # whatever it is: the others get their answers
            said = Answer(frame.id, frame.style, failed(error))
        del self._begun[frame.id]
        if said is None:
            self._go_on(frame, begun, called_off=swift.called_off)
        else:
            self._over(frame)
            self._say(said)
        if not self._begun:
            self._all_heard.set()

    def _said(self, frame: Frame, answer: Taken | Wire) -> Answer | Ready:
        said = ready(frame, answer, self._told)
        if said is not None:
            return said
        body = answer.granted() if isinstance(answer, Taken) else answer
        return Answer(frame.id, frame.style, BatchResult(status=status_of_answer(body), body=body))

    def _go_on(self, frame: Frame, begun: Begun, *, called_off: bool) -> None:
        """Let a task take the time that it takes, if that is still wanted."""
        if called_off and isinstance(begun, BegunAcquire):
            self._over(frame)
            self._called_off.run(self._withdraw(frame, None, _named(begun)))
        elif frame.verb in _HUNG_UP and self._gone:
            self._over(frame)
        elif frame.waits and self._parting:
            self._over(frame)
            self._say(_refused(frame, _PARTING))
        else:
            self._start(frame, begun)

    def _start(self, frame: Frame, begun: Begun | None = None) -> None:
        if isinstance(begun, BegunAcquire):  # the store may have heard of it
            self._asked[frame.id] = _named(begun)
        task = asyncio.get_running_loop().create_task(self._perform(frame, begun))
        self._under_way[frame.id] = frame, task
        # Not at the end of the task itself, which may be cancelled before its beginning.
        task.add_done_callback(partial(self._ended, frame))

    def _ended(self, frame: Frame, task: asyncio.Task[None]) -> None:
        self._over(frame)
        if self._under_way.get(frame.id, (None, None))[1] is task:  # else the id has another
            del self._under_way[frame.id]
            self._asked.pop(frame.id, None)

    def _over(self, frame: Frame) -> None:
        self._soon -= not frame.waits
        self._waiting -= frame.waits

    async def _perform(self, frame: Frame, begun: Begun | None) -> None:
        work: Awaitable[Wire]
        if frame.verb is Verb.ACQUIRE:
            assert begun is None or isinstance(begun, BegunAcquire)
            work = self._acquire(frame, begun)
        elif isinstance(begun, BegunSettle):
            work = self._engine.settle(begun.request, begun)
        elif isinstance(frame.request, Settle):
            work = self._settle(frame.request)
        else:
            work = _RUN[frame.verb](self._engine, frame.body, frame.style.kind, self._scope)
        self._say(Answer(frame.id, frame.style, await result_of(work)))

    async def _settle(self, report: Settle) -> Settled:
        self._caller.reaches_lease(report.lease)
        return await self._engine.settle(report)

    async def _acquire(self, frame: Frame, begun: BegunAcquire | None) -> Wire:
        """Acquire, and wait for as long as the caller does, where it does not say otherwise: to
        answer that it waits, and to be asked again, costs three calls of the store, and tells
        nobody anything.
        """
        request = frame.request
        if not isinstance(request, Acquire):
            request = cast("Acquire", _acquire_reader.read(frame.body, frame.style.kind.body))
        self._caller.reaches(request.resource, request.tenant)
        if request.request_id is None:  # a name, to be called off by
            name = begun.request_id if begun else new_request_id()
            request = msgspec.structs.replace(request, request_id=name)
        self._asked[frame.id] = request

        def tell(waiting: Waiting) -> None:
            if len(self._outbox) < MOST_AT_ONCE:  # else it reads too slowly to be up to date
                self._say(Answer(frame.id, frame.style, BatchResult(status=NEWS, body=waiting)))

        told = tell if frame.news else None
        hold = HELD if request.hold is None else request.hold
        answer = await self._engine.acquire(request, hold, told, begun)
        if isinstance(answer, Granted) and answer.block is not None:
            self._lent.pop(request.resource, None)
            self._lent[request.resource] = frame
            if len(self._lent) > MOST_RECALLED:  # the oldest ends by itself, when its time is over
                del self._lent[next(iter(self._lent))]
            self._engine.lending.recalls.watch(request.resource, answer.block.hold, self._recall)
        return answer

    def _recall(self, resource: str) -> None:
        """Ask for the blocks of a resource back: a second answer to who has asked for the last."""
        frame = self._lent.pop(resource, None)
        if frame is not None:
            result = BatchResult(status=RECALL, body=Recalled(resource=resource))
            self._say(Answer(frame.id, frame.style, result))

    # What goes out

    def _say(self, answer: Answer | Ready) -> None:
        """Tell an answer, together with those of the same tick."""
        self._outbox.append(answer)
        if self._line is None or self._writing:
            self._speak.set()
        elif not self._speaking:
            self._speaking = True
            self._loop.call_soon(self._say_over, self._line)

    def _say_over(self, line: Line) -> None:
        self._speaking = False
        if not self._writing and line.say(write(self._outbox)):
            self._outbox.clear()
            self._room.set()
        else:
            self._speak.set()

    async def _write(self) -> None:
        """Send the answers of each tick together, until the last words or the client is gone."""
        while self._outbox or not self._last_words:
            await self._speak.wait()
            self._speak.clear()
            self._writing = True
            count = len(self._outbox)
            try:
                for message in write(self._outbox[:count]):
                    await self._send(message)
            except (OSError, RuntimeError):  # servers differ in how they say that nobody is there
                return
            del self._outbox[:count]
            self._writing = False
            if self._outbox:
                self._speak.set()
            self._room.set()

    async def _part(self, writer: asyncio.Task[None], end: Closed) -> None:
        """Say what is left to say, and why this is the end."""
        self._last_words = True
        self._speak.set()
        await asyncio.wait({writer}, timeout=_PATIENCE)
        try:
            await self._send({"type": "websocket.close", "code": end.code, "reason": end.reason})
        except (OSError, RuntimeError):
            return

    # What ends before its time

    def _cancel(self, name: Id) -> None:
        """Call off an acquire that waits; anything else is answered soon anyway."""
        swift = self._begun.get(name)
        if swift is not None:
            swift.called_off = True  # it does not wait: its grant is told, and comes back
            return
        frame, task = self._under_way.get(name, (None, None))
        if frame is None or task is None or not frame.waits:
            return
        del self._under_way[name]
        # At once: what has not begun to ask is not to begin before the errand does.
        task.cancel()
        self._called_off.run(self._withdraw(frame, task, self._asked.pop(name, None)))

    async def _withdraw(
        self, frame: Frame, task: asyncio.Task[None] | None, asked: Acquire | None
    ) -> None:
        """The same, and the place in the queue goes with it, or what was granted unheard."""
        if task is not None:
            await asyncio.wait({task})
            if not task.cancelled():
                return
        try:
            if asked is not None:
                await self._engine.cancel(asked)
        except Refusal as refusal:
            _log.debug("a waiter was not removed", problem=refusal.problem.detail)
        self._say(_refused(frame, _CANCELLED))

    async def _call_off(self, frame: Frame, task: asyncio.Task[None], why: Refusal) -> None:
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            self._say(_refused(frame, why))

    def _hang_up(self) -> None:
        """Nobody listens any more: waiters keep their place for those who come back."""
        self._gone = True
        for frame, task in self._under_way.values():
            if frame.verb in _HUNG_UP:
                task.cancel()

    async def _hand_over(self) -> None:
        """Let what waits ask another replica, and what ends soon end."""
        self._parting = True
        if self._begun:
            self._all_heard.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._all_heard.wait()
        under_way = list(self._under_way.values())
        await _all(
            asyncio.create_task(self._call_off(frame, task, _PARTING))
            for frame, task in under_way
            if frame.waits
        )
        await _all(task for _, task in under_way)


def _data(message: Message) -> bytes | str:
    data: bytes | str | None = message.get("bytes")
    return str(message["text"]) if data is None else data


def _named(begun: BegunAcquire) -> Acquire:
    """What has begun, under the name that it has at the store."""
    return msgspec.structs.replace(begun.request, request_id=begun.request_id)


def _restarting() -> Closed:
    return Closed(Closing.RESTARTING, "this replica is shutting down")


def _refused(frame: Frame, refusal: Refusal) -> Answer:
    return Answer(frame.id, frame.style, refused(refusal))


async def _all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for *tasks*, with patience that ends."""
    waiting = set(tasks)
    if waiting:
        await asyncio.wait(waiting, timeout=_PATIENCE)
