"""What a call costs each limit: reserved when it asks, corrected when it settles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_service.config import PriceConfig, parse
from limiter_service.engine.charging import (
    NOT_SERVED,
    PriceMissing,
    components,
    cost,
    reserve,
    used,
)
from limiter_service.engine.expectation import Expectation
from limiter_service.engine.policy import Policies, Policy
from limiter_service.store.commands import KEEP
from limiter_wire import Acquire, Outcome, Provenance, Usage

COUNTS = st.integers(0, 10**9)


def policy(limits: str, prices: str = "{}") -> Policy:
    """The chain of p/m with these limits on the model."""
    config = parse(f"pools: {{p: {{models: {{m: {{{limits}}}}}, prices: {prices}}}}}", ".yaml")
    return Policies(config, "x:").policy("p/m", "t")


def limit(text: str, meter: str = "tokens") -> str:
    """One limit in the long form."""
    return f"limits: [{{meter: {meter}, limit: 1000, per: day, {text}}}]"


def asked(**fields: object) -> Acquire:
    """An acquire for p/m."""
    return Acquire(resource="p/m", **fields)  # type: ignore[arg-type]  # keywords of one caller


@pytest.mark.parametrize(
    ("rule", "fields", "held"),
    [
        ("", {"tokens": 70}, 70),
        ("", {"input_tokens": 30, "max_output_tokens": 40}, 70),
        ("", {"input_tokens": 30}, 30),
        ("reserve: tokens", {"input_tokens": 30, "max_output_tokens": 40}, 70),
        ("reserve: input", {"input_tokens": 30, "max_output_tokens": 40}, 30),
        ("reserve: input", {"tokens": 70}, 70),
        ('reserve: "max(input, max_output)"', {"input_tokens": 30, "max_output_tokens": 40}, 40),
        ('reserve: "max(input, max_output)"', {"input_tokens": 50, "max_output_tokens": 40}, 50),
        ('reserve: "input + expected_output"', {"input_tokens": 30, "max_output_tokens": 40}, 42),
        ('reserve: "input + expected_output"', {"input_tokens": 30, "max_output_tokens": 5}, 35),
        ("weights: {input: 2, output: 5}", {"input_tokens": 10, "max_output_tokens": 4}, 40),
        ("weights: {input: 0.3}", {"input_tokens": 10}, 3),
        ("weights: {input: 0.33}", {"input_tokens": 10}, 4),
    ],
)
def test_a_reservation_follows_its_rule(rule: str, fields: dict[str, int], held: int):
    """Fractions are rounded up: a reservation is never too small."""
    assert reserve(policy(limit(rule)), asked(**fields), expected_output=12) == [held]


def test_nothing_learned_means_the_most_is_expected():
    """Until answers were seen, `expected_output` is `max_output_tokens`."""
    chain = policy(limit('reserve: "input + expected_output"'))
    request = asked(input_tokens=30, max_output_tokens=40)
    assert reserve(chain, request, expected_output=None) == [70]


def test_each_meter_holds_its_own_part():
    """Requests and slots are one each, whatever the size."""
    chain = policy("rpm: 9, tpm: 99, input_tpm: 99, output_tpm: 99, concurrency: 9")
    amounts = reserve(chain, asked(input_tokens=30, max_output_tokens=12), None)
    assert dict(zip((each.meter for each in chain.limits), amounts, strict=True)) == {
        "requests": 1,
        "tokens": 42,
        "input_tokens": 30,
        "output_tokens": 12,
        "concurrency": 1,
    }
    assert reserve(chain, asked(tokens=42), None) == [1, 42, 42, 42, 1]


PRICE = "{m: {input: 2, output: 10, cache_read: 0.5}}"
MONEY = limit("", "cost_usd")


def test_money_is_held_by_price():
    """Without a split, every token is assumed to be of the dearer kind."""
    chain = policy(MONEY, PRICE)
    assert reserve(chain, asked(input_tokens=1000, max_output_tokens=100), None) == [3000]
    assert reserve(chain, asked(tokens=1000), None) == [10_000]
    assert reserve(chain, asked(tokens=1000, cost_usd=0.5), None) == [500_000]


def test_money_without_a_price_needs_a_cost():
    """The exception names limit and remedy."""
    with pytest.raises(PriceMissing, match=r"m\.cost_usd-per-day counts money.*give `cost_usd`"):
        reserve(policy(MONEY), asked(tokens=1), None)
    assert reserve(policy(MONEY), asked(tokens=1, cost_usd=0.25), None) == [250_000]


def test_a_cost_counts_each_component_once():
    """Cached tokens cost their own price, or the input's where there is none."""
    usage = Usage(
        input_tokens=1000, cache_read_tokens=600, cache_write_tokens=100, output_tokens=50
    )
    price = PriceConfig(input=2, output=10, cache_read=0.5)
    assert cost(price, usage) == pytest.approx((300 * 2 + 600 * 0.5 + 100 * 2 + 50 * 10) / 1e6)
    price = PriceConfig(input=2, output=10, cache_read=0, cache_write=4)
    assert cost(price, usage) == pytest.approx((300 * 2 + 100 * 4 + 50 * 10) / 1e6)


@given(*[COUNTS] * 5)
def test_components_are_never_negative_and_never_counted_twice(
    given_in: int, given_out: int, read: int, written: int, reasoning: int
):
    """Whatever a provider reports, parts sum up to the whole or to what was named."""
    usage = Usage(
        input_tokens=given_in,
        output_tokens=given_out,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )
    parts = components(usage)
    assert all(part >= 0 for part in parts)
    assert sum(parts[:3]) == max(given_in, read + written)
    assert sum(parts[3:]) == max(given_out, reasoning)


USAGE = Usage(
    input_tokens=100,
    cache_read_tokens=40,
    cache_write_tokens=10,
    output_tokens=30,
    reasoning_tokens=20,
)


@pytest.mark.parametrize(
    ("meter", "rule", "expected"),
    [
        ("tokens", "", 130),
        ("input_tokens", "", 100),
        ("output_tokens", "", 30),
        ("tokens", "weights: {cache_read: 0}", 90),
        ("tokens", "weights: {cache_write: 1.25}", 133),
        ("tokens", "weights: {output: 5, reasoning: 5}", 250),
        ("tokens", "weights: {reasoning: 0}", 110),
        ("input_tokens", "weights: {cache_read: 0, output: 9}", 60),
        ("output_tokens", "weights: {input: 9, reasoning: 2}", 50),
    ],
)
def test_usage_is_weighed_by_component(meter: str, rule: str, expected: int):
    """Each meter sees its own components, by their weights, rounded up."""
    assert used(policy(limit(rule, meter)), USAGE, None, Outcome.SUCCESS) == [expected]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_requests_and_slots_stay_as_reserved(outcome: Outcome):
    """Providers count refused requests too; slots are released, not settled."""
    assert used(policy("rpm: 9, concurrency: 9"), USAGE, None, outcome) == [KEEP, KEEP]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_without_usage_the_outcome_decides(outcome: Outcome):
    """What was not served costs nothing; anything else stays as reserved."""
    expected = 0 if outcome in NOT_SERVED else KEEP
    unknown = Usage(input_tokens=5, provenance=Provenance.UNKNOWN)
    chain = policy("tpm: 9, " + MONEY, PRICE)
    assert used(chain, None, None, outcome) == [expected, expected]
    assert used(chain, unknown, None, outcome) == [expected, expected]
    assert used(chain, Usage(input_tokens=3), None, outcome) == [3, 6]


def test_every_outcome_is_judged():
    """A new outcome must be sorted into served or not served."""
    served = {
        *(Outcome.SUCCESS, Outcome.SERVER_ERROR, Outcome.TIMEOUT, Outcome.CONNECTION),
        *(Outcome.STREAM_INTERRUPTED, Outcome.MALFORMED_STREAM, Outcome.CONTENT_FILTERED),
        Outcome.CANCELLED,
    }
    assert served | NOT_SERVED == set(Outcome)
    assert not served & NOT_SERVED


def test_a_limit_that_is_not_settled_stays_as_reserved():
    """`settle: none` neither refunds nor debits."""
    chain = policy(limit("settle: none"))
    assert used(chain, USAGE, None, Outcome.SUCCESS) == [KEEP]
    assert used(chain, None, None, Outcome.RATE_LIMITED) == [KEEP]


def test_a_reported_cost_beats_the_price():
    """Without price and cost the money stays as reserved."""
    assert used(policy(MONEY, PRICE), USAGE, 0.5, Outcome.SUCCESS) == [500_000]
    assert used(policy(MONEY, PRICE), None, 0.5, Outcome.TIMEOUT) == [500_000]
    assert used(policy(MONEY), USAGE, None, Outcome.SUCCESS) == [KEEP]
    priced = used(policy(MONEY, PRICE), USAGE, None, Outcome.SUCCESS)
    assert priced == [50 * 2 + 40 * 0.5 + 10 * 2 + 30 * 10]


def test_an_expectation_follows_what_is_settled():
    """Nothing is known below five answers; later ones move it, old resources are forgotten."""
    expectation = Expectation(most=2)
    for _ in range(4):
        expectation.learn("p/m", 100)
        assert expectation.expected("p/m") is None
    expectation.learn("p/m", 100)
    assert expectation.expected("p/m") == 100
    for _ in range(40):
        expectation.learn("p/m", 500)
    settled = expectation.expected("p/m")
    assert settled is not None
    assert 490 < settled <= 500
    expectation.learn("p/a", 1)
    expectation.learn("p/b", 1)
    assert expectation.expected("p/m") is None
