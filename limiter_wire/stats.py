"""Figures about the recent past."""

from limiter_wire._base import Wire


class WaitStats(Wire, frozen=True, kw_only=True):
    """Waits in the queue that ended with a grant at this replica, and their forecasts.

    Times are seconds. `error` is actual less predicted median when the request was
    enqueued; `covered` the share of waits no longer than the predicted 90th percentile.
    """

    resource: str
    count: int
    wait_p50: float
    wait_p90: float
    wait_max: float
    error_p50: float
    absolute_error_p50: float
    covered: float


class Stats(Wire, frozen=True, kw_only=True):
    """What this replica has seen since it started; `waits` of at most the last 1000 each."""

    since: float
    waits: list[WaitStats]
