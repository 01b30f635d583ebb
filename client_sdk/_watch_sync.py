"""Waiting for a provider in a thread: a monitor shuts the connection when the wait is too long.

`_watch_async` is its counterpart. A blocked read ends when its socket is shut down, not when
it is closed; before there is an answer, the timeouts of the HTTP client hold.
"""

import contextlib
import heapq
import itertools
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
Deadline = Callable[[], float | None]


_PATIENCE = 1.0


class Woken(Exception):  # what it is
    """The wait was ended by the monitor, or because the stream is closed."""


class _Monitor:
    """One thread for all streams of the process; it looks when the earliest may be over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, weakref.ref[Watch]]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def look(self, at: float, watch: "Watch") -> None:
        """Let *watch* fire at *at* (`time.monotonic`)."""
        with self._changed:
            heapq.heappush(self._due, (at, next(self._numbers), weakref.ref(watch)))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="sluicegate-streams", daemon=True
                )
                self._thread.start()
            elif self._due[0][0] == at:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    left = self._due[0][0] - time.monotonic() if self._due else None
                    self._changed.wait(left)
                watch = heapq.heappop(self._due)[2]()
            if watch is not None:
                watch.fire()
            del watch


_monitor = _Monitor()


class Watch:
    """Waits inside one stream."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadline: Deadline | None = None
        self._turn = threading.Lock()
        self._armed = self._waiting = self._woken = False
        self._socket: Any = None
        self._idle = threading.Event()
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

    def idle(self) -> None:
        """Wait until nobody does, but not for a provider that has not answered yet: its reader
        can only be woken by a timeout, and cleans up then.
        """
        self._idle.wait(_PATIENCE)

    def guard(self, deadline: Deadline | None) -> None:
        """From now *deadline* says when a wait has been long enough. Call it again when a limit
        begins to count that did not before.
        """
        with self._turn:
            self._deadline, self._armed = deadline, False

    def connected(self, response: Any) -> None:
        """The head of *response* arrived: its socket is what a wait hangs on, and the monitor
        takes over from the timeouts of the request.
        """
        stream = response.extensions.get("network_stream")
        self._socket = None if stream is None else stream.get_extra_info("socket")
        limits = response.request.extensions.get("timeout")
        if isinstance(limits, dict) and self._socket is not None:
            limits["read"] = None

    def run(self, work: Callable[[], T]) -> T:
        """Do *work*. Raises Woken when the deadline passed, or `wake` was called, meanwhile."""
        with self._turn:
            self._waiting, self._woken = True, False
            if not self._armed:
                self._arm()
        try:
            return work()  # what was done in spite of all is not lost
        except Exception:
            if self._woken:
                raise Woken from None
            raise
        finally:
            self._waiting = False

    def send(self, http: Any, request: Any) -> Any:
        """The answer to *request*, whose body has still to be read. Raises as `run` does."""
        return self.run(lambda: http.send(request, stream=True))

    def wake(self) -> None:
        """End a wait from another thread."""
        with self._turn:
            self._wake()

    def brief(self, pull: Callable[[], object], seconds: float) -> None:
        """Read what is left of a body that ends within *seconds*."""
        limit = self._clock() + seconds
        self.guard(lambda: limit)
        with contextlib.suppress(Exception):
            while True:
                self.run(pull)

    def close(self) -> None:
        """Watch no more."""
        with self._turn:
            self._deadline = self._socket = None

    def fire(self) -> None:
        """The monitor's call."""
        with self._turn:
            self._armed = False
            at = None if self._deadline is None or not self._waiting else self._deadline()
            if at is None:
                return  # nobody waits: the next wait arms it again
            if self._clock() >= at:
                self._wake()
            else:
                self._arm()

    def _arm(self) -> None:
        at = None if self._deadline is None else self._deadline()
        if at is not None:
            self._armed = True
            _monitor.look(time.monotonic() + max(0.0, at - self._clock()), self)

    def _wake(self) -> None:
        if not self._waiting or self._woken:
            return
        self._woken = True
        if self._socket is not None:
            # The plain method: that of a TLS socket changes what the reader is using.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def when_forgotten(owner: object, close: Callable[[], None]) -> "weakref.finalize[Any, Any]":
    """Call *close* when *owner* is collected without having been closed; detach it then."""
    finalizer = weakref.finalize(owner, _close_aside, close)
    finalizer.atexit = False
    return finalizer


def _close_aside(close: Callable[[], None]) -> None:
    # The collector may run anywhere, also where locks are held that closing needs.
    threading.Thread(target=close, name="sluicegate-close", daemon=True).start()
