"""What a caller learns while it waits in the queue."""

import msgspec

from limiter_wire import Waiting


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a waiting acquire stands; times are seconds.

    `position` is how many of the same tenant, priority and model stand before it, `depth`
    how many wait in the pool. `predicted_wait` is what the median forecast says of the rest;
    with a probability of 0.9 it is not longer than `predicted_wait_p90`.
    """

    position: int
    depth: int
    waited: float
    predicted_wait: float
    predicted_wait_p90: float


def progress_of(waiting: Waiting) -> Progress:
    """The service's answer, for the caller."""
    return Progress(
        position=waiting.queue.position,
        depth=waiting.queue.depth,
        waited=waiting.waited,
        predicted_wait=waiting.predicted_wait,
        predicted_wait_p90=waiting.queue.predicted_wait_p90,
    )


LONGEST_PAUSE = 2.0
"""Seconds between two questions of a caller that nobody holds: its place is kept for five."""

_SHORTEST_PAUSE = 0.005
_HELD = 0.5


def pause_before_asking(waiting: Waiting, asked_for: float) -> float:
    """How long to wait before asking again, after an answer that took *asked_for* seconds: not
    at all when the service has held the question.
    """
    if asked_for >= _HELD:
        return 0.0
    return min(LONGEST_PAUSE, max(_SHORTEST_PAUSE, waiting.predicted_wait))
