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


class CostStats(Wire, frozen=True, kw_only=True):
    """What settled calls of one tenant on one resource have used and cost, at this replica.

    `input_tokens` contains the cached ones and `output_tokens` the reasoning ones.
    `unpriced_calls` are those whose cost nobody knows.
    """

    resource: str
    tenant: str
    calls: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: float
    unpriced_calls: int


class TrialStats(Wire, frozen=True, kw_only=True):
    """Where a shadow limit differs from what is enforced, for one tenant at this replica.

    Of `seen` requests it would have refused some that were granted, and would have let pass
    some that were refused or made to wait.
    """

    limit: str
    tenant: str
    seen: int
    would_refuse: int
    would_grant: int


class Stats(Wire, frozen=True, kw_only=True):
    """What this replica has seen since it started; `waits` of at most the last 1000 each."""

    since: float
    waits: list[WaitStats]
    costs: list[CostStats] = []
    trials: list[TrialStats] = []
