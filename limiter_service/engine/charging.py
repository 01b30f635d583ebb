"""What a request costs each limit: reserved when it asks, corrected when it settles. Pure."""

import math
from collections.abc import Sequence

from limiter_service.config import LimitConfig, PriceConfig
from limiter_service.engine.policy import Limit, Policy
from limiter_service.store.commands import KEEP
from limiter_wire import Acquire, Meter, Outcome, Provenance, Usage

_TOKENS = {Meter.TOKENS, Meter.INPUT_TOKENS, Meter.OUTPUT_TOKENS}
_MILLION = 1_000_000

NOT_SERVED = frozenset(
    {
        Outcome.RATE_LIMITED,
        Outcome.QUOTA_EXHAUSTED,
        Outcome.OVERLOADED,
        Outcome.AUTH,
        Outcome.PERMISSION,
        Outcome.NOT_FOUND,
        Outcome.INVALID_REQUEST,
        Outcome.CONTEXT_LENGTH_EXCEEDED,
    }
)
"""Outcomes after which a provider has processed no tokens. The request itself stays spent:
providers count refused requests too."""


class PriceMissing(ValueError):  # what is wrong
    """A limit counts money, and neither request nor configuration says what the call costs."""


def reserve(policy: Policy, request: Acquire, expected_output: float | None) -> list[float]:
    """The amount that each limit of *policy* holds for *request*, in the scripts' units.

    *expected_output* is the learned size of an answer, None while nothing is known.
    Raises PriceMissing.
    """
    return [float(_reserved(limit, policy, request, expected_output)) for limit in policy.limits]


def _reserved(limit: Limit, policy: Policy, request: Acquire, expected: float | None) -> int:
    match limit.meter:
        case Meter.REQUESTS | Meter.CONCURRENCY:
            return 1
        case Meter.COST_USD:
            return _up(_reserved_cost(policy, request) * limit.unit)
        case _:
            return _reserved_tokens(limit, request, expected)


def _reserved_tokens(limit: Limit, request: Acquire, expected: float | None) -> int:
    if request.input_tokens is None:
        return request.tokens or 0  # the mix is not known, so each meter holds all of it
    weights = limit.config.weights
    given = request.input_tokens * weights.get("input", 1.0)
    most = (request.max_output_tokens or 0) * weights.get("output", 1.0)
    likely = most if expected is None else min(most, expected * weights.get("output", 1.0))
    match limit.config.reserve or _DEFAULT_RESERVE[limit.meter]:
        case "input":
            return _up(given)
        case "max(input, max_output)":
            return _up(max(given, most))
        case "input + expected_output":
            return _up(given + likely)
        case "unweighted(input, max_output)":
            return request.input_tokens + (request.max_output_tokens or 0)
        case "expected_output":
            return _up(likely)
        case "max_output":
            return _up(most)
        case _:
            return _up(given + most)


_DEFAULT_RESERVE = {
    Meter.TOKENS: "sum(input, max_output)",
    Meter.INPUT_TOKENS: "input",
    Meter.OUTPUT_TOKENS: "max_output",
}


def _reserved_cost(policy: Policy, request: Acquire) -> float:
    if request.cost_usd is not None:
        return request.cost_usd
    if policy.price is None:
        limit = next(limit.name for limit in policy.limits if limit.meter is Meter.COST_USD)
        raise PriceMissing(
            f"the limit {limit} counts money, and {policy.resource} has no price: "
            f"give `cost_usd` in the request or `prices` in the pool's configuration"
        )
    if request.input_tokens is None:
        return (request.tokens or 0) * max(policy.price.input, policy.price.output) / _MILLION
    usage = Usage(input_tokens=request.input_tokens, output_tokens=request.max_output_tokens or 0)
    return cost(policy.price, usage)


def cost(price: PriceConfig, usage: Usage) -> float:
    """US dollars for *usage*; cached tokens cost as input where they have no price."""
    fresh, read, written, output, reasoning = components(usage)
    read_price = price.input if price.cache_read is None else price.cache_read
    written_price = price.input if price.cache_write is None else price.cache_write
    dollars = fresh * price.input + read * read_price + written * written_price
    return (dollars + (output + reasoning) * price.output) / _MILLION


def components(usage: Usage) -> tuple[int, int, int, int, int]:
    """Fresh input, cache reads, cache writes, visible output, reasoning: each token once."""
    read, written, reasoning = (
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    fresh = max(0, usage.input_tokens - read - written)
    return fresh, read, written, max(0, usage.output_tokens - reasoning), reasoning


def used(
    policy: Policy,
    usage: Usage | None,
    cost_usd: float | None,
    outcome: Outcome,
    refund: str | None = None,
) -> Sequence[float]:
    """What each limit of *policy* should have been charged; KEEP where it stays as reserved.

    *refund* is what comes back when no usage is known (`Cause`); None: by the outcome.
    """
    known = usage is not None and usage.provenance is not Provenance.UNKNOWN
    if refund == "all" and not known and cost_usd is None:  # the provider has counted nothing
        return [KEEP if limit.meter is Meter.CONCURRENCY else 0.0 for limit in policy.limits]
    served = outcome not in NOT_SERVED if refund is None else refund == "none"
    return [_used(limit, policy, usage, cost_usd, served=served) for limit in policy.limits]


def _used(
    limit: Limit, policy: Policy, usage: Usage | None, cost_usd: float | None, *, served: bool
) -> float:
    if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY} or limit.config.settle == "none":
        return KEEP
    known = usage is not None and usage.provenance is not Provenance.UNKNOWN
    if limit.meter is Meter.COST_USD and cost_usd is not None:
        return float(_up(cost_usd * limit.unit))
    if not known:
        return KEEP if served else 0.0
    assert usage is not None
    if limit.meter is Meter.COST_USD:
        return KEEP if policy.price is None else float(_up(cost(policy.price, usage) * limit.unit))
    return float(_used_tokens(limit.meter, limit.config, usage))


def _used_tokens(meter: Meter, config: LimitConfig, usage: Usage) -> int:
    fresh, read, written, output, reasoning = components(usage)
    weigh = config.weights.get
    total = 0.0
    if meter is not Meter.OUTPUT_TOKENS:
        total += fresh * weigh("input", 1.0) + read * weigh("cache_read", 1.0)
        total += written * weigh("cache_write", 1.0)
    if meter is not Meter.INPUT_TOKENS:
        total += output * weigh("output", 1.0) + reasoning * weigh("reasoning", 1.0)
    return _up(total)


def counts_tokens(limit: Limit) -> bool:
    """Whether *limit* counts tokens of any kind."""
    return limit.meter in _TOKENS


def _up(amount: float) -> int:
    """Whole units, never less than *amount*: exact sums in the windows that add them up."""
    return math.ceil(amount - 1e-9)
