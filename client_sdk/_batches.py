"""The way to the service over HTTP for tasks: what comes together travels together."""

import asyncio
from collections import deque
from typing import Any

from client_sdk import _answers, _codec
from client_sdk._codec import Op
from client_sdk._roster import finish
from client_sdk._transport import AsyncTransport

_MAX_OPS = 256
_MAX_BYTES = 48_000  # the service takes bodies of 64 KiB
_MAX_FLIGHTS = 3
_WORTH_A_POST = 32
"""Operations that are worth a post of their own while others follow."""


_CALLED_OFF = "nothing of the operation is left to undo"


def call_off(cancelled: asyncio.CancelledError) -> None:
    """Note that nothing is left to undo. It stays the exception that it is: `asyncio.timeout`
    knows its own by the very type, and others by what it carries.
    """
    cancelled.add_note(_CALLED_OFF)


def is_called_off(cancelled: asyncio.CancelledError) -> bool:
    """Whether nothing is left to undo."""
    return _CALLED_OFF in getattr(cancelled, "__notes__", ())


class Batches:
    """Posts operations; those of one loop tick, and those that arrive while answers are
    under way, travel together in one `/v1/batch`. When idle it sends at once.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._waiting: deque[Op] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._aboard = 0
        self._scheduled = False

    def begin(self, op: Op) -> "asyncio.Future[Any]":
        """Post *op* with whatever comes in the same tick: what its answer will be."""
        _ = op.body  # encoded here: what cannot be is this caller's mistake alone
        answer = op.waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(op)
        if self._crowded:
            self._take_off()
        elif not self._scheduled:
            self._schedule()
        return answer

    @property
    def _crowded(self) -> bool:
        """Whether half of what is under way waits, and can go: then caller, service and store work
        at the same time.
        """
        waiting = len(self._waiting)
        return _WORTH_A_POST <= waiting >= self._aboard and len(self._flights) < _MAX_FLIGHTS

    def under_way(self) -> set[asyncio.Future[Any]]:
        """What has no answer yet."""
        return {*self._flights, *(op.waiter for op in self._waiting)}

    async def landed(self) -> None:
        """Return when all that has taken off by now has its answers."""
        if self._flights:
            await asyncio.wait(set(self._flights))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _schedule(self) -> None:
        if not self._scheduled and len(self._flights) < _MAX_FLIGHTS:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_off)

    def _take_off(self) -> None:
        self._scheduled = False
        load: list[Op] = []
        size = 0
        while self._waiting and len(load) < _MAX_OPS:
            op = self._waiting[0]
            more = size + len(op.body)
            if load and more > _MAX_BYTES:
                break
            self._waiting.popleft()
            if not op.waiter.done():  # its caller was cancelled before it was sent
                load.append(op)
                op.asked, size = True, more
        if load:
            flight = asyncio.get_running_loop().create_task(self._fly(load))
            self._flights.add(flight)
            flight.add_done_callback(self._land)
        if self._waiting:
            self._schedule()

    def _land(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if self._waiting:
            self._schedule()

    async def _fly(self, ops: list[Op]) -> None:
        waiters = [op.waiter for op in ops]
        self._aboard += len(ops)
        try:
            if len(ops) == 1 and not ops[0].waits:
                op = ops[0]
                posted = await self._transport.post(op.path, op.body, op.headers)
                results = [_answers.answer(op, *posted)]
            else:
                status, body = await self._transport.post("/v1/batch", _codec.batch(ops))
                results = _answers.answers(ops, status, body)
        except Exception as error:  # noqa: BLE001  # whatever it is: nobody may wait forever
            results = [error] * len(ops)
        finally:
            self._aboard -= len(ops)
        for waiter, result in zip(waiters, results, strict=True):
            finish(waiter, result)
