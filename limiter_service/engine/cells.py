"""Cells of limits as scripts store them (lua/lib/layout): their sizes, and what is left. Pure."""

from collections.abc import Callable, Mapping, Sequence

from limiter_service.engine.limits import (
    RAMPS,
    SLOTS_OF_A_RAMP,
    SLOTS_OF_A_WINDOW,
    Limit,
    slot_width,
)

TIME, SKEW = 2, 3
"""Where a scope has its time, and how far that is from the server's clock."""

SPAN = SLOTS_OF_A_RAMP + 1
"""Slots of one period of a ramp."""

_RING = SLOTS_OF_A_WINDOW + 1
_SIZES = (1, _RING + 2, 2, 1)  # by kind
_SIZE_OF_A_RAMP = 2 * SPAN + 1

Edges = tuple[int, int, int]
"""Of a calendar: the begin of a window, its end, the end of the next, in Unix µs."""

View = Callable[[Sequence[float]], tuple[float, float]]
"""Of a lease: what is left of a limit in the scripts' units, and the microseconds until it is as
good as new.
"""


def size(limit_id: float) -> int:
    """Numbers in the cell of a limit."""
    return _SIZE_OF_A_RAMP if limit_id >= RAMPS else _SIZES[int(limit_id) % len(_SIZES)]


def ring_reset(cell: Sequence[float], width: int, now: float) -> float:
    """Microseconds until the last slot that is not empty has left the ring."""
    newest = int(cell[0])
    for slot in range(newest, newest - _RING, -1):
        if cell[2 + slot % _RING] != 0:
            return (slot + _RING) * width - now
    return 0.0


def end_of(edges: Edges, begun: float) -> float:
    """When the calendar window that began then ends."""
    return next((edge for edge in edges if edge > begun), begun)


def _sliding(limit: Limit, start: int, at: int, _: Mapping[int, Edges]) -> View:
    capacity, width, end = limit.capacity, slot_width(limit), at + size(limit.id)

    def view(lease: Sequence[float]) -> tuple[float, float]:
        wait = ring_reset(lease[at:end], width, lease[start + TIME])
        return capacity - lease[at + 1], max(0.0, wait)

    return view


def _calendar(limit: Limit, start: int, at: int, edges: Mapping[int, Edges]) -> View:
    capacity, limit_id = limit.capacity, limit.id

    def view(lease: Sequence[float]) -> tuple[float, float]:
        wall = lease[start + TIME] - lease[start + SKEW]
        return capacity - lease[at + 1], max(0.0, end_of(edges[limit_id], lease[at]) - wall)

    return view


def _concurrency(limit: Limit, _: int, at: int, __: Mapping[int, Edges]) -> View:
    capacity = limit.capacity
    return lambda lease: (capacity - lease[at], 0.0)


views: dict[str, Callable[[Limit, int, int, Mapping[int, Edges]], View]] = {
    "sliding": _sliding,
    "calendar": _calendar,
    "concurrency": _concurrency,
}
"""By window: how a limit is seen whose scope begins at one place of a lease and its cell at
another. What is left of buckets is read where they are many (engine/shape).
"""
