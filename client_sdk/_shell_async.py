"""What only asyncio needs: coalescing, shielding, and an acquire that is awaited or entered.

`_shell_sync` is its counterpart; everything above is written once and generated for both.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from client_sdk import _codec
from client_sdk._codec import Op
from client_sdk._transport import AsyncTransport

if TYPE_CHECKING:
    from client_sdk._async.lease import Lease

_MAX_OPS = 256
_MAX_BYTES = 48_000  # the service takes bodies of 64 KiB
_MAX_FLIGHTS = 3


class NeverSent(asyncio.CancelledError):
    """The caller was cancelled before its operation was sent."""


class Exchange:
    """Sends operations; those of one loop tick, and those that arrive while answers are
    under way, travel together in one `/v1/batch`. An idle exchange sends at once.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._waiting: deque[tuple[Op, asyncio.Future[Any]]] = deque()
        self._sent: set[asyncio.Future[Any]] = set()
        self._flights: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def send(self, op: Op) -> Any:
        """The answer to *op*. Raises the exception for what the service refused."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((op, answer))
        self._schedule()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer in self._sent:
                raise
            raise NeverSent from None
        finally:
            self._sent.discard(answer)

    async def aclose(self) -> None:
        """Wait for settles and answers under way, then close the connections."""
        loop = asyncio.get_running_loop()
        while under_way := {*self._flights, *(t for t in _shielded if t.get_loop() is loop)}:
            await asyncio.wait(under_way)
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
                self._sent.add(answer)
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
            if len(ops) == 1 and not ops[0].waits:  # in a batch it is not held: few connections
                results = [
                    _codec.answer(ops[0], *await self._transport.post(ops[0].path, ops[0].body))
                ]
            else:
                status, body = await self._transport.post("/v1/batch", _codec.batch(ops))
                results = _codec.answers(ops, status, body)
        except Exception as error:  # noqa: BLE001  # whatever it is: nobody may wait forever
            results = [error] * len(ops)
        for (_, answer), result in zip(load, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)


class Acquisition:
    """What `acquire` returns: await it for a lease, or enter it for one that settles itself."""

    def __init__(self, coming: "Coroutine[Any, Any, Lease]") -> None:
        self._coming = coming
        self._lease: Lease | None = None

    def __await__(self) -> "Generator[Any, None, Lease]":
        return self._coming.__await__()

    async def __aenter__(self) -> "Lease":
        self._lease = await self._coming
        return await self._lease.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._lease is not None
        await self._lease.__aexit__(kind, error, trace)


def acquisition(coming: "Coroutine[Any, Any, Lease]") -> Acquisition:
    """Let a caller choose between awaiting and entering."""
    return Acquisition(coming)


_shielded: set[asyncio.Task[Any]] = set()


async def shielded(work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work* to its end even when the caller is cancelled meanwhile."""
    task = asyncio.get_running_loop().create_task(work)
    _shielded.add(task)
    task.add_done_callback(_shielded.discard)
    return await asyncio.shield(task)


async def abandonable(
    work: Coroutine[Any, Any, Any], abandon: Callable[[], Coroutine[Any, Any, None]]
) -> Any:
    """Do *work*; when the caller is cancelled meanwhile, see to it that *abandon* is done."""
    try:
        return await work
    except NeverSent:
        raise
    except asyncio.CancelledError:
        task = asyncio.get_running_loop().create_task(abandon())
        _shielded.add(task)
        task.add_done_callback(_shielded.discard)
        raise


sleep = asyncio.sleep
