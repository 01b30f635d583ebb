"""What only asyncio needs: the way to the service, what is done though its caller is cancelled, and
an acquire that is awaited or entered.

`_shell_sync` is its counterpart; everything above is written once and generated for both.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from client_sdk import _batches
from client_sdk._batches import Batches, call_off
from client_sdk._channel_async import Channel
from client_sdk._codec import Op
from client_sdk._dial import address
from client_sdk._roster import NoChannel
from client_sdk._transport import AsyncTransport
from client_sdk.errors import ServiceUnavailable
from client_sdk.options import LimiterOptions

if TYPE_CHECKING:
    from client_sdk._async.lease import Lease


Stopped = NoChannel, asyncio.CancelledError
"""Why an answer does not come the way that it was asked for."""


class Exchange:
    """Sends operations over the channel, or over HTTP where there is none."""

    def __init__(
        self, url: str, api_key: str | None, options: LimiterOptions, http_transport: Any
    ) -> None:
        self._transport = AsyncTransport(url, api_key, options, http_transport)
        self._batches = Batches(self._transport)
        self._channel: Channel | None = None
        if options.channel != "off" and http_transport is None:
            self._channel = Channel(address(url, api_key, options), options)
        self._only = options.channel == "only"
        self.begin: Callable[[Op], Awaitable[Any]] = (self._channel or self._batches).begin
        """Sends an operation that was never sent: what its answer will be, for who awaits it at
        once, and hands to `instead` what is Stopped. So nothing but a future is between them.
        """

    async def send(self, op: Op) -> Any:
        """The answer to *op*. Raises the exception for what the service refused."""
        op.name = 0
        try:
            return await self.begin(op)
        except Stopped as stopped:
            return await self.instead(op, stopped)

    async def instead(self, op: Op, stopped: BaseException) -> Any:
        """The answer to *op*, which was stopped: where there is no channel it goes over HTTP. A
        caller that is cancelled is called off where the service cannot know of *op*.
        """
        if isinstance(stopped, NoChannel):
            if self._only:
                unavailable = ServiceUnavailable(str(stopped), phase=op.operation)
                raise stopped.refusal or unavailable from stopped
            op.name = 0
            try:
                return await self._batches.begin(op)
            except asyncio.CancelledError as cancelled:
                stopped = cancelled
        assert isinstance(stopped, asyncio.CancelledError)
        if op.name and self._channel is not None:
            self._channel.call_off(op)
            call_off(stopped)  # the channel has said so, and gives back what comes late
        elif not op.asked:
            call_off(stopped)
        try:
            raise stopped
        finally:
            del stopped  # it knows this frame, and would be known by it

    async def landed(self) -> None:
        """Return when all that is under way over HTTP by now has its answers: what is said next
        overtakes nothing.
        """
        await self._batches.landed()

    def tell(self, recalled: Callable[[str], None]) -> None:
        """Let *recalled* hear of resources whose blocks are to be given back."""
        if self._channel is not None:
            self._channel.tell(recalled)

    async def look(self, path: str) -> tuple[int, bytes]:
        """Status and body of a route for reading, over HTTP whatever the channel."""
        return await self._transport.get(path)

    async def aclose(self) -> None:
        """Wait for settles and answers under way, then close the connections."""
        loop = asyncio.get_running_loop()
        if self._channel is not None:
            self._channel.give_up_waiting()
        while under_way := {
            *self._batches.under_way(),
            *(self._channel.under_way() if self._channel is not None else ()),
            *(task for task in _shielded if task.get_loop() is loop),
        }:
            await asyncio.wait(under_way)
        if self._channel is not None:
            await self._channel.aclose()
        await self._batches.aclose()


class Acquisition(Struct, eq=False):
    """What `acquire` returns: await it for a lease, or enter it for one that settles itself."""

    coming: "Coroutine[Any, Any, Lease] | None" = None
    lease: "Lease | None" = None

    def __await__(self) -> "Generator[Any, None, Lease]":
        assert self.coming is not None
        return self.coming.__await__()

    async def __aenter__(self) -> "Lease":
        assert self.coming is not None
        lease = self.lease = await self.coming
        return lease

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        assert self.lease is not None
        return self.lease.__aexit__(kind, error, trace)


acquisition = Acquisition


_shielded: set[asyncio.Task[Any]] = set()


async def shielded(work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work* to its end even when the caller is cancelled meanwhile."""
    task = asyncio.get_running_loop().create_task(work)
    _shielded.add(task)
    task.add_done_callback(_shielded.discard)
    return await asyncio.shield(task)


class Aside:
    """Work beside a stream that must not hold it up."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def do(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Begin *work*, which raises nothing."""
        task = asyncio.get_running_loop().create_task(work())
        _shielded.add(task)
        task.add_done_callback(_shielded.discard)
        self._tasks.append(task)

    async def finished(self) -> None:
        """Wait for what was begun."""
        if self._tasks:
            await asyncio.wait(self._tasks)


async def opened(source: Any) -> Any:
    """*source*, or what it returns when it is a function, at once or later."""
    if callable(source):
        source = source()
    return await source if inspect.isawaitable(source) else source


Cancelled = asyncio.CancelledError
"""What a caller is told that is called off."""

is_called_off = _batches.is_called_off

sleep = asyncio.sleep
