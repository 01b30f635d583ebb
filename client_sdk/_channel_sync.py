"""The channel for threads: one connection, a thread that keeps it and reads, callers that write.

`_channel_async` is its counterpart; what is under way and what answers mean is in `_roster`.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from client_sdk import _dial
from client_sdk._codec import Op
from client_sdk._roster import News, NoChannel, Roster, last_word, late
from client_sdk.errors import LimiterClosed
from client_sdk.options import LimiterOptions

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection


class Channel:
    """Carries operations over one WebSocket, and over the next one when that is lost.

    It is opened by the first operation. What is under way when it is lost is sent again: an
    operation that waits for as long as its caller does, any other until an attempt to open
    the next one fails. Threads share it; while one of them writes, what the others bring
    accumulates for the next.
    """

    def __init__(self, address: _dial.Address, options: LimiterOptions) -> None:
        self._address, self._options = address, options
        self._random = random.Random()  # noqa: S311  # spreads attempts, keeps no secret
        self._roster = Roster()
        self._turn = threading.Lock()  # guards everything below
        self._writing = threading.Lock()
        self._quiet = threading.Condition(self._turn)
        self._stop = threading.Event()
        self._keeper: threading.Thread | None = None
        self._connection: ClientConnection | None = None
        self._failure: NoChannel | None = None
        self._rest_until = 0.0
        self._heard_at = 0.0
        self._opened = False

    def send(self, op: Op) -> Any:
        """The answer to *op*. Raises the exception for what the service refused, and NoChannel."""
        answer: Future[Any] = Future()
        with self._turn:
            if self._stop.is_set():
                raise LimiterClosed("the limiter is closed")
            if self._failure is not None and time.monotonic() < self._rest_until:
                raise self._failure.again()
            name = self._roster.add(op, answer)
            sent_at = time.monotonic()
            opening = self._options.timeout if self._connection is None else 0.0
            if self._keeper is None:
                self._keeper = threading.Thread(
                    target=self._keep, name="sluicegate-channel", daemon=True
                )
                self._keeper.start()
        self._speak()
        patience = opening + op.waits + self._options.timeout
        while isinstance(result := self._result(name, op, answer, sent_at, patience), News):
            answer = result.rest
            try:
                assert op.news is not None
                op.news(result.waiting)
            except BaseException:  # of the caller's own: it has its own fault, and no lease
                self._call_off(name, answer)
                raise
        return result

    def _result(
        self, name: int, op: Op, answer: Future[Any], sent_at: float, patience: float
    ) -> Any:
        """What is told next."""
        try:
            return answer.result(max(0.0, sent_at + patience - time.monotonic()))
        except TimeoutError:
            if self._give_up(name, op, answer, sent_at):
                raise late(op, self._options.timeout) from None
            return answer.result()
        except BaseException:
            if not answer.done():  # the thread is interrupted
                self._call_off(name, answer)
            raise

    def _call_off(self, name: int, answer: Future[Any]) -> None:
        with self._turn:
            self._roster.cancel(name, last_word(answer))
        self._speak()

    def tell(self, recalled: Callable[[str], None]) -> None:
        """Let *recalled* hear of resources whose blocks are to be given back."""
        self._roster.recalled = recalled

    def close(self) -> None:
        """Call off what waits, wait for the rest, and close the connection."""
        with self._turn:
            self._roster.give_up_waiting()
            callers = [w for w in self._roster.waiters() if isinstance(w, Future)]
        self._speak()
        wait(callers)
        with self._turn:
            if self._connection is not None:
                self._quiet.wait_for(lambda: self._roster.silent, self._options.timeout)
            self._stop.set()
            connection, keeper = self._connection, self._keeper
        if connection is not None:
            connection.close()
        if keeper is not None:
            keeper.join()

    def _speak(self) -> None:
        """Send what is unsaid, unless somebody else has just done so."""
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415  # lazy

        with self._writing:
            with self._turn:
                connection = self._connection
                if connection is None:
                    return
                messages = list(self._roster.take(time.monotonic()))
            try:
                for message in messages:
                    connection.send(message)
            except ConnectionClosed:
                return  # whoever reads it will see

    def _give_up(self, name: int, op: Op, answer: Future[Any], sent_at: float) -> bool:
        """Stop listening; False when there is an answer after all."""
        with self._turn:
            if answer.done():
                return False
            if op.waits:
                self._roster.cancel(name)
            else:
                self._roster.forget(name)  # its caller may ask again
            connection, silent = self._connection, self._heard_at < sent_at
        if connection is not None and silent and not op.waits:
            # Nothing at all was heard since: the connection is dead, whoever killed it.
            connection.close()
        self._speak()
        return True

    # Keeping a connection

    def _keep(self) -> None:
        """Open a connection, and another after it, while somebody needs one."""
        failures = 0
        while True:
            failure = self._live()
            failures = failures + 1 if failure else 0
            pause = _dial.pause(self._options, failures, self._random, failure)
            with self._turn:
                if failure:
                    self._send_away(failure, pause)
                if self._roster.idle or self._stop.is_set():
                    self._keeper = None
                    return
            self._stop.wait(pause)

    def _live(self) -> NoChannel | None:
        """One connection from its beginning to its end; why it was none."""
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(self._open())
            except Exception as error:  # noqa: BLE001  # whatever it is: callers must know
                return _dial.why(error, opened_before=self._opened)
            return None if self._carry(connection) else _dial.useless()

    def _open(self) -> "AbstractContextManager[ClientConnection]":
        from websockets.sync.client import connect  # noqa: PLC0415  # lazy: it takes its time

        return connect(
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
        self._rest_until = time.monotonic() + pause
        self._roster.withdraw(failure, waiting=failure.blocked)

    def _carry(self, connection: "ClientConnection") -> bool:
        """Read until the connection ends; whether it was of any use."""
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415  # lazy

        useful = False
        with self._turn:
            self._connection, self._heard_at = connection, time.monotonic()
            self._failure, self._opened = None, True
        self._speak()
        refusal: NoChannel | None = None
        try:
            while True:
                message = connection.recv(decode=False)
                useful = True
                self._hear(message)
        except ConnectionClosed as closed:
            if _dial.refused_message(closed.rcvd.code if closed.rcvd else None):
                refusal = NoChannel(f"the channel was closed: {closed}")
        except msgspec.MsgspecError as error:
            refusal = NoChannel(f"an answer cannot be read: {error}")
        with self._turn:
            self._connection = None
            if refusal is not None:
                self._roster.withdraw(refusal, waiting=True)
            self._roster.lost()
            self._quiet.notify_all()
        return useful

    def _hear(self, message: bytes) -> None:
        with self._turn:
            self._heard_at = time.monotonic()
            self._roster.hear(message)
            unsaid = self._roster.unsaid
            self._quiet.notify_all()
        if unsaid:
            self._speak()
