"""What a request costs each limit: reserved when it asks, corrected when it settles. Pure."""

import math
from collections.abc import Sequence

from limiter_service.config import LimitConfig
from limiter_service.engine.policy import Limit, Policy
from limiter_service.engine.template import Template
from limiter_service.prices import PriceConfig
from limiter_service.store.messages import KEEP
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


def reserve(
    policy: Policy | Template, request: Acquire, expected_output: float | None
) -> list[float]:
    """The amount that each limit of *policy* holds for *request*, in the scripts' units.

    *expected_output* is the learned size of an answer, None while nothing is known.
    Raises PriceMissing.
    """
    asked = Asked(request, expected_output)
    return [float(_reserved(limit, policy, asked)) for limit in policy.limits]


class Asked:
    """What a request says of its sizes: the input by component, and the answer."""

    def __init__(self, request: Acquire, expected: float | None) -> None:
        self.tokens, self.cost_usd = request.tokens, request.cost_usd
        self.input_tokens = request.input_tokens
        if self.input_tokens is not None:
            # The parts of the input that a cache serves or takes up, as far as they are known.
            self.read = request.cache_read_tokens or 0
            self.written = request.cache_write_tokens or 0
            self.fresh = max(0, self.input_tokens - self.read - self.written)
        self.bounded = request.max_output_tokens is not None
        self.most = request.max_output_tokens or 0
        # Without a bound on the answer its usual size is all there is to go by.
        likely = self.most if expected is None else expected
        self.likely = min(self.most, likely) if self.bounded else likely

    def weighed(self, config: LimitConfig) -> float:
        """The input by the weights of a limit."""
        weigh = config.weights.get
        cached = self.read * weigh("cache_read", 1.0) + self.written * weigh("cache_write", 1.0)
        return self.fresh * weigh("input", 1.0) + cached


def _reserved(limit: Limit, policy: Policy | Template, asked: Asked) -> int:
    match limit.meter:
        case Meter.REQUESTS | Meter.CONCURRENCY:
            return 1
        case Meter.COST_USD:
            return _reserved_cost(limit, policy, asked)
        case _:
            return _reserved_tokens(limit, asked)


def _reserved_tokens(limit: Limit, asked: Asked) -> int:
    if asked.input_tokens is None:
        return asked.tokens or 0  # the mix is not known, so each meter holds all of it
    given = asked.weighed(limit.config)
    # Nobody knows beforehand how much of an answer will be reasoning: the dearer kind counts.
    weights = limit.config.weights
    of_output = max(weights.get("output", 1.0), weights.get("reasoning", 0.0))
    most, likely = asked.most * of_output, asked.likely * of_output
    match limit.config.reserve or _DEFAULT_RESERVE[limit.meter]:
        case "input":
            return _up(given)
        case "max(input, max_output)":
            return _up(max(given, most))
        case "input + expected_output":
            return _up(given + likely)
        case "unweighted(input, max_output)":
            return asked.input_tokens + asked.most
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


def _reserved_cost(limit: Limit, policy: Policy | Template, asked: Asked) -> int:
    if asked.cost_usd is not None:
        return _up(asked.cost_usd * limit.unit)
    if policy.price is None:
        raise PriceMissing(
            f"the limit {limit.name} counts money, and {policy.resource} has no price: "
            f"give `cost_usd` in the request or `prices` in the pool's configuration"
        )
    if asked.input_tokens is None:
        tokens = asked.tokens or 0
        price = tier_of(policy.price, tokens)
        return _up(tokens * max(price.input, price.output))
    most = asked.most if asked.bounded else asked.likely
    by_rule = {"input": 0.0, "input + expected_output": asked.likely}
    output = by_rule.get(limit.config.reserve or "", most)
    return _up(price_of(policy.price, asked.fresh, asked.read, asked.written, output))


def micro_dollars(price: PriceConfig, usage: Usage) -> int:
    """What *usage* costs, in whole millionths of a dollar, rounded up.

    Dollars per million tokens are millionths of a dollar per token: nothing is divided, and
    what the scripts add up are whole numbers.
    """
    return _up(price_of(price, *components(usage)))


def price_of(
    price: PriceConfig,
    fresh: float,
    read: float,
    written: float,
    output: float,
    reasoning: float = 0.0,
) -> float:
    """Millionths of a dollar; what has no price of its own costs as input or output."""
    price = tier_of(price, fresh + read + written)
    of_read = price.input if price.cache_read is None else price.cache_read
    of_written = price.input if price.cache_write is None else price.cache_write
    of_reasoning = price.output if price.reasoning is None else price.reasoning
    inputs = fresh * price.input + read * of_read + written * of_written
    return inputs + output * price.output + reasoning * of_reasoning


def tier_of(price: PriceConfig, input_tokens: float) -> PriceConfig:
    """The price of a request with so much input: all of it may cost more when it is long."""
    if price.long is None or input_tokens <= price.long.above:
        return price
    return price.long.price


def cost(price: PriceConfig, usage: Usage) -> float:
    """US dollars for *usage*."""
    return price_of(price, *components(usage)) / _MILLION


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
    if known:
        assert usage is not None
        found = used_by_shape(policy, usage, cost_usd)
        if found is not None:
            return found
    if refund == "all" and not known and cost_usd is None:  # the provider has counted nothing
        return [KEEP if limit.meter is Meter.CONCURRENCY else 0.0 for limit in policy.limits]
    served = outcome not in NOT_SERVED if refund is None else refund == "none"
    return [_used(limit, policy, usage, cost_usd, served=served) for limit in policy.limits]


def used_by_shape(policy: Policy, usage: Usage, cost_usd: float | None) -> list[float] | None:
    """The same where the usage is known and the chain has a shape that knows how to charge it."""
    shape = policy.shape
    found = None if shape is None else shape.used(usage)
    if shape is None or found is None or not shape.money:
        return found
    for place in shape.money:
        unit = policy.limits[place].unit
        if cost_usd is not None:
            found[place] = float(_up(cost_usd * unit))
        elif policy.price is not None:
            found[place] = float(micro_dollars(policy.price, usage))
    return found


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
        return KEEP if policy.price is None else float(micro_dollars(policy.price, usage))
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
