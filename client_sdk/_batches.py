"""The way to the service over HTTP for tasks: what comes together travels together."""

import asyncio
from collections import deque
from typing import Any

from client_sdk import _codec
from client_sdk._codec import Op
from client_sdk._roster import finish
from client_sdk._transport import AsyncTransport

_MAX_OPS = 256
_MAX_BYTES = 48_000  # the service takes bodies of 64 KiB
_MAX_FLIGHTS = 3


class CalledOff(asyncio.CancelledError):
    """The caller was cancelled, and nothing of its operation is left to undo."""


class Batches:
    """Posts operations; those of one loop tick, and those that arrive while answers are
    under way, travel together in one `/v1/batch`. When idle it sends at once.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._waiting: deque[tuple[Op, asyncio.Future[Any]]] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def send(self, op: Op) -> Any:
        """The answer to *op*. Raises the exception for what the service refused, and CalledOff
        when the caller was cancelled and the service cannot know of *op*.
        """
        op.body  # noqa: B018  # encoded here: what cannot be is this caller's mistake alone
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((op, answer))
        self._schedule()
        try:
            return await answer
        except asyncio.CancelledError:
            if op.asked:
                raise
            raise CalledOff from None

    def under_way(self) -> set[asyncio.Future[Any]]:
        """What has no answer yet."""
        return {*self._flights, *(answer for _, answer in self._waiting)}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _schedule(self) -> None:
        if not self._scheduled and len(self._flights) < _MAX_FLIGHTS:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_off)

    def _take_off(self) -> None:
        self._scheduled = False
        load: list[tuple[Op, asyncio.Future[Any]]] = []
        size = 0
        while self._waiting and len(load) < _MAX_OPS:
            op, answer = self._waiting[0]
            if load and size + len(op.body) > _MAX_BYTES:
                break
            self._waiting.popleft()
            if not answer.done():  # its caller was cancelled before it was sent
                load.append((op, answer))
                op.asked = True
                size += len(op.body)
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

    async def _fly(self, load: list[tuple[Op, asyncio.Future[Any]]]) -> None:
        ops = [op for op, _ in load]
        try:
            if len(ops) == 1 and not ops[0].waits:
                op = ops[0]
                posted = await self._transport.post(op.path, op.body, op.headers)
                results = [_codec.answer(op, *posted)]
            else:
                status, body = await self._transport.post("/v1/batch", _codec.batch(ops))
                results = _codec.answers(ops, status, body)
        except Exception as error:  # noqa: BLE001  # whatever it is: nobody may wait forever
            results = [error] * len(ops)
        for (_, answer), result in zip(load, results, strict=True):
            finish(answer, result)
