"""What a waiter costs in fair queueing, and which share is kept for it. Pure.

A priority doubles the share of the one below it: 0 is served 32 times as much as 5, and 512
times as much as 9, while all of them wait.
"""

from collections.abc import Sequence

import msgspec

from limiter_service.config import priorities
from limiter_service.engine.policy import Policy

_MICRO = 1_000_000
_NORMAL = 5
_LEAST_COST = 1e-9
_MONTH = 30 * 86_400


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """`cost` is the dominant share: of all limits that count, the largest part of what one
    period allows. `step` is the cost over the weight; `period` (µs) belongs to the dominant
    limit.
    """

    cost: float
    step: float
    period: float
    priority_class: int
    share: float


def factor(priority: int) -> float:
    """How much a priority multiplies a tenant's weight."""
    return 2.0 ** (_NORMAL - priority)


def weigh(policy: Policy, amounts: Sequence[float], priority: int) -> Weight:
    """The weight of a request that needs *amounts* of the limits of *policy*."""
    cost, period = _LEAST_COST, float(_MICRO)
    for limit, amount in zip(policy.limits, amounts, strict=True):
        share = amount / (limit.limit * limit.unit)
        # What a ramp allows grows with use: it says nothing of what a request is worth.
        if share > cost and not limit.shadow and limit.window != "ramp":
            cost = share
            period = (limit.per or (_MONTH if limit.window == "calendar" else 1.0)) * _MICRO
    number, share = _class_of(policy, priority)
    return Weight(
        cost=cost,
        step=cost / (policy.weight * factor(priority)),
        period=period,
        priority_class=number,
        share=share,
    )


def _class_of(policy: Policy, priority: int) -> tuple[int, float]:
    for key, share in policy.config.queue.priority_shares.items():
        wanted = priorities(key)
        if priority in wanted:
            return wanted.start, share
    return 0, 0.0
