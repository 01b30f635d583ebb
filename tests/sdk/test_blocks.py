"""Blocks that a process holds: the arithmetic, against a ledger that is kept beside it."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client_sdk.blocks import Ask, Block, Ending, Stock, Tell, plain_size
from limiter_wire import (
    BlockReport,
    Cause,
    Granted,
    Lent,
    LimitState,
    Meter,
    Outcome,
    Provenance,
    Usage,
)

HOLD, TTL = 4.0, 60.0


def granted(calls: int, tokens: int, name: str = "lease", *, plain: bool = True) -> Granted:
    """The answer to who has asked for a block."""
    lent = Lent(calls=calls, tokens=tokens, hold=HOLD, plain=plain)
    return Granted(lease=name, expires_in=TTL, charged={}, limits=[], block=lent)


def stock(most: int = 100) -> Stock:
    """One that nobody listens to."""
    return Stock("p/m", "default", most, lambda: None)


def busy(most: int = 100) -> Stock:
    """One with a rate of about fifty calls a second, of 10 tokens each."""
    made = stock(most)
    for i in range(100):
        made.take(10, i / 50)
    return made


def used(tokens: int) -> Usage:
    """A usage of so many tokens, half of it answer."""
    return Usage(input_tokens=tokens - tokens // 2, output_tokens=tokens // 2)


class Ledger(RuleBasedStateMachine):
    """Calls, answers and losses in any order; the service's side is a few sums per block."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.stock = stock()
        self.charged: dict[str, tuple[int, int]] = {}
        self.handed: Counter[str] = Counter()
        self.spent: Counter[str] = Counter()
        self.news: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.under_way: list[tuple[Block, int]] = []
        self.asked: Ask | None = None
        self.telling: list[tuple[Tell, BlockReport, object]] = []
        self.ended: set[str] = set()
        self.names = 0

    @rule(tokens=st.integers(1, 30))
    def take(self, tokens: int) -> None:
        block = self.stock.take(tokens, self.now)
        if block is not None:
            assert self.now < block.until, "handed out after its time"
            assert not block.retired
            assert block.lease not in self.ended
            self.handed[block.lease] += 1
            self.under_way.append((block, tokens))

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 1000), part=st.floats(0, 1), data=st.data())
    def end(self, which: int, part: float, data: st.DataObject) -> None:
        block, tokens = self.under_way.pop(which % len(self.under_way))
        outcome = data.draw(st.sampled_from([Outcome.SUCCESS, Outcome.TIMEOUT]))
        amount = int(tokens * part)
        known = data.draw(st.booleans())
        usage = used(amount) if known else None
        if usage is not None and outcome is Outcome.SUCCESS and data.draw(st.booleans()):
            block.end_well(tokens, usage)
        else:
            block.end(tokens, Ending(outcome=outcome, usage=usage))
        self.spent[block.lease] += amount if known else tokens

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def look(self) -> None:
        for each in list(self.stock.errands(self.now)):
            if isinstance(each, Ask):
                assert self.asked is None, "one question at a time"
                assert 2 <= each.calls <= 100
                self.asked = each
            else:
                report = each.block.report(each.stage)
                self.telling.append((each, report, each.block.sent()))

    @precondition(lambda self: self.asked)
    @rule(answer=st.sampled_from(["lent", "fewer", "scarce", "waiters"]))
    def answer(self, answer: str) -> None:
        assert self.asked is not None
        calls, tokens, self.asked = self.asked.calls, self.asked.tokens, None
        if answer in {"scarce", "waiters"}:
            self.stock.refused(answer, 0.5, self.now)
            if answer == "waiters":
                assert self.stock.take(1, self.now) is None, "held back while others wait"
            return
        calls = calls if answer == "lent" else 2
        self.names += 1
        name = f"lease{self.names}"
        self.charged[name] = calls, calls * tokens
        self.stock.lent(granted(calls, calls * tokens, name), self.now, self.now)

    @precondition(lambda self: self.telling)
    @rule(arrives=st.booleans())
    def hear(self, arrives: bool) -> None:
        told, report, sent = self.telling.pop(0)
        if not arrives:
            told.block.unheard(sent, self.now)  # type: ignore[arg-type]  # what it has given
            return
        name = told.block.lease
        assert name not in self.ended, "a block ends once"
        assert report.number >= 1
        self.news[name] += sum(each.calls for each in report.ended if not each.told)
        if report.stage != "holding":
            calls = report.calls + sum(each.calls for each in report.ended)
            tokens = report.tokens + sum(_stays(each) for each in report.ended)
            before = self.charged[name]
            assert calls <= before[0], "more stays than was charged"
            assert tokens <= before[1], "more stays than was charged"
            self.charged[name] = calls, tokens
        told.block.heard(sent, self.now)  # type: ignore[arg-type]  # as above
        if report.stage == "ended":
            self.kept[name] = report.calls
            self.ended.add(name)
            self.stock.forget(told.block)

    @rule()
    def recall(self) -> None:
        self.stock.recall(self.now)
        assert self.stock.take(1, self.now) is None

    @invariant()
    def nothing_is_handed_out_that_is_not_charged(self) -> None:
        held: Counter[str] = Counter()
        for block, tokens in self.under_way:
            held[block.lease] += tokens
        for name, (calls, tokens) in self.charged.items():
            if name not in self.ended:
                assert self.handed[name] <= calls
                assert self.spent[name] + held[name] <= tokens

    def teardown(self) -> None:
        """Closed, everything ends, and every call that is over was told of exactly once."""
        while self.telling:
            self.hear(arrives=True)
        self.stock.close(self.now)
        for _ in range(3):
            self.look()
            while self.telling:
                self.hear(arrives=True)
        assert self.stock.blocks() == []
        assert self.ended == self.charged.keys()
        for name in self.charged:
            assert self.charged[name][0] == self.handed[name]
            assert self.news[name] == self.handed[name] - self.kept[name], "each is told once"


def _stays(each: object) -> int:
    """What the service leaves charged for calls that have ended alike."""
    usage, tokens = each.usage, each.tokens  # type: ignore[attr-defined]  # Ended
    return tokens if usage is None else usage.input_tokens + usage.output_tokens


Ledger.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedger = Ledger.TestCase


def test_a_block_is_asked_for_when_calls_come_often():
    """As many calls as come in half the time for which it may be held."""
    made = busy()
    (ask,) = made.errands(2.0)
    assert isinstance(ask, Ask)
    assert 25 <= ask.calls <= 60
    assert ask.tokens == 10
    assert list(made.errands(2.0)) == []


def test_who_calls_seldom_holds_nothing():
    """Of one call every two seconds there is nothing to hand out."""
    made = stock()
    for i in range(20):
        assert made.take(10, 2.0 * i) is None
        assert list(made.errands(2.0 * i)) == []


def test_a_block_is_never_larger_than_prefetch():
    """However many calls come."""
    (ask,) = busy(most=7).errands(2.0)
    assert isinstance(ask, Ask)
    assert ask.calls == 7


@pytest.mark.parametrize(("left", "calls"), [(1.0, 100), (0.5, 50), (0.0, 0)])
def test_a_block_is_smaller_where_little_is_left(left: float, calls: int):
    """By the limit of which the least is left; shadows do not count."""
    made = stock(most=1000)
    for _ in range(100):
        made.take(10, 1.0)
    level = LimitState(name="l", meter=Meter.TOKENS, limit=10, remaining=10 * left, reset_after=0)
    shadow = LimitState(
        name="s", meter=Meter.TOKENS, limit=10, remaining=0, reset_after=0, shadow=True
    )
    made.saw([level, shadow])
    assert made.wanted(1.0) == calls


def test_the_next_block_is_asked_for_before_the_last_is_spent():
    """When a quarter is left, and calls go on without a break when it comes."""
    wakes: list[int] = []
    made = Stock("p/m", "default", 100, lambda: wakes.append(1))
    for i in range(100):
        made.take(10, i / 50)
    list(made.errands(2.0))
    made.lent(granted(40, 400, "first"), 2.0, 2.0)
    wakes.clear()
    for _ in range(29):
        assert made.take(10, 2.1) is not None
    assert wakes == []
    assert made.take(10, 2.1) is not None
    assert wakes == [1]
    (ask,) = made.errands(2.1)
    assert isinstance(ask, Ask)
    made.lent(granted(40, 400, "second"), 2.1, 2.1)
    leases = [block.lease for _ in range(50) if (block := made.take(10, 2.2)) is not None]
    assert leases == ["first"] * 10 + ["second"] * 40


def test_what_a_call_has_left_over_is_handed_out_again():
    """Its tokens, not its request."""
    made = stock()
    made.lent(granted(10, 20), 0.0, 0.0)
    for _ in range(10):
        block = made.take(20, 1.0)
        assert block is not None
        block.end_well(20, used(0))
    assert made.take(1, 1.0) is None


@pytest.mark.parametrize("plain", [True, False])
def test_where_tokens_weigh_differently_nothing_is_handed_out_twice(plain: bool):
    """But what a call has used beyond its reservation is taken all the same."""
    made = stock()
    made.lent(granted(10, 100, plain=plain), 0.0, 0.0)
    block = made.take(50, 1.0)
    assert block is not None
    block.end_well(50, used(10))
    assert block.tokens == (90 if plain else 50)
    block = made.take(50, 1.0)
    assert block is not None
    block.end(50, Ending(usage=used(80)))
    assert block.tokens == (10 if plain else -30)


def test_a_call_that_says_what_it_cost_leaves_nothing_to_hand_out():
    """Nobody here knows what its tokens were worth."""
    made = stock()
    made.lent(granted(10, 100), 0.0, 0.0)
    block = made.take(50, 1.0)
    assert block is not None
    block.end(50, Ending(usage=used(10), cost_usd=0.1))
    assert block.tokens == 50
    (ended,) = block.report("holding").ended
    assert ended.cost_usd == pytest.approx(0.1)


def test_a_failure_is_told_at_once():
    """While the block goes on; a success waits for company."""
    made = stock()
    made.lent(granted(10, 100), 0.0, 0.0)
    first, second = made.take(10, 0.1), made.take(10, 0.1)
    assert first is second is not None
    first.end_well(10, used(5))
    assert first.wants(0.2) is None
    first.end(10, Ending(outcome=Outcome.SERVER_ERROR, retry_after=3.0))
    assert first.wants(0.2) == "holding"
    report = first.report("holding")
    assert sorted((each.outcome, each.calls, each.retry_after) for each in report.ended) == [
        (Outcome.SERVER_ERROR, 1, 3.0),
        (Outcome.SUCCESS, 1, None),
    ]


def test_calls_that_last_are_told_of_before_their_lease_expires():
    """They keep what they have reserved, and the block ends without them."""
    made = stock()
    made.lent(granted(10, 100), 0.0, 0.0)
    block = made.take(10, 0.1)
    assert block is not None
    assert block.wants(HOLD) is None
    list(made.errands(HOLD))
    assert block.wants(HOLD) == "returned"
    block.report("returned")
    block.heard(block.sent(), HOLD)
    assert block.wants(TTL - 5.1) is None
    assert block.wants(TTL - 4.9) == "ended"
    report = block.report("ended")
    assert (report.calls, report.tokens, report.ended) == (1, 10, [])


def test_the_times_of_calls_are_told_up_to_a_number():
    """A report has its size, and the figures are about many calls anyway."""
    made = stock()
    made.lent(granted(5000, 50_000), 0.0, 0.0)
    for _ in range(5000):
        block = made.take(10, 0.1)
        assert block is not None
        block.end(10, Ending(usage=used(5), latency=1.0, ttft=0.1))
    (ended,) = block.report("holding").ended
    assert (ended.calls, len(ended.latencies), len(ended.ttfts)) == (5000, 2000, 2000)


def test_failures_are_told_apart_up_to_a_number():
    """Beyond that their messages are left out; how many there were is not."""
    made = stock()
    made.lent(granted(500, 5000), 0.0, 0.0)
    for digest in range(500):
        block = made.take(10, 0.1)
        assert block is not None
        cause = Cause(refund="all", digest=digest)
        block.end(10, Ending(outcome=Outcome.CONNECTION, cause=cause))
    report = block.report("holding")
    assert len(report.ended) <= 256
    assert sum(each.calls for each in report.ended) == 500


def test_usage_that_nobody_knows_is_no_usage():
    """The reservation stands."""
    made = stock()
    made.lent(granted(10, 100), 0.0, 0.0)
    block = made.take(10, 0.1)
    assert block is not None
    block.end(10, Ending(usage=Usage(provenance=Provenance.UNKNOWN)))
    (ended,) = block.report("ended").ended
    assert (ended.usage, ended.tokens, block.tokens) == (None, 10, 0)


def test_nobody_asks_while_he_is_told_to_rest():
    """A refusal says when asking may make sense again."""
    made = busy()
    list(made.errands(2.0))
    made.refused("scarce", 1.0, 2.0)
    made.take(10, 2.5)
    assert list(made.errands(2.5)) == []
    for _ in range(50):
        made.take(10, 3.1)
    assert [type(each) for each in made.errands(3.1)] == [Ask]


@settings(max_examples=200, deadline=None)
@given(rate=st.floats(0.1, 5000), most=st.integers(2, 10_000))
def test_the_size_follows_the_rate(rate: float, most: int):
    """At a steady rate a block is what comes in about a second, within the bound."""
    made = stock(most)
    count = min(2000, max(3, int(rate * 4)))
    for i in range(count):
        made.take(10, i / rate)
    wanted = made.wanted((count - 1) / rate)
    assert wanted <= most
    assert wanted <= math.ceil(rate) + 1


@pytest.mark.parametrize(
    ("sizes", "plain"),
    [
        ((10, None, None), 10),
        ((None, 10, 5), 15),
        ((None, 10, None), None),
        ((10, None, 5), None),
        ((10, 10, 5), None),
        ((None, None, None), None),
        ((0, None, None), None),
        ((None, 10, -1), None),
    ],
)
def test_only_a_plain_size_is_taken_of_a_block(
    sizes: tuple[int | None, int | None, int | None], plain: int | None
):
    """What the service has to look at it is asked."""
    assert plain_size(*sizes) == plain


def test_a_wake_is_all_that_a_stock_does_by_itself():
    """Whoever listens looks at its errands when it has called."""
    calls: list[Callable[[], None]] = []
    made = Stock("p/m", "default", 100, lambda: calls.append(print))
    for i in range(10):
        made.take(10, i / 50)
    assert calls
