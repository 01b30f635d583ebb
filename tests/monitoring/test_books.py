"""What is written down at once and told to the books later: figures are those of each call."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from limiter_service.config import parse
from limiter_service.engine import counting as kinds
from limiter_service.engine.books import MOST, MOST_PAGES, Books
from limiter_service.engine.counting import Counting
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.shape import Taken
from limiter_service.engine.tally import MOST_RESOURCES
from limiter_service.engine.witness import Witness
from limiter_service.metrics import Metrics
from limiter_service.store.errors import StoreUnavailable
from limiter_wire import (
    Acquire,
    BlockReport,
    Ended,
    ErrorCode,
    Granted,
    Outcome,
    Provenance,
    Settle,
    Settled,
    Usage,
    problem,
)

CONFIG = """
pools:
  p: {models: {"*": {rpm: 1000}}, tenants: {team: {weight: 2}}}
"""
Event = Callable[[Books], None]


class Store:
    """Hears counts, by level and name, unless it is away."""

    def __init__(self) -> None:
        self.heard: Counter[tuple[int, int, str, Any]] = Counter()
        self.away = False
        self.meanwhile: list[Callable[[], None]] = []
        """What happens while it is told something: one thing each time."""

    async def count(self, _key: Any, _tag: float, news: Any, rings: tuple[int, int]) -> None:
        """Add them up."""
        if self.meanwhile:
            self.meanwhile.pop()()
        if self.away:
            raise StoreUnavailable("away")
        for level, name, _, pairs in news:
            for what, much in zip(pairs[::2], pairs[1::2], strict=True):
                self.heard[rings[0], level, name, what] += much


class Replica:
    """The books of a replica, and all that reads them."""

    def __init__(self) -> None:
        self.store = Store()
        self.policies = Policies(parse(CONFIG, ".yaml"), "sg:")
        self.counting = Counting(self.store, "sg:")  # type: ignore[arg-type]  # its only method
        self.books = Books(self.counting)
        self.tally = self.books.tally
        witness = Witness(None, list, "sg:", self.tally.name)  # type: ignore[arg-type]  # asks nobody
        self.metrics = Metrics(self.tally, witness, lambda: self.policies.tenants)
        self.books.tell(self.metrics)

    def policy(self, model: str = "m0", tenant: str = "default") -> Policy:
        """The policy of a model."""
        return self.policies.policy(f"p/{model}", tenant)

    def grant(self, model: str = "m0", tenant: str = "default", took: float = 0.25) -> None:
        """An ordinary grant."""
        self.books.answered(asked(model, tenant), taken(self.policy(model)), took)

    def settle(self, model: str = "m0", **report: Any) -> None:
        """A settle that moves nothing."""
        self.books.settled(self.policy(model), Settle(lease="x", **report), Settled())

    async def figures(self) -> tuple[set[str], Counter[Any], Counter[Any], Counter[Any]]:
        """All that can be read of them."""
        await self.counting.flush()
        text = self.metrics.render([]).decode()
        lines = {each for each in text.splitlines() if each.startswith("sluicegate_")}
        return lines, +self.store.heard, self.tally.decisions, self.tally.reports


def asked(model: str, tenant: str) -> Acquire:
    """An acquire."""
    return Acquire(resource=f"p/{model}", tokens=100, tenant=tenant)


def taken(policy: Policy, tokens: int = 100) -> Taken:
    """An ordinary grant of so many tokens."""
    assert policy.shape is not None
    charged: dict[str, float] = {"requests": 1, "tokens": tokens}
    told = b"\x82\xa8requests\x01\xa6tokens" + bytes([tokens])
    return Taken(policy.shape, "x", 60.0, charged, told, (1.0,) * policy.shape.length, 0)


def events(luck: random.Random, count: int, policies: Policies) -> list[Event]:
    """Calls of every kind, in any order; all numbers are such that sums of them are exact."""
    return [_event(luck, policies) for _ in range(count)]


def _event(luck: random.Random, policies: Policies) -> Event:
    model, tenant = f"m{luck.randrange(5)}", luck.choice(["team", "default", "else"])
    policy, request = policies.policy(f"p/{model}", tenant), asked(model, tenant)
    took, seconds = luck.randrange(2048) / 1024, luck.randrange(1, 100_000) / 1024
    sizes = luck.randrange(100), luck.randrange(50), luck.choice([0, 0, 7]), luck.choice([0, 3])
    usage = Usage(
        input_tokens=sizes[0], output_tokens=sizes[1], cache_read_tokens=sizes[2],
        reasoning_tokens=sizes[3], provenance=luck.choice([*Provenance]),
    )  # fmt: skip
    outcome, cost = luck.choice([*Outcome]), luck.choice([None, None, 0.25])
    moved = Settled(
        refunded=luck.choice([{}, {"tokens": 20}, {"input_tokens": 3, "output_tokens": 4}]),
        debited=luck.choice([{}, {"tokens": 7, "requests": 1}]),
    )
    match luck.randrange(8):
        case 0 | 1:
            grant = taken(policy, luck.choice([50, 100]))
            return lambda books: books.answered(request, grant, took)
        case 2:
            answer = Granted(
                lease="x", expires_in=1, limits=[], charged={"tokens": 8, "cost_usd": 0.5},
                waited=luck.choice([0.0, 2.0]), settled=luck.choice([True, False]),
            )  # fmt: skip
            return lambda books: books.answered(request, answer, took)
        case 3 | 4:
            report = Settle(
                lease="x", outcome=outcome, usage=luck.choice([None, usage]), cost_usd=cost,
                latency=luck.choice([None, seconds]), ttft=luck.choice([None, seconds / 64]),
                estimated_input_tokens=luck.choice([None, 64.0]),
            )  # fmt: skip
            told = luck.choice([moved, moved, None])
            return lambda books: books.settled(policy, report, told)
        case 5:
            code = luck.choice([ErrorCode.RATE_LIMITED, ErrorCode.WAIT_TIMEOUT])
            refusal = problem(code, "no", resource=policy.resource, limit="rpm")
            return lambda books: books.refused(request, refusal, took)
        case 6:
            part = Ended(
                outcome=outcome, calls=luck.randrange(1, 50), usage=usage, cost_usd=cost,
                latencies=[seconds, seconds / 2], ttfts=[seconds / 8], told=luck.random() < 0.2,
            )  # fmt: skip
            block = BlockReport(number=1, stage="ended", ended=[part])
            return lambda books: books.ended(policy, "x", block)
        case _:
            block_of = Granted(lease="x", expires_in=1, limits=[], charged={"tokens": 800})

            def lend_and_move(books: Books) -> None:
                books.lent(request, block_of)
                books.moved(policy, moved)

            return lend_and_move


@pytest.mark.parametrize("seed", range(6))
async def test_figures_are_the_same_however_late_they_are_told(seed: int):
    """Those of metrics, of the fleet and of the tally: told after each call, sometimes, at last."""
    luck, at_once, sometimes, at_last = random.Random(seed), Replica(), Replica(), Replica()
    for event in events(luck, 3 * MOST // 2, at_once.policies):
        event(at_once.books)
        at_once.books.catch_up()
        event(sometimes.books)
        if luck.random() < 0.01:
            await sometimes.figures()
        event(at_last.books)
    expected = await at_once.figures()
    assert await sometimes.figures() == expected
    assert await at_last.figures() == expected
    assert await at_last.figures() == expected  # and nothing is told twice


async def test_what_a_call_says_is_in_every_book():
    """Counted by hand."""
    replica = Replica()
    for _ in range(3):
        replica.grant("m1", "team")
    usage = Usage(input_tokens=60, output_tokens=20, cache_read_tokens=10, reasoning_tokens=5)
    moved = Settled(refunded={"tokens": 20}, debited={"requests": 2})
    report = Settle(
        lease="x", usage=usage, latency=2, ttft=0.5, estimated_input_tokens=30, cost_usd=0.25
    )
    policy = replica.policy("m1", "team")
    for _ in range(2):
        replica.books.settled(policy, report, moved)
    replica.books.settled(policy, replace(report, outcome=Outcome.RATE_LIMITED))  # too late
    again = replace(taken(policy).granted(), settled=True)
    replica.books.answered(asked("m1", "team"), again, 0.25)
    lines, heard, decisions, reports = await replica.figures()
    assert decisions == {("p/m1", "granted", "", ""): 4}
    assert reports == {("p/m1", Outcome.SUCCESS): 2}
    ours = {what: much for (ring, level, _, what), much in heard.items() if (ring, level) == (1, 3)}
    bins = {what: much for what, much in ours.items() if isinstance(what, int) and what >= 1000}
    assert {what: much for what, much in ours.items() if what not in bins} == {
        kinds.GRANTED: 4, kinds.RESERVED: 400, kinds.CALLS: 3,
        f"{kinds.OUTCOME}success": 2, f"{kinds.OUTCOME}rate_limited": 1,
        kinds.INPUT: 180, kinds.OUTPUT: 60, kinds.CACHED: 30, kinds.REASONING: 15,
        kinds.MICRO_DOLLARS: 750_000, kinds.REFUNDED: 40,
    }  # fmt: skip
    assert sorted(bins.values()) == [3, 3]
    assert {
        'sluicegate_reserved_total{meter="tokens",resource="p/m1"} 300.0',
        'sluicegate_refunded_total{meter="tokens",resource="p/m1"} 40.0',
        'sluicegate_debited_total{meter="requests",resource="p/m1"} 4.0',
        'sluicegate_tokens_total{direction="input",resource="p/m1"} 180.0',
        'sluicegate_tenant_decisions_total{code="granted",tenant="team"} 4.0',
        'sluicegate_tenant_cost_usd_total{resource="p/m1",tenant="team"} 0.75',
        'sluicegate_acquire_seconds_bucket{answer="granted",le="0.1"} 0.0',
        'sluicegate_acquire_seconds_bucket{answer="granted",le="0.25"} 4.0',
        'sluicegate_acquire_seconds_sum{answer="granted"} 1.0',
        'sluicegate_provider_latency_seconds_sum{resource="p/m1"} 6.0',
        'sluicegate_provider_ttft_seconds_bucket{le="0.5",resource="p/m1"} 3.0',
        'sluicegate_estimate_ratio_sum{resource="p/m1"} 6.0',
        'sluicegate_provider_rate_limited_total{resource="p/m1"} 1.0',
    } <= lines


async def test_whoever_reads_reads_all():
    """Each by itself, and what came after the last time."""
    replica = Replica()
    for nth in (1, 2):
        replica.grant()
        assert replica.tally.decisions["p/m0", "granted", "", ""] == nth
    for nth in (1, 2):
        replica.settle()
        assert replica.tally.reports["p/m0", Outcome.SUCCESS] == nth
    for nth in (3, 4):
        replica.grant()
        assert f'resource="p/m0"}} {nth}00.0' in replica.metrics.render([]).decode()
    for nth in (5, 6):
        replica.grant()
        await replica.counting.flush()
        assert replica.store.heard[1, 1, "", kinds.GRANTED] == nth
    replica.grant()
    reserved = {each.name: each for each in replica.metrics.families()}["sluicegate_reserved"]
    assert {each.value for each in reserved.samples} == {7, 700}
    await replica.counting.aclose()


async def test_what_is_written_down_is_told_before_the_end():
    """A replica that is stopped has told the store of all its calls."""
    replica = Replica()
    replica.grant()
    replica.settle()
    await replica.counting.aclose()
    assert replica.store.heard[1, 1, "", kinds.GRANTED] == 1
    assert replica.store.heard[2, 1, "", kinds.CALLS] == 1


async def test_what_is_written_down_reaches_the_store_though_nobody_reads():
    """The first grant after a report sets its timer, and so does a settle."""
    for write in (Replica.grant, Replica.settle):
        replica = Replica()
        for _ in range(2):
            write(replica)
            assert replica.counting._timer is not None
            replica.counting._timer.cancel()
            replica.counting._begin()
            await asyncio.gather(*replica.counting._errands)
            if replica.counting._timer is not None:  # the coarse figures are not due
                replica.counting._timer.cancel()
                replica.counting._timer = None
        assert replica.store.heard[1, 1, "", kinds.GRANTED] + replica.store.heard[
            1, 1, "", kinds.CALLS
        ] == 2  # fmt: skip
        await replica.counting.aclose()


async def test_without_a_store_nothing_is_lost_and_little_waits():
    """What the store did not hear it hears when it is back, once."""
    replica = Replica()
    replica.store.away = True
    for _ in range(3):
        replica.grant()
        assert not await replica.counting.flush()
        assert replica.books._written == 0
    replica.store.away = False
    assert await replica.counting.flush()
    assert replica.store.heard[1, 1, "", kinds.GRANTED] == 3
    await replica.counting.aclose()


async def test_what_is_written_down_while_the_store_is_told_is_told_next():
    """Also where an older report goes first."""
    replica = Replica()
    replica.grant()
    replica.store.meanwhile = [replica.grant, partial(setattr, replica.store, "away", True)]
    assert not await replica.counting.flush()
    replica.store.away = False
    assert await replica.counting.flush()
    assert replica.books._written == 0
    assert replica.store.heard[1, 1, "", kinds.GRANTED] == 2
    await replica.counting.aclose()


@pytest.mark.parametrize("models", [1, 40, 2 * MOST_PAGES])
def test_what_nobody_reads_is_bounded(models: int):
    """However many calls there are, and names; with nobody to tell but the tally, too."""
    books, policies = Books(), Policies(parse(CONFIG, ".yaml"), "sg:")
    grant = taken(policies.policy("p/m", "default"))
    report = Settle(lease="x", latency=1)
    for i in range(3 * MOST):
        model = f"m{i % models}"
        books.answered(asked(model, "default"), grant, 0.1)
        books.settled(policies.policy(f"p/{model}", "default"), report, Settled())
        assert len(books._took) + sum(len(e.latencies) for e in books._ends.values()) <= MOST
        assert len(books._grants) + len(books._ends) <= MOST_PAGES
    assert sum(books.tally.decisions.values()) == sum(books.tally.reports.values()) == 3 * MOST


def test_names_go_to_those_who_come_first():
    """Also where another is refused before the books are told of the grants."""
    books, policies = Books(), Policies(parse(CONFIG, ".yaml"), "sg:")
    grant = taken(policies.policy("p/m", "default"))
    for i in range(MOST_RESOURCES):
        books.answered(asked(f"m{i}", "default"), grant, 0.1)
    refusal = problem(ErrorCode.RATE_LIMITED, "no", resource="p/late")
    books.refused(asked("late", "default"), refusal, 0.1)
    assert books.tally.decisions["*", "rate_limited", "", ""] == 1
    assert books.tally.decisions[f"p/m{MOST_RESOURCES - 1}", "granted", "", ""] == 1
