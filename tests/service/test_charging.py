"""What a call costs each limit: reserved when it asks, corrected when it settles."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_service.config import parse
from limiter_service.engine.charging import (
    NOT_SERVED,
    PriceMissing,
    components,
    cost,
    micro_dollars,
    reserve,
    used,
)
from limiter_service.engine.policy import Policies, Policy
from limiter_service.prices import LongPrice, PriceConfig
from limiter_service.store.messages import KEEP
from limiter_wire import Acquire, Outcome, Provenance, Usage

COUNTS = st.integers(0, 10**9)


def policy(limits: str, prices: str = "{}") -> Policy:
    """The chain of p/m with these limits on the model."""
    pool = f"{{models: {{m: {{{limits}}}}}, prices: {prices}, cost_in_requests: true}}"
    config = parse(f"pools: {{p: {pool}}}", ".yaml")
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


@pytest.mark.parametrize(
    ("rule", "meter", "fields", "held"),
    [
        ("weights: {cache_read: 0}", "input_tokens", {"cache_read_tokens": 600}, 400),
        (
            "weights: {cache_read: 0.5, cache_write: 2}",
            "input_tokens",
            {"cache_read_tokens": 600, "cache_write_tokens": 100},
            800,
        ),
        ("weights: {cache_read: 0}", "tokens", {"cache_read_tokens": 600}, 440),
        ('reserve: "unweighted(input, max_output)", weights: {cache_read: 0}', "tokens",
         {"cache_read_tokens": 600}, 1040),
        ("weights: {output: 1, reasoning: 3}", "tokens", {}, 1120),
        ("weights: {output: 0, reasoning: 0}", "tokens", {}, 1000),
    ],
)  # fmt: skip
def test_a_reservation_weighs_what_is_known_of_the_input(
    rule: str, meter: str, fields: dict[str, int], held: int
):
    """Cached parts by their weights; an answer may be all reasoning."""
    request = asked(input_tokens=1000, max_output_tokens=40, **fields)
    assert reserve(policy(limit(rule, meter)), request, None) == [held]


def test_without_a_bound_an_answer_is_expected_to_be_as_usual():
    """Only rules that go by what is expected know better than nothing."""
    request = asked(input_tokens=30)
    for rule, held in (("input + expected_output", 42), ("sum(input, max_output)", 30)):
        assert reserve(policy(limit(f'reserve: "{rule}"')), request, 12) == [held]
    assert reserve(policy(limit("reserve: expected_output")), request, 12) == [12]


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


@pytest.mark.parametrize(
    ("rule", "fields", "held"),
    [
        ("", {"max_output_tokens": 100}, 3000),
        ("", {}, 2000 + 70),  # no bound: the usual size
        ('reserve: "input + expected_output"', {"max_output_tokens": 100}, 2000 + 70),
        ("reserve: input", {"max_output_tokens": 100}, 2000),
        ("", {"max_output_tokens": 0, "cache_read_tokens": 800}, 400 + 400),
    ],
)
def test_money_is_held_by_the_rule_of_its_limit(rule: str, fields: dict[str, int], held: int):
    """By default what the call may cost at most, as far as it is bounded."""
    request = asked(input_tokens=1000, **fields)
    assert reserve(policy(limit(rule, "cost_usd"), PRICE), request, 7) == [held]


def test_reasoning_may_have_a_price_of_its_own():
    """Without one it costs as output, whatever else is in it."""
    usage = Usage(output_tokens=100, reasoning_tokens=60)
    assert micro_dollars(PriceConfig(input=0, output=10), usage) == 1000
    assert micro_dollars(PriceConfig(input=0, output=10, reasoning=2), usage) == 400 + 120


def test_long_inputs_have_prices_of_their_own():
    """All of the request then costs so much, from the first token above the bound."""
    dear = PriceConfig(input=2, output=10, long=LongPrice(above=1000, input=4, output=15))
    for tokens, price in ((1000, 2000 + 100), (1001, 4004 + 150)):
        usage = Usage(input_tokens=tokens, output_tokens=10)
        assert micro_dollars(dear, usage) == price


@given(*[COUNTS] * 3, *[st.decimals(0, 1000, places=4)] * 3)
def test_money_is_whole_millionths_of_a_dollar(
    given_in: int, read: int, given_out: int, of_input: Decimal, of_read: Decimal, of_out: Decimal
):
    """Never less than the exact sum, and less than two millionths more (of large sums, what
    a double holds).
    """
    price = PriceConfig(input=float(of_input), output=float(of_out), cache_read=float(of_read))
    usage = Usage(input_tokens=given_in + read, cache_read_tokens=read, output_tokens=given_out)
    exact = given_in * of_input + read * of_read + given_out * of_out
    found = micro_dollars(price, usage)
    assert exact * (1 - Decimal("1e-14")) - Decimal("1e-6") <= found
    assert found <= exact * (1 + Decimal("1e-14")) + 2


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
