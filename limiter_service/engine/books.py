"""What calls have cost, how fast budgets go, and what shadow limits would have done.

Figures for /v1/stats, /v1/resources and metrics. Losing them loses no limit.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from limiter_service.engine import counting
from limiter_service.engine.answers import scopes_of
from limiter_service.engine.costs import Pace, dollars_of
from limiter_service.engine.counting import OUTCOME, REFUSED, Counting, Sums, note_time
from limiter_service.engine.levels import Level, read
from limiter_service.engine.policy import Policy
from limiter_service.engine.shape import Taken
from limiter_service.engine.statistics import Wait
from limiter_service.engine.trials import Trials, judge
from limiter_service.engine.unsettled import Unsettled
from limiter_wire import (
    Acquire,
    BlockReport,
    BudgetView,
    Ended,
    ErrorCode,
    Granted,
    Outcome,
    Problem,
    Provenance,
    Settle,
    Settled,
    TrialStats,
    TrialVerdict,
    Usage,
)

_UNKNOWN = Provenance.UNKNOWN
_OUTCOMES = {outcome: OUTCOME + outcome for outcome in Outcome}


class Reports(Protocol):
    """Who wants to hear of it: metrics."""

    def differs(self, limits: Iterable[str], difference: str) -> None:
        """Shadow limits that would have answered otherwise."""

    def answered(self, request: Acquire, answer: Granted | Taken | Problem, took: float) -> None:
        """An acquire that was granted or refused, *took* seconds after it was asked for."""

    def settled(
        self,
        policy: Policy,
        report: Settle,
        usage: Usage | None,
        dollars: float | None,
        answer: Settled | None,
    ) -> None:
        """A call that was settled, and what that has moved; None after its lease had expired."""

    def lent(self, resource: str, charged: dict[str, float]) -> None:
        """A block that was lent, and what it was charged."""

    def ended(
        self, policy: Policy, calls: Ended, usage: Usage | None, dollars: float | None
    ) -> None:
        """Calls of a block that have ended alike."""

    def moved(self, resource: str, answer: Settled) -> None:
        """What came back of a block, or had to be added."""

    def expired_unsettled(self, resource: str) -> None:
        """A lease that nobody has settled in time."""

    def budgets(self, pool: str, views: Iterable[BudgetView]) -> None:
        """Budgets as they stand."""


class Books:
    """The books of one replica."""

    def __init__(
        self, counting: Counting | None = None, unsettled: Unsettled | None = None
    ) -> None:
        self._reports: Reports | None = None
        self._counting, self._unsettled = counting, unsettled
        self._pace, self._trials = Pace(), Trials()

    def tell(self, reports: Reports) -> None:
        """Let *reports* hear of everything from now on."""
        self._reports = reports

    def taken(self, policy: Policy, lease: Sequence[float], answer: Granted) -> None:
        """Take in a grant, and the levels just after it."""
        if policy.has_budgets:
            self._pace.note(policy, read(lease, *scopes_of(lease))[0])
        self.granted(policy, answer)

    def passed(self, policy: Policy, lease: Sequence[float]) -> None:
        """The same of a grant that has a shape: all shadows had room."""
        if policy.has_budgets and policy.shape is not None:
            self._pace.note_spent(policy.shape.budgets(lease))
        if policy.template.watches:
            self._trials.granted(policy, ())

    def granted(self, policy: Policy, answer: Granted) -> None:
        """Take in a grant: shadows without room would have refused it."""
        if policy.shadows:
            refused = [limit.name for limit in answer.limits if limit.refused]
            self._differ(self._trials.granted(policy, refused), "would_refuse")

    def denied(self, policy: Policy, amounts: Sequence[float], levels: Sequence[Level]) -> None:
        """Take in a refusal, or a wait: shadows might have let it pass."""
        if policy.shadows:
            trial = judge(policy, amounts, levels)
            self._differ(self._trials.denied(policy, trial), "would_grant")

    def answered(self, request: Acquire, answer: Granted | Taken, took: float) -> None:
        """Take in a grant as it is answered, *took* seconds after it was asked for."""
        if self._counting is not None:
            sums = self._counting.at(request.resource, request.tenant)
            sums[counting.GRANTED] += 1
            sums[counting.RESERVED] += _tokens(answer.charged)
        if self._unsettled is not None and not answer.settled:
            self._unsettled.granted(answer.lease, answer.expires_in)
        if self._reports is not None:
            self._reports.answered(request, answer, took)

    def refused(self, request: Acquire, answer: Problem, took: float) -> None:
        """Take in a refusal as it is answered."""
        # What is not configured has no name: callers could make up any.
        if self._counting is not None and answer.code is not ErrorCode.UNKNOWN_RESOURCE:
            self._counting.at(request.resource, request.tenant)[REFUSED + answer.code] += 1
        if self._reports is not None:
            self._reports.answered(request, answer, took)

    def waited(self, wait: Wait) -> None:
        """Take in a wait that ended with a grant."""
        if self._counting is not None:
            sums = self._counting.at(wait.resource, wait.tenant)
            note_time(sums, counting.WAIT, wait.waited)
            sums[counting.FORECAST] += 1
            sums[counting.COVERED] += wait.waited <= wait.predicted.p90

    def settled(self, policy: Policy, report: Settle, answer: Settled | None = None) -> None:
        """Take in what a call has used, and how it went; and what its settle has moved, which is
        nothing after its lease had expired.
        """
        known = report.usage
        if known is not None and known.provenance is _UNKNOWN:
            known = None
        dollars = report.cost_usd
        if dollars is None and policy.price is not None:
            dollars = dollars_of(policy, known, None)
        if self._unsettled is not None:
            self._unsettled.settled(report.lease)
        if self._counting is not None:
            sums = self._counting.at(policy.resource, policy.tenant)
            _count(sums, report, known, dollars)
            if answer is not None:
                _count_moves(sums, answer)
        if self._reports is not None:
            self._reports.settled(policy, report, known, dollars, answer)

    def lent(self, request: Acquire, answer: Granted) -> None:
        """Take in a block: its calls count when they have ended."""
        if self._counting is not None:
            sums = self._counting.at(request.resource, request.tenant)
            sums[counting.RESERVED] += _tokens(answer.charged)
        if self._unsettled is not None and not answer.settled:
            self._unsettled.granted(answer.lease, answer.expires_in)
        if self._reports is not None:
            self._reports.lent(request.resource, answer.charged)

    def ended(self, policy: Policy, lease: str, told: BlockReport) -> None:
        """Take in what calls of a block have used, and how they went, as far as it is news."""
        if self._unsettled is not None and told.stage == "ended":
            self._unsettled.settled(lease)
        for each in told.ended:
            if each.told:
                continue
            known = each.usage
            if known is not None and known.provenance is Provenance.UNKNOWN:
                known = None
            dollars = dollars_of(policy, known, each.cost_usd)
            if self._counting is not None:
                sums = self._counting.at(policy.resource, policy.tenant)
                sums[counting.GRANTED] += each.calls
                _count_all(sums, each, known, dollars)
            if self._reports is not None:
                self._reports.ended(policy, each, known, dollars)

    def moved(self, policy: Policy, answer: Settled) -> None:
        """Take in what a report on a block has moved."""
        if self._counting is not None:
            _count_moves(self._counting.at(policy.resource, policy.tenant), answer)
        if self._reports is not None:
            self._reports.moved(policy.resource, answer)

    def expired(self, resource: str, tenant: str) -> None:
        """Take in a lease that nobody has settled in time."""
        if self._counting is not None:
            self._counting.at(resource, tenant)[counting.EXPIRED] += 1
        if self._reports is not None:
            self._reports.expired_unsettled(resource)

    def budgets(self, policy: Policy, levels: Sequence[Level]) -> list[BudgetView]:
        """Every budget of a chain, and when it will be spent."""
        if not policy.has_budgets:
            return []
        self._pace.note(policy, levels)
        views = self._pace.views(policy, levels)
        if self._reports is not None:
            self._reports.budgets(policy.pool, views)
        return views

    def trials(self) -> list[TrialStats]:
        """Where shadow limits differ from what is enforced, by limit and tenant."""
        return self._trials.stats()

    def _differ(self, limits: Sequence[str], difference: str) -> None:
        if limits and self._reports is not None:
            self._reports.differs(limits, difference)


def _count(sums: Sums, report: Settle, usage: Usage | None, dollars: float | None) -> None:
    sums[counting.CALLS] += 1
    sums[_OUTCOMES[report.outcome]] += 1
    if report.latency is not None:
        note_time(sums, counting.LATENCY, report.latency)
    if report.ttft is not None:
        note_time(sums, counting.TTFT, report.ttft)
    _count_use(sums, 1, usage, dollars)


def _count_all(sums: Sums, ended: Ended, usage: Usage | None, dollars: float | None) -> None:
    sums[counting.CALLS] += ended.calls
    sums[_OUTCOMES[ended.outcome]] += ended.calls
    for latency in ended.latencies:
        note_time(sums, counting.LATENCY, latency)
    for ttft in ended.ttfts:
        note_time(sums, counting.TTFT, ttft)
    _count_use(sums, ended.calls, usage, dollars)


def _count_use(sums: Sums, calls: int, usage: Usage | None, dollars: float | None) -> None:
    if usage is not None:
        sums[counting.INPUT] += usage.input_tokens
        sums[counting.OUTPUT] += usage.output_tokens
        cached = usage.cache_read_tokens + usage.cache_write_tokens
        if cached:
            sums[counting.CACHED] += cached
        if usage.reasoning_tokens:
            sums[counting.REASONING] += usage.reasoning_tokens
    if dollars is not None:
        sums[counting.MICRO_DOLLARS] += dollars * 1e6
    elif usage is not None:
        sums[counting.UNPRICED] += calls


def _count_moves(sums: Sums, answer: Settled) -> None:
    if answer.refunded:
        sums[counting.REFUNDED] += _tokens(answer.refunded)
    if answer.debited:
        sums[counting.DEBITED] += _tokens(answer.debited)


def _tokens(amounts: dict[str, float]) -> float:
    """Tokens among amounts by meter; limits on all of them count before those on a part."""
    both = amounts.get("tokens")
    if both is None:
        return amounts.get("input_tokens", 0.0) + amounts.get("output_tokens", 0.0)
    return both


def verdict(
    policy: Policy, amounts: Sequence[float], levels: Sequence[Level], *, passes: bool
) -> TrialVerdict | None:
    """What the policy on trial would answer; *passes*: whether the breaker lets the call pass."""
    trial = judge(policy, amounts, levels)
    if trial is None:
        return None
    return TrialVerdict(
        would_grant=trial.would_grant and passes,
        limit=trial.limits[0].name if trial.limits else None,
    )
