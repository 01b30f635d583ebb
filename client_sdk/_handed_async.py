"""What only asyncio needs to hand out leases of blocks: an acquire that is awaited or entered, and
a task beside the callers.

`_handed_sync` is its counterpart.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from client_sdk._shell_async import Acquisition

if TYPE_CHECKING:
    from client_sdk._async.lease import Lease
    from client_sdk._async.prefetch import Prefetch


class Handed(Acquisition, kw_only=True, eq=False):
    """The same, out of a block that this process holds: taken when it is awaited or entered, and
    asked for where nothing can be taken.
    """

    prefetch: "Prefetch"
    what: tuple[str, str, int, bool]
    ask: "Callable[..., Awaitable[Lease]]"
    asked: tuple[Any, ...]

    def __await__(self) -> "Generator[Any, None, Lease]":
        return self._taken().__await__()

    async def _taken(self) -> "Lease":
        return self.prefetch.take(*self.what) or await self.ask(*self.asked)

    async def __aenter__(self) -> "Lease":
        lease = self.lease = self.prefetch.take(*self.what) or await self.ask(*self.asked)
        return lease

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease = self.lease
        assert lease is not None
        if isinstance(lease, self.prefetch.kind):
            lease.leave(error)  # nothing is sent for it, so there is nothing to wait for
        else:
            await lease.__aexit__(kind, error, trace)


handed = Handed


class Keeper:
    """Work that comes again and again, beside what callers do: *work* says in how many seconds;
    None is when it is woken.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, float | None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Let it work soon."""
        self._woken.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._woken.is_set():
                self._woken.clear()
                pause = await self._work()
                if pause is not None:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._woken.wait()
                    self._woken.set()
        finally:
            self._task = None

    async def finished(self) -> None:
        """Wait until there is nothing to do."""
        while self._task is not None:
            await asyncio.wait({self._task})
