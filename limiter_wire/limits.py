"""Limits as a caller sees them."""

from enum import StrEnum

from limiter_wire._base import Wire


class Meter(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    COST_USD = "cost_usd"
    CONCURRENCY = "concurrency"


class LimitState(Wire, frozen=True, kw_only=True):
    """One limit at one moment.

    `remaining` may be negative after a settle that used more than was reserved.
    `reset_after` is in seconds: until the limit is as good as new if nothing else comes;
    0 for concurrency, whose slots come back with their leases.
    """

    name: str
    meter: Meter
    limit: float
    remaining: float
    reset_after: float
    per: float | None = None
    window: str = "bucket"
    scope: str = "model"
    shadow: bool = False
    refused: bool = False


class BudgetView(Wire, frozen=True, kw_only=True):
    """A limit in a calendar window, and how long it lasts. Times are seconds.

    `per_hour` is how fast all of the fleet spends it at present. `exhausted_in` is when it is
    spent at that pace; None when it lasts until it begins anew.
    """

    name: str
    meter: Meter
    limit: float
    per: str
    spent: float
    resets_in: float
    per_hour: float | None = None
    exhausted_in: float | None = None
    shadow: bool = False


class ResourceView(Wire, frozen=True, kw_only=True):
    """The live state of one resource, for one tenant where limits depend on it.

    `in_flight` is the number of live leases on a concurrency limit of the chain, or None
    when there is no such limit (then nobody counts).
    """

    resource: str
    tenant: str
    limits: list[LimitState]
    in_flight: int | None = None
    breaker: str = "closed"
    budgets: list[BudgetView] = []
    degraded: bool = False


class ResourceList(Wire, frozen=True, kw_only=True):
    """Every configured resource, and those with a wildcard's limits seen by this replica."""

    resources: list[ResourceView]
