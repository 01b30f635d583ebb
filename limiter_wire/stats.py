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


class Quantiles(Wire, frozen=True, kw_only=True):
    """A distribution of durations, in seconds; right to five percent."""

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class CallStats(Wire, frozen=True, kw_only=True):
    """What happened to the calls of a resource in all of the fleet; `tenant` None: of everybody.

    `granted` counts leases, `refused` answers by error code, `outcomes` settled calls by how
    they ended, `expired` leases that nobody has settled in time. Tokens that were reserved come
    back as `refunded_tokens` or are exceeded by `debited_tokens`. `wait` is of those who stood in
    the queue, `covered` the share of them whose wait was within the forecast's 90th percentile;
    `latency` and `ttft` are what workers reported of the provider.
    """

    resource: str
    tenant: str | None = None
    granted: int
    refused: dict[str, int]
    settled: int
    outcomes: dict[str, int]
    expired: int
    reserved_tokens: int
    refunded_tokens: int
    debited_tokens: int
    cost_usd: float
    wait: Quantiles | None
    covered: float | None
    latency: Quantiles | None
    ttft: Quantiles | None


class CostStats(Wire, frozen=True, kw_only=True):
    """What settled calls of one tenant on one resource have used and cost, in all of the fleet.

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


class SeriesStats(Wire, frozen=True, kw_only=True):
    """What one resource did in each step: requests that were granted and refused, calls that were
    settled, what they used and cost.
    """

    resource: str
    granted: list[int]
    refused: list[int]
    settled: list[int]
    input_tokens: list[int]
    output_tokens: list[int]
    cost_usd: list[float]


class Stats(Wire, frozen=True, kw_only=True):
    """Figures of the fleet, for the last `since` seconds; of all tenants and models that are
    not told apart, `*` has the sum. Where it was asked for, `series` has them in steps of `step`
    seconds, which began at `times`; the last of them is not over.

    `degraded`: the store did not answer, and they are missing. `waits` and `trials` are what the
    replica that answers has seen in the `uptime` seconds since it started; `waits` of at most
    the last 1000 each.
    """

    since: float
    resources: list[CallStats] = []
    tenants: list[CallStats] = []
    costs: list[CostStats] = []
    degraded: bool = False
    uptime: float = 0.0
    waits: list[WaitStats] = []
    trials: list[TrialStats] = []
    step: float = 0.0
    times: list[float] = []
    series: list[SeriesStats] = []
