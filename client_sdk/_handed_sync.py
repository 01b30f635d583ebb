"""What threads need in place of `_handed_async`: a lease is there at once, and a thread beside the
callers.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client_sdk._sync.lease import SyncLease
    from client_sdk._sync.prefetch import Prefetch


def handed(
    prefetch: "Prefetch",
    what: tuple[str, str, int, bool],
    ask: "Callable[..., SyncLease]",
    asked: tuple[Any, ...],
) -> "SyncLease":
    """A lease out of a block that this process holds, or else what it gets by asking."""
    return prefetch.take(*what) or ask(*asked)


class Keeper:
    """Work that comes again and again, in a thread of its own: *work* says in how many seconds;
    None is when it is woken.
    """

    def __init__(self, work: Callable[[], float | None]) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()

    def wake(self) -> None:
        """Let it work soon."""
        with self._turn:
            self._woken.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="sluicegate-keeper", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._turn:
                if not self._woken.is_set():
                    self._thread = None
                    return
                self._woken.clear()
            pause = self._work()
            if pause is not None:
                self._woken.wait(pause)
                self._woken.set()

    def finished(self) -> None:
        """Wait until there is nothing to do."""
        thread = self._thread
        while thread is not None:
            thread.join()
            thread = self._thread
