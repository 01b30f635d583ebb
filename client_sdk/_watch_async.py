"""Waiting for a provider in a task, with one lazy timer. `_watch_sync` is its counterpart."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
Deadline = Callable[[], float | None]


_GRACE = 0.02
"""Seconds for what has arrived to be read: a loop that was busy is no stuck provider."""


_closing: set["asyncio.Task[None]"] = set()


class Woken(Exception):  # what it is
    """The wait was ended by a timer, or because the stream is closed."""


class Watch:
    """Waits inside one stream. At most one timer is armed: it looks again when it fires too
    early, so a chunk that arrives costs nothing.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadline: Deadline | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._woken = self._sure = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        """Somebody reads the stream."""
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self._idle.set()

    @property
    def busy(self) -> bool:
        """Whether somebody reads the stream."""
        return not self._idle.is_set()

    async def idle(self) -> None:
        """Wait until nobody does."""
        await self._idle.wait()

    def guard(self, deadline: Deadline | None) -> None:
        """From now *deadline* says when a wait has been long enough. Call it again when a limit
        begins to count that did not before.
        """
        self._deadline, self._sure = deadline, False
        self._disarm()

    def connected(self, response: object) -> None:
        """The head of *response* arrived."""

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do *work*. Raises Woken when the deadline passed, or `wake` was called, meanwhile."""
        if self._timer is None:
            self._arm()
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        self._task, self._woken = task, False
        try:
            return await work()
        except asyncio.CancelledError:
            if self._woken and task.uncancel() <= before:
                self._woken = False
                raise Woken from None
            raise
        finally:
            self._task = None
            if self._woken:  # the work ended in the same moment, whichever way
                task.uncancel()

    async def send(self, http: Any, request: Any) -> Any:
        """The answer to *request*, whose body has still to be read. Raises as `run` does."""
        return await self.run(lambda: _sent(http, request))

    def wake(self) -> None:
        """End a wait from another task."""
        if self._task is not None and not self._woken:
            self._woken = True
            self._task.cancel()

    async def brief(self, pull: Callable[[], Awaitable[object]], seconds: float) -> None:
        """Read what is left of a body that ends within *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await pull()
        except Exception:  # noqa: BLE001  # its end, a timeout, or a fault that does not matter now
            return

    def close(self) -> None:
        """Watch no more."""
        self._deadline = None
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        at = None if self._deadline is None else self._deadline()
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, at - self._clock()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._task is None or self._deadline is None:
            return  # nobody waits: the next wait arms it again
        at = self._deadline()
        if at is None or self._clock() < at:
            self._sure = False
            self._arm()
        elif self._sure:
            self.wake()
        else:
            self._sure = True
            self._timer = asyncio.get_running_loop().call_later(_GRACE, self._fire)


class _Opening:
    """How far a connection is being opened, told by the HTTP client's trace."""

    def __init__(self) -> None:
        self.bare = False
        """Whether it is open and nothing has been sent over it."""

    async def __call__(self, event: str, _info: object) -> None:
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self.bare = True
        elif self.bare:
            self.bare = False


async def _sent(http: Any, request: Any) -> Any:
    """The answer to *request*. Who is cancelled meanwhile leaves no connection behind.

    httpcore loses a connection that is cancelled between being open and its first request: it
    counts as used for ever. So a cancellation waits until that moment is over, which takes no I/O.
    """
    opening = _Opening()
    request.extensions = {**request.extensions, "trace": opening}
    sending = asyncio.ensure_future(http.send(request, stream=True))
    try:
        return await asyncio.shield(sending)
    except asyncio.CancelledError:
        ending = asyncio.ensure_future(_let_go(sending, opening))
        _closing.add(ending)
        ending.add_done_callback(_closing.discard)
        await asyncio.shield(ending)
        raise


async def _let_go(sending: "asyncio.Future[Any]", opening: _Opening) -> None:
    while opening.bare and not sending.done():  # noqa: ASYNC110  # the next step is due
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait({sending})
    if not sending.cancelled() and sending.exception() is None:
        await sending.result().aclose()


def when_forgotten(
    owner: object, close: Callable[[], Coroutine[Any, Any, None]]
) -> "weakref.finalize[Any, Any]":
    """Call *close* when *owner* is collected without having been closed; detach it then."""
    finalizer = weakref.finalize(owner, _close_later, asyncio.get_running_loop(), close)
    finalizer.atexit = False
    return finalizer


def _close_later(
    loop: asyncio.AbstractEventLoop, close: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    if not loop.is_closed():
        # The collector may run in any thread.
        loop.call_soon_threadsafe(_begin, loop, close)


def _begin(loop: asyncio.AbstractEventLoop, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
    task = loop.create_task(close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
