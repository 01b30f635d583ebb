"""The channel for tasks: one connection, and a task that keeps it.

What callers bring in one tick of the loop goes in one message; what comes is told to them as it is
read. `_channel_sync` is its counterpart; what is under way and what answers mean is in `_roster`.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from client_sdk import _dial
from client_sdk._codec import Op
from client_sdk._roster import News, NoChannel, Roster, finish, last_word, late
from client_sdk.errors import LimiterClosed
from client_sdk.options import LimiterOptions

if TYPE_CHECKING:
    from client_sdk._socket_async import Socket


class Channel:
    """Carries operations over one WebSocket, and over the next one when that is lost.

    It is opened by the first operation. What is under way when it is lost is sent again: an
    operation that waits for as long as its caller does, any other until an attempt to open
    the next one fails.
    """

    def __init__(self, address: _dial.Address, options: LimiterOptions) -> None:
        self._address, self._options = address, options
        self._random = random.Random()  # noqa: S311  # spreads attempts, keeps no secret
        self._roster = Roster(lambda: asyncio.get_running_loop().create_future())
        self._quiet = asyncio.Event()
        self._speaking = False
        self._unreadable: NoChannel | None = None
        self._useful = False
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the keeper
        self._keeper: asyncio.Task[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._connection: Socket | None = None
        self._failure: NoChannel | None = None
        self._rest_until = 0.0
        self._heard_at = 0.0
        self._opened = False
        self._closed = False

    def begin(self, op: Op) -> Awaitable[Any]:
        """Send *op* with whatever comes in the same tick: what its answer will be.

        Who is cancelled while it waits for it says so by `call_off`. Raises NoChannel.
        """
        # To ask which loop runs is a system call.
        loop = self._loop if self._keeper is not None else None
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._closed:
            raise LimiterClosed("the limiter is closed")
        if self._failure is not None and loop.time() < self._rest_until:
            raise self._failure.again()
        answer: asyncio.Future[Any] = loop.create_future()
        self._roster.add(op, answer)
        if self._roster.crowded:
            self._write()
        elif not self._speaking:
            self._speaking = True
            loop.call_soon(self._write)
        if self._keeper is None:
            self._keeper = loop.create_task(self._keep())
        return self._patiently(op, answer) if op.waits else answer

    def call_off(self, op: Op) -> None:
        """Forget *op*, whose caller is gone. It may have been answered in this very moment,
        before its task could go on: then what it was granted goes back.
        """
        self._roster.cancel(op.name, last_word(op.waiter))
        self._speak()

    async def _patiently(self, op: Op, answer: "asyncio.Future[Any]") -> Any:
        """The answer to one that waits, whose caller hears meanwhile where it stands."""
        patience = op.waits + self._options.timeout
        timer = asyncio.get_running_loop().call_later(patience, self._expire, op.name, op)
        try:
            while isinstance(result := await answer, News):
                answer = result.rest
                self._inform(op, result)
        finally:
            timer.cancel()
        return result

    def tell(self, recalled: Callable[[str], None]) -> None:
        """Let *recalled* hear of resources whose blocks are to be given back."""
        self._roster.recalled = recalled

    def under_way(self) -> set[asyncio.Future[Any]]:
        """The answers that callers wait for."""
        return {w for w in self._roster.waiters() if isinstance(w, asyncio.Future)}

    def give_up_waiting(self) -> None:
        """Fail every acquire that waits, and call it off."""
        self._roster.give_up_waiting()
        self._speak()

    async def aclose(self) -> None:
        """Say what is left to say, and close the connection."""
        self._closed = True
        if self._connection is not None and not self._roster.silent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), self._options.timeout)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _inform(self, op: Op, news: News) -> None:
        assert op.news is not None
        try:
            op.news(news.waiting)
        except Exception:  # of the caller's own: it has its own fault, and no lease
            self.call_off(op)
            raise

    # What goes, and what comes

    def _speak(self) -> None:
        """Say what is unsaid once this tick is over."""
        if not self._speaking:
            self._speaking = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._speaking = False
        connection = self._connection
        if connection is None or not connection.ready:
            return  # it is said on the next connection, or when there is room again
        for message in self._roster.take(asyncio.get_running_loop().time()):
            connection.say(message)
        self._watch()

    def _hear(self, message: bytes) -> None:
        if self._connection is None or self._unreadable is not None:
            return  # it is being closed, and everything on it is asked again
        self._useful, self._heard_at = True, asyncio.get_running_loop().time()
        try:
            self._roster.hear(message)
        except msgspec.MsgspecError as error:
            self._unreadable = NoChannel(f"an answer cannot be read: {error}")
            self._connection.transport.abort()
            return
        if self._roster.unsaid:
            self._speak()
        if self._closed and self._roster.silent:
            self._quiet.set()

    # Keeping a connection

    async def _keep(self) -> None:
        """Open a connection, and another after it, while somebody needs one."""
        failures = 0
        try:
            while True:
                failure = await self._live()
                failures = failures + 1 if failure else 0
                pause = _dial.pause(self._options, failures, self._random, failure)
                if failure:
                    self._send_away(failure, pause)
                if self._roster.idle:
                    return
                await asyncio.sleep(pause)
        finally:
            self._keeper = None

    async def _live(self) -> NoChannel | None:
        """One connection from its beginning to its end; why it was none."""
        try:
            connection = await self._open()
        except Exception as error:  # noqa: BLE001  # whatever it is: callers must know
            return _dial.why(error, opened_before=self._opened)
        self._failure, self._opened = None, True
        return None if await self._carry(connection) else _dial.useless()

    async def _open(self) -> "Socket":
        from client_sdk._socket_async import opened  # noqa: PLC0415  # lazy: it takes its time

        self._useful, self._unreadable = False, None
        return await opened(self._address, self._options.timeout, self._hear, self._speak)

    def _send_away(self, failure: NoChannel, pause: float) -> None:
        """Let callers go another way; those who wait stay, unless the way is blocked."""
        self._failure = failure
        self._rest_until = asyncio.get_running_loop().time() + pause
        self._roster.withdraw(failure, waiting=failure.blocked)

    async def _carry(self, connection: "Socket") -> bool:
        """Write and read until the connection ends; whether it was of any use."""
        self._connection, self._heard_at = connection, asyncio.get_running_loop().time()
        self._quiet = asyncio.Event()
        self._write()
        try:
            await connection.wait_closed()
            refusal = self._unreadable
            if refusal is None and _dial.refused_message(connection.closed_with):
                refusal = NoChannel(f"the channel was closed: {connection.protocol.close_exc}")
            if refusal is not None:
                self._roster.withdraw(refusal, waiting=True)
        finally:
            self._connection = None
            self._roster.lost()
            await connection.close()
        return self._useful

    # What takes too long

    def _watch(self) -> None:
        """One timer for all that ends soon, set for the oldest."""
        due = self._roster.due(self._options.timeout)
        if self._sweeper is None and due is not None:
            self._sweeper = asyncio.get_running_loop().call_at(due, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        last = self._roster.overdue(now, self._options.timeout)
        if last is not None and self._heard_at < last and self._connection is not None:
            # Nothing at all was heard since: the connection is dead, whoever killed it.
            self._connection.transport.abort()
        self._watch()

    def _expire(self, name: int, op: Op) -> None:
        told = self._roster.cancel(name)
        self._speak()
        finish(told, late(op, self._options.timeout))
