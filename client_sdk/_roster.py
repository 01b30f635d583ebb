"""Operations under way on a channel: what to send, whom an answer is for, what to repeat. Pure.

Time comes in as `now`. Nothing here locks: threads take turns outside.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from itertools import count
from typing import Any, Protocol

from client_sdk import _answers, _codec
from client_sdk._answers import OK, Forms, Frame, Given
from client_sdk._codec import Op
from client_sdk.errors import LimiterClosed, ServiceUnavailable, SluicegateError, WaitTimeout
from limiter_wire import ErrorCode, Operation

_MOST_FRAMES = 256
_WORTH_SAYING = 16
"""Operations that are worth a message of their own while others follow."""

_MOST_BYTES = 48_000  # the service takes messages of 64 KiB


class NoChannel(Exception):  # what happened
    """The operation cannot travel over a channel; `blocked` when that will stay so for a while,
    `refusal` when the service has said why.
    """

    def __init__(
        self, reason: str, *, blocked: bool = False, refusal: SluicegateError | None = None
    ) -> None:
        super().__init__(reason)
        self.blocked, self.refusal = blocked, refusal

    def again(self) -> "NoChannel":
        """The same, to be raised once more."""
        return NoChannel(str(self), blocked=self.blocked, refusal=self.refusal)


class Waiter(Protocol):
    """Who is told: a future of asyncio, or of threads."""

    def done(self) -> bool:
        """Whether it was told, or has stopped listening."""

    def set_result(self, result: Any, /) -> None:
        """Tell it the answer."""

    def set_exception(self, error: Any, /) -> None:
        """Tell it what went wrong."""


class News:
    """What a caller is told before its answer, and who is told next."""

    __slots__ = ("rest", "waiting")

    def __init__(self, waiting: Any, rest: Any) -> None:
        self.waiting, self.rest = waiting, rest


class Roster:
    """What ends soon and what waits are kept apart: only the first may be overdue."""

    def __init__(self, new_waiter: Callable[[], Waiter] = Future) -> None:
        self._new_waiter = new_waiter
        self._ids = count(1)
        self._soon: dict[int, Op] = {}
        self._waiting: dict[int, Op] = {}
        self._unsent: dict[int, Op] = {}
        self._cancels: list[int] = []
        self._cancelled: dict[int, Op] = {}
        self._forms: Forms = {}
        self.recalled: Callable[[str], None] = lambda _resource: None

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._soon and not self._waiting

    @property
    def silent(self) -> bool:
        """Whether nothing is left to say or to hear."""
        return self.idle and not self._cancels and not self._cancelled

    @property
    def unsaid(self) -> bool:
        """Whether something is to be sent."""
        return bool(self._unsent or self._cancels)

    @property
    def crowded(self) -> bool:
        """Whether so much is unsaid that it is worth a message of its own: half of what is under
        way, so that caller, service and store work at the same time.
        """
        unsent = len(self._unsent)
        return unsent >= _WORTH_SAYING and 2 * unsent >= len(self._soon) + len(self._waiting)

    def add(self, op: Op, waiter: Waiter | None) -> int:
        """Take *op* along with the next message; its id."""
        name = op.name = next(self._ids)
        op.waiter, op.sent_at = waiter, None
        self._unsent[name] = op
        if op.waits:
            self._waiting[name] = op
        else:
            self._soon[name] = op
        return name

    def take(self, now: float) -> Iterable[bytes]:
        """The messages that say what is unsaid. Who brought what cannot be encoded is told so, and
        of what is too large NoChannel.
        """
        cancels, ops = [*self._cancels], [*self._unsent.values()]
        if not cancels and not ops:
            return ()
        self._cancels.clear()
        self._unsent.clear()
        for op in ops:
            op.sent_at = now
        if len(cancels) + len(ops) <= _MOST_FRAMES:  # in one pass, as nearly always
            with contextlib.suppress(Exception):  # whose it is shows when each is encoded
                message = _codec.together(cancels, ops)
                if len(message) <= _MOST_BYTES:
                    return (message,)
        frames = [_codec.cancellation(name) for name in cancels]
        for op in ops:
            fault: Exception | None = None
            try:
                frames.append(op.frame(op.name))
                if (size := len(frames[-1])) > _MOST_BYTES:
                    frames.pop()
                    fault = NoChannel(f"{size} bytes are too many for a message")
            except Exception as error:  # noqa: BLE001  # it is this caller's alone
                fault = error
            if fault is not None:
                del self._home(op)[op.name]
                finish(op.waiter, fault)
        return _messages(frames)

    def hear(self, message: bytes) -> None:
        """Tell everybody whom *message* answers. Raises MsgspecError when it is no message."""
        soon, forms, bodies = self._soon, self._forms, None
        for place, frame in enumerate(_answers.frames(message)):
            if frame.form is not None or frame.levels is not None:
                frame.formed(forms)
            if frame.status == OK and (op := soon.get(frame.id)) is not None:
                result = frame.usual(op.operation)
                if result is not None:
                    del soon[frame.id]
                    waiter = op.waiter
                    if waiter is None:
                        continue
                    if waiter.done():
                        self._give_back(result)
                    else:
                        waiter.set_result(result)
                    continue
            if bodies is None:
                bodies = _answers.bodies(message)
            self._hear(frame, bodies[place])

    def _hear(self, frame: Frame, body: Any) -> None:
        """Take in an answer that is not a plain one, or that nobody waits for."""
        name, status = frame.id, frame.status
        if status == _answers.RECALL:
            self.recalled(_answers.recalled(body))
            return
        op = self._soon.get(name) or self._waiting.get(name)
        if status == _answers.NEWS:
            self._tell(op, body)
            return
        if op is None:
            self._unheard(name, status, body)
            return
        result = _answers.answer(op, status, body)
        if isinstance(result, Given):
            result.form = frame.form
        if op.waits and _is_farewell(result):
            return  # the next connection takes it along
        del self._home(op)[name]
        self._answer(op, result)

    def _answer(self, op: Op, result: Any) -> None:
        waiter = op.waiter
        if waiter is None:
            return
        if waiter.done():
            self._give_back(result)  # its caller is gone, and has not come to say so yet
        elif isinstance(result, Exception):
            op.waiter = None  # who raises it knows the operation, and would be known by it
            waiter.set_exception(result)
        else:
            waiter.set_result(result)

    def cancel(self, name: int, told: Any = None) -> Waiter | None:
        """The caller is gone: the service is asked to forget it, and gets back what it was
        *told* too late. Who would have been told.
        """
        self._give_back(told)
        op = self._remove(name)
        if op is not None and op.sent_at is not None:
            self._cancelled[name] = op
            self._cancels.append(name)
        return None if op is None else op.waiter

    def forget(self, name: int) -> None:
        """The caller has stopped listening, and may ask again."""
        self._remove(name)

    def give_up_waiting(self) -> None:
        """Call off every acquire that waits, and tell those who wait for it."""
        for name, op in list(self._waiting.items()):
            self.cancel(name)
            reason = "the limiter was closed while this acquire waited"
            finish(op.waiter, LimiterClosed(reason, request_id=op.request_id))

    def lost(self) -> None:
        """The connection is gone: everything is to be sent again, in order."""
        self._forms = {}  # the next one tells them anew
        self._cancels.clear()
        self._cancelled.clear()
        self._unsent = dict(sorted((self._soon | self._waiting).items()))
        for op in self._unsent.values():
            op.sent_at = None

    def withdraw(self, reason: NoChannel, *, waiting: bool) -> None:
        """Send back what ends soon, and what is *waiting* too, to go another way."""
        for home in (self._soon, self._waiting) if waiting else (self._soon,):
            for name, op in home.items():
                self._unsent.pop(name, None)
                finish(op.waiter, reason.again())
            home.clear()

    def due(self, timeout: float) -> float | None:
        """When the oldest operation that ends soon is overdue, None when there is none."""
        first = next(iter(self._soon.values()), None)
        return None if first is None or first.sent_at is None else first.sent_at + timeout

    def overdue(self, now: float, timeout: float) -> float | None:
        """Fail what has no answer in time; when the last of it was sent, None if all is well."""
        last: float | None = None
        while (due := self.due(timeout)) is not None and due <= now:
            name = next(iter(self._soon))
            op = self._soon.pop(name)
            last = op.sent_at
            finish(op.waiter, late(op, timeout))
        return last

    def waiters(self) -> list[Waiter]:
        """Everybody who is to be told."""
        under_way = (*self._soon.values(), *self._waiting.values())
        return [op.waiter for op in under_way if op.waiter is not None]

    def _home(self, op: Op) -> dict[int, Op]:
        return self._waiting if op.waits else self._soon

    def _remove(self, name: int) -> Op | None:
        self._unsent.pop(name, None)
        return self._soon.pop(name, None) or self._waiting.pop(name, None)

    def _tell(self, op: Op | None, body: Any) -> None:
        """News, unless the caller has gone meanwhile."""
        if op is not None and op.waiter is not None and not op.waiter.done():
            told, op.waiter = op.waiter, self._new_waiter()
            finish(told, News(_answers.answer(op, _answers.NEWS, body), op.waiter))

    def _unheard(self, name: int, status: int, body: Any) -> None:
        """A grant that came after its caller had gone is given back."""
        op = self._cancelled.pop(name, None)
        if op is not None and op.operation is Operation.ACQUIRE:
            self._give_back(_answers.answer(op, status, body))

    def _give_back(self, result: Any) -> None:
        if isinstance(result, Given) and not result.settled:
            self.add(_codec.give_back(result.lease, block=result.block is not None), None)


def finish(waiter: Waiter | None, result: Any) -> None:
    """Tell *waiter* a value or an exception, unless it has stopped listening."""
    if waiter is None or waiter.done():
        return
    if isinstance(result, Exception):
        waiter.set_exception(result)
    else:
        waiter.set_result(result)


def last_word(waiter: Any) -> Any:
    """What a waiter, or the last of those after it, was told by now; None if nothing yet."""
    while (
        waiter is not None
        and waiter.done()
        and not waiter.cancelled()
        and waiter.exception() is None
    ):
        result = waiter.result()
        if not isinstance(result, News):
            return result
        waiter = result.rest
    return None


def late(op: Op, timeout: float) -> SluicegateError:
    """What a caller is told whose operation has no answer in time."""
    if not op.waits:
        return ServiceUnavailable(
            f"the service did not answer within {timeout:g} s", phase=op.operation
        )
    return WaitTimeout(
        "`max_wait` is over, and the service has not said so",
        request_id=op.request_id,
        phase=op.operation,
        code=ErrorCode.WAIT_TIMEOUT,
    )


def _is_farewell(result: Any) -> bool:
    return isinstance(result, ServiceUnavailable) and result.code is ErrorCode.SHUTTING_DOWN


def _messages(frames: list[bytes]) -> Iterator[bytes]:
    load: list[bytes] = []
    size = 0
    for frame in frames:
        if load and (len(load) == _MOST_FRAMES or size + len(frame) > _MOST_BYTES):
            yield _codec.message(load)
            load, size = [], 0
        load.append(frame)
        size += len(frame)
    if load:
        yield _codec.message(load)
