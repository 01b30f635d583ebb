"""The queue as a caller and an operator see it."""

from limiter_wire._base import Wire


class QueueState(Wire, frozen=True, kw_only=True):
    """Where a request stands, or would stand. Times are seconds.

    `depth` is how many wait in the pool, `position` how many of the same tenant, priority and
    model stand before this one. `predicted_wait` is the median forecast, and with a
    probability of 0.9 the wait is not longer than `predicted_wait_p90`.
    """

    depth: int
    position: int = 0
    predicted_wait: float
    predicted_wait_p90: float


class Waiting(Wire, frozen=True, kw_only=True):
    """The request stands in the queue; ask again with the same `request_id` within 5 seconds.

    `max_wait` counts from the first request, `waited` is how much of it is over.
    """

    waiting: bool = True
    request_id: str
    waited: float
    predicted_wait: float
    queue: QueueState


class QueueLine(Wire, frozen=True, kw_only=True):
    """The waiters of one tenant and priority on one resource: first come, first served.

    `oldest` is how long the first has waited. The forecast is for a new waiter that needs
    what those of this line need on average; None when this replica's configuration does not
    know the resource. A line is `blocked_by_tenant` while its head lacks room in a limit
    of its own tenant.
    """

    resource: str
    tenant: str
    priority: int
    waiters: int
    oldest: float
    predicted_wait: float | None = None
    predicted_wait_p90: float | None = None
    blocked_by_tenant: bool = False


class QueueView(Wire, frozen=True, kw_only=True):
    """The queue of one pool: at most 1000 lines, the longest first."""

    pool: str
    depth: int
    oldest: float
    max_waiters: int
    max_wait: float
    lines: list[QueueLine]
