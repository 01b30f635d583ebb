"""Limits as a caller sees them."""

from enum import StrEnum
from typing import Annotated

import msgspec

from limiter_wire._base import MAX_AMOUNT, ResourceName, Wire


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


class SpentLimit(Wire, frozen=True, kw_only=True):
    """The limit that a 429 names in its text: exact figures from the provider."""

    meter: str
    per: float
    limit: float
    used: float | None = None
    requested: float | None = None
    model: str | None = None


class LimitOverride(Wire, frozen=True, kw_only=True):
    """Hold a limit to `limit` for `ttl` seconds; `null` holds it until it is cleared."""

    limit: Annotated[float, msgspec.Meta(gt=0, le=MAX_AMOUNT)]
    ttl: Annotated[float, msgspec.Meta(gt=0, le=31_622_400)] | None
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class LimitHeld(Wire, frozen=True, kw_only=True):
    """Who holds a limit to what, until when (Unix seconds; none: until cleared), and why."""

    limit: float
    until: float | None
    actor: str
    reason: str


class LimitView(LimitState, frozen=True, kw_only=True):
    """One limit as an operator sees it: `limit` is what is in force, and `capacity` the most that
    `remaining` can be.

    `configured` is what the file says, `learned` what the provider has stated otherwise
    until `learned_until` (Unix seconds), `override` what an operator holds it to. `burst` is
    the share of its capacity that is in force, `share` that of its rate. `corrected` is the time
    at which the provider last said that less was left than was known here.
    """

    configured: float
    capacity: float
    learn: str
    learned: float | None = None
    learned_until: float | None = None
    override: LimitHeld | None = None
    burst: float = 1.0
    share: float = 1.0
    corrected: float | None = None


class Observe(Wire, frozen=True, kw_only=True):
    """What a provider said to a call without a lease: the headers of its answer, its status,
    and the limit that its refusal named.
    """

    resource: ResourceName
    headers: dict[str, str] = {}
    status: Annotated[int, msgspec.Meta(ge=100, le=999)] = 200
    spent: SpentLimit | None = None


class Noticed(Wire, frozen=True, kw_only=True):
    """What was made of it: how many limits it spoke of, how many changed, all as they are."""

    resource: str
    taken: int
    changed: int
    limits: list[LimitState]


class ResourceView(Wire, frozen=True, kw_only=True):
    """The live state of one resource, for one tenant where limits depend on it.

    `in_flight` is the number of live leases on a concurrency limit of the chain, or None
    when there is no such limit (then nobody counts).
    """

    resource: str
    tenant: str
    limits: list[LimitView]
    in_flight: int | None = None
    breaker: str = "closed"
    budgets: list[BudgetView] = []
    degraded: bool = False


class ResourceList(Wire, frozen=True, kw_only=True):
    """Every configured resource, and those with a wildcard's limits seen by this replica."""

    resources: list[ResourceView]
