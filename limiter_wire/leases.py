"""Acquire, settle, renew, check and batch: requests and answers."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from limiter_wire._base import (
    MAX_AMOUNT,
    LeaseId,
    Money,
    Name,
    PositiveTokens,
    ResourceName,
    Seconds,
    Tokens,
    Wire,
)
from limiter_wire.blocks import MOST_CALLS, BlockReport, Lent
from limiter_wire.limits import LimitState, SpentLimit
from limiter_wire.outcomes import Cause, Outcome
from limiter_wire.usage import Usage


class Acquire(Wire, frozen=True, kw_only=True):
    """Ask for budget: one of `tokens`, or `input_tokens` with `max_output_tokens`.

    `cache_read_tokens` and `cache_write_tokens` are the parts of `input_tokens` that the
    provider's cache is known to serve or to take up.
    `max_wait`, `hold` and `ttl` are seconds. A request that waits is answered 202 after `hold`
    (default and at most: the service's hold limit; over a channel by default when its wait is
    over). `request_id` is the idempotency key: the same id of the same tenant charges once.
    `route` labels the kind of call, for learned sizes. With `since` it is charged whatever the
    limits say: the caller has granted it to itself so many seconds ago, when it could not reach
    the service. With `block` it asks for so many calls of `tokens` each at once, to hand them out
    itself: it gets as many as are lent now, or is refused, and never waits.
    """

    resource: ResourceName
    tokens: PositiveTokens | None = None
    input_tokens: PositiveTokens | None = None
    max_output_tokens: Tokens | None = None
    cache_read_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    cost_usd: Money | None = None
    tenant: Name = "default"
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5
    max_wait: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    hold: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    request_id: Name | None = None
    worker: Name | None = None
    attempt: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    route: Name | None = None
    ttl: Annotated[float, msgspec.Meta(ge=1, le=86_400)] | None = None
    traceparent: Name | None = None
    since: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    block: Annotated[int, msgspec.Meta(ge=2, le=MOST_CALLS)] | None = None


class Calibration(Wire, frozen=True, kw_only=True):
    """How estimated inputs compare with real ones, in all of the fleet.

    `ratio` is the mean of actual over estimated tokens, `spread` the mean error that remains
    after that correction. Without `of_route` it is that of the whole model, and rough.
    """

    ratio: float
    spread: float
    samples: int
    of_route: bool = True


class Granted(Wire, frozen=True, kw_only=True):
    """The budget is reserved until `lease` is settled or `expires_in` seconds are over.

    `charged` is by meter; where several limits count one meter, the largest charge. `degraded`:
    the store was lost, and one replica has decided by its share alone.
    `suggested_max_tokens` is a bound for the answer that about one answer in a hundred of this
    model and route would exceed, which then is cut off; None while too few were seen. `block` is
    what was lent to who has asked for one.
    """

    granted: bool = True
    lease: str
    waited: float = 0.0
    expires_in: float
    charged: dict[str, float]
    limits: list[LimitState]
    breaker: str = "closed"
    probe: bool = False
    suggested_max_tokens: int | None = None
    degraded: bool = False
    settled: bool = False
    block: Lent | None = None


class TrialVerdict(Wire, frozen=True, kw_only=True):
    """What the policy on trial would answer: the enforced one with each shadow limit in the
    place of the enforced limits on its meter in its scope. `limit` is a shadow that decides.
    """

    would_grant: bool
    limit: str | None = None


class Checked(Wire, frozen=True, kw_only=True):
    """What an acquire would answer now.

    The last three are left out where nothing is known: `trial` without shadow limits, the others
    while too few calls were seen.
    """

    would_grant: bool
    retry_after: float = 0.0
    limit: str | None = None
    would_fit: int | None = None
    never_fits: bool = False
    limits: list[LimitState]
    breaker: str = "closed"
    degraded: bool = False
    suggested_max_tokens: int | msgspec.UnsetType = msgspec.UNSET
    calibration: Calibration | msgspec.UnsetType = msgspec.UNSET
    trial: TrialVerdict | msgspec.UnsetType = msgspec.UNSET


class Settle(Wire, frozen=True, kw_only=True):
    """Report what a lease really used and how the call ended. Times are seconds.

    `headers` are those of the provider's answer that speak of limits, and `spent` the limit
    that its refusal named. `phase: first_token` reports early that the provider answers; the
    lease stays open and nothing of it moves. `estimated_input_tokens` is what the caller's
    estimate said before any correction: compared with the usage, it calibrates the estimates of
    all callers. `block` is for the lease of a block, and says all of it.
    """

    lease: LeaseId
    outcome: Outcome = Outcome.SUCCESS
    usage: Usage | None = None
    cost_usd: Money | None = None
    latency: Seconds | None = None
    ttft: Seconds | None = None
    retry_after: Seconds | None = None
    headers: dict[str, str] | None = None
    spent: SpentLimit | None = None
    estimated_input_tokens: Annotated[float, msgspec.Meta(gt=0, le=MAX_AMOUNT)] | None = None
    phase: Literal["first_token"] | None = None
    cause: Cause | None = None
    traceparent: Name | None = None
    block: BlockReport | None = None


class Settled(Wire, frozen=True, kw_only=True):
    """What moved, by meter; the same answer again, with `already_settled`, to a repeat.

    `calibration` is for a report with an estimate: how those of this kind of call compare with
    reality. `degraded`: the store was lost, so the report is kept and taken in when it is back;
    what moves for a lease from before is not known yet.
    """

    settled: bool = True
    already_settled: bool = False
    refunded: dict[str, float] = {}
    debited: dict[str, float] = {}
    breaker: str = "closed"
    calibration: Calibration | msgspec.UnsetType = msgspec.UNSET
    degraded: bool | msgspec.UnsetType = msgspec.UNSET


class Renew(Wire, frozen=True, kw_only=True):
    """Keep a lease alive for `ttl` seconds from now (default: the pool's).

    `usage` so far beyond the reservation is charged now.
    """

    lease: LeaseId
    ttl: Annotated[float, msgspec.Meta(ge=1, le=86_400)] | None = None
    usage: Usage | None = None
    traceparent: Name | None = None


class Renewed(Wire, frozen=True, kw_only=True):
    """The lease lives for another `expires_in` seconds."""

    lease: str
    expires_in: float
    charged: dict[str, float]
    degraded: bool | msgspec.UnsetType = msgspec.UNSET


class Operation(StrEnum):
    """What an element of a batch asks for."""

    ACQUIRE = "acquire"
    SETTLE = "settle"
    RENEW = "renew"
    CHECK = "check"
    OBSERVE = "observe"


class BatchRequest(Wire, frozen=True, kw_only=True):
    """Operations to run side by side: each a body of its route plus `op`."""

    ops: Annotated[list[Any], msgspec.Meta(min_length=1, max_length=256)]


class BatchResult(Wire, frozen=True, kw_only=True):
    """The answer to one operation: what its route would have said."""

    status: int
    body: Any


class BatchAnswer(Wire, frozen=True, kw_only=True):
    """One result per operation, in the order of the request."""

    results: list[BatchResult]
