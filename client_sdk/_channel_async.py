"""The channel for tasks: one connection, a task that keeps it, one that writes.

`_channel_sync` is its counterpart; what is under way and what answers mean is in `_roster`.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from client_sdk import _dial
from client_sdk._codec import Op
from client_sdk._roster import News, NoChannel, Roster, finish, last_word, late
from client_sdk.options import LimiterOptions

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


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
        self._ready, self._quiet = asyncio.Event(), asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._connection: ClientConnection | None = None
        self._failure: NoChannel | None = None
        self._rest_until = 0.0
        self._heard_at = 0.0
        self._opened = False
        self._closed = False

    async def send(self, op: Op) -> Any:
        """The answer to *op*. Raises the exception for what the service refused, and NoChannel."""
        loop = asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError("the limiter is closed")
        if self._failure is not None and loop.time() < self._rest_until:
            raise self._failure.again()
        answer: asyncio.Future[Any] = loop.create_future()
        name = self._roster.add(op, answer)
        self._speak()
        patience = op.waits + self._options.timeout
        timer = loop.call_later(patience, self._expire, name, op) if op.waits else None
        try:
            while isinstance(result := await answer, News):
                answer = result.rest
                self._inform(op, name, result)
        except asyncio.CancelledError:
            # It may have been answered in this very moment, before its task could go on.
            self._call_off(name, last_word(answer))
            raise
        finally:
            if timer is not None:
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
        self._ready.set()

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

    def _call_off(self, name: int, told: Any = None) -> None:
        self._roster.cancel(name, told)
        self._ready.set()

    def _inform(self, op: Op, name: int, news: News) -> None:
        assert op.news is not None
        try:
            op.news(news.waiting)
        except Exception:  # of the caller's own: it has its own fault, and no lease
            self._call_off(name, last_word(news.rest))
            raise

    def _speak(self) -> None:
        self._ready.set()
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

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

    async def _open(self) -> "ClientConnection":
        from websockets.asyncio.client import connect  # noqa: PLC0415  # lazy: it takes its time

        return await connect(
            self._address.uri,
            additional_headers=self._address.headers,
            ssl=self._address.tls,
            compression=None,
            proxy=None,
            open_timeout=self._options.timeout,
            ping_interval=_dial.PING_INTERVAL,
            ping_timeout=_dial.PING_TIMEOUT,
            close_timeout=_dial.CLOSE_TIMEOUT,
            max_size=_dial.MOST_BYTES,
        )

    def _send_away(self, failure: NoChannel, pause: float) -> None:
        """Let callers go another way; those who wait stay, unless the way is blocked."""
        self._failure = failure
        self._rest_until = asyncio.get_running_loop().time() + pause
        self._roster.withdraw(failure, waiting=failure.blocked)

    async def _carry(self, connection: "ClientConnection") -> bool:
        """Write and read until the connection ends; whether it was of any use."""
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415  # lazy

        useful = False
        loop = asyncio.get_running_loop()
        self._connection, self._heard_at = connection, loop.time()
        self._ready, self._quiet = asyncio.Event(), asyncio.Event()
        self._ready.set()
        writer = loop.create_task(self._write(connection))
        try:
            while True:
                message = await connection.recv(decode=False)
                useful, self._heard_at = True, loop.time()
                self._roster.hear(message)
                if self._roster.unsaid:
                    self._ready.set()
                if self._closed and self._roster.silent:
                    self._quiet.set()
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            if _dial.refused_message(code):
                self._roster.withdraw(NoChannel(f"the channel was closed: {closed}"), waiting=True)
        except msgspec.MsgspecError as error:
            self._roster.withdraw(NoChannel(f"an answer cannot be read: {error}"), waiting=True)
        finally:
            self._connection = None
            self._roster.lost()
            writer.cancel()
            await connection.close()
        return useful

    async def _write(self, connection: "ClientConnection") -> None:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415  # lazy

        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionClosed):  # whoever reads it will see
            while True:
                await self._ready.wait()
                self._ready.clear()
                for message in self._roster.take(loop.time()):
                    await connection.send(message)
                self._watch()

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
        self._ready.set()
        finish(told, late(op, self._options.timeout))
