"""What a call that has ended was charged on each limit, and what it cost. Pure."""

from limiter_service.engine import charging
from limiter_service.engine.policy import Policy
from limiter_service.store.messages import KEEP
from limiter_wire import Acquire, Meter, Outcome, Usage


def settled_amounts(policy: Policy, asked: Acquire, usage: Usage) -> dict[str, float]:
    """By limit, in its own unit; concurrency has none."""
    held = charging.reserve(policy, asked, None)
    used = charging.used(policy, usage, None, Outcome.SUCCESS)
    return {
        limit.name: (before if after == KEEP else after) / limit.unit
        for limit, before, after in zip(policy.limits, held, used, strict=True)
        if limit.meter is not Meter.CONCURRENCY
    }


def cost_of(policy: Policy, usage: Usage) -> float | None:
    """US dollars; None where no price is known."""
    return None if policy.price is None else charging.cost(policy.price, usage)
