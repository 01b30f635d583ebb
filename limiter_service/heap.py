"""Memory that is free goes back to the system.

glibc gives memory back from the end of its heap alone. What a burst has left free (a crowd of
waiters, a long list of resources) stays with the process for good when something that lives on lies
above it: the next burst finds other holes, and the process grows step by step without a leak. So a
process that has grown is asked now and then to give back what it does not use.
"""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

EVERY = 30.0
"""Seconds between two looks. A look costs some 20 us; to give back, once in as long at most, takes
1 ms where there is little, and 14 ms for a hundred MiB that lie scattered.
"""

_GROWN = 1.01
_LEAST = 1 << 20  # bytes
_STATM = Path("/proc/self/statm")


class Heap:
    """What a process holds, by its *size* in bytes, and the way to *trim* it."""

    def __init__(self, size: Callable[[], int], trim: Callable[[], object]) -> None:
        self._size, self._trim = size, trim
        self._kept = 0

    def look(self) -> bool:
        """Give back what is free when there is more than was left the last time; whether."""
        size = self._size()
        if size < max(self._kept * _GROWN, self._kept + _LEAST):
            self._kept = min(self._kept, size)
            return False
        self._trim()
        self._kept = self._size()
        return True


def of_this_process() -> Heap | None:
    """The heap of this process; None where the C library has no way to give memory back."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
        page = os.sysconf("SC_PAGE_SIZE")
        _STATM.read_bytes()
    except (AttributeError, OSError, TypeError, ValueError):
        return None
    return Heap(lambda: int(_STATM.read_bytes().split()[1]) * page, lambda: trim(0))


@contextlib.asynccontextmanager
async def tended(heap: Heap | None, every: float = EVERY) -> AsyncIterator[None]:
    """Look after a heap within."""
    if heap is None:
        yield
        return
    task = asyncio.create_task(_tend(heap, every))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _tend(heap: Heap, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        heap.look()
