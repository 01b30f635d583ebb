"""What calls have cost, how fast budgets go, and what shadow limits would have done.

Figures for /v1/stats, /v1/resources and metrics. Losing them loses no limit.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from limiter_service.engine import counting
from limiter_service.engine.answers import scopes_of
from limiter_service.engine.costs import Pace, dollars_of
from limiter_service.engine.counting import OUTCOME, REFUSED, Counting, Pair, Sums, note_time
from limiter_service.engine.levels import Level, read
from limiter_service.engine.pages import Ends, Grants, amounts, tokens_of
from limiter_service.engine.policy import Policy
from limiter_service.engine.shape import Taken
from limiter_service.engine.statistics import Wait
from limiter_service.engine.tally import Tally
from limiter_service.engine.trials import Trials, judge
from limiter_service.engine.unsettled import Unsettled
from limiter_wire import (
    Acquire,
    BlockReport,
    BudgetView,
    ErrorCode,
    Granted,
    Problem,
    Provenance,
    Settle,
    Settled,
    TrialStats,
    TrialVerdict,
)

MOST, MOST_PAGES = 2000, 1000
"""What is written down, and on how many pages, before all books are told of it in any case."""

_UNKNOWN = Provenance.UNKNOWN


class Reports(Protocol):
    """Who wants to hear of it: metrics."""

    def differs(self, limits: Iterable[str], difference: str) -> None:
        """Shadow limits that would have answered otherwise."""

    def refused(self, request: Acquire, answer: Problem, took: float) -> None:
        """An acquire that was refused, *took* seconds after it was asked for."""

    def booked(self, grants: Iterable[Grants], took: Sequence[float], ends: Iterable[Ends]) -> None:
        """Calls that were granted, *took* the seconds until those were that did not wait; and
        how calls have ended.
        """

    def expired_unsettled(self, resource: str) -> None:
        """A lease that nobody has settled in time."""

    def budgets(self, pool: str, views: Iterable[BudgetView]) -> None:
        """Budgets as they stand."""


class Books:
    """The books of one replica. What nearly all calls say is on pages until somebody reads."""

    def __init__(
        self, counting: Counting | None = None, unsettled: Unsettled | None = None
    ) -> None:
        self._reports: Reports | None = None
        self._counting, self._unsettled = counting, unsettled
        self._grants: dict[Pair, Grants] = {}
        self._ends: dict[Pair, Ends] = {}
        self._took: list[float] = []
        """Seconds until acquires that did not wait were granted."""
        self._written = 0
        self.tally = Tally(self.catch_up)
        if counting is not None:
            counting.catch_up = self.catch_up
        self._pace, self._trials = Pace(), Trials()

    def tell(self, reports: Reports) -> None:
        """Let *reports* hear of everything from now on."""
        self._reports = reports

    def catch_up(self) -> None:
        """Tell every book what is on the pages."""
        grants, ends, took = self._grants, self._ends, self._took
        self._grants, self._ends, self._took, self._written = {}, {}, [], 0
        for given in grants.values():
            self.tally.granted(given)
            if self._counting is not None:
                _count_grants(self._counting.at(given.resource, given.tenant), given)
        for ended in ends.values():
            self.tally.ended(ended)
            if self._counting is not None:
                _count_ends(self._counting.at(ended.resource, ended.tenant), ended)
        if self._reports is not None:
            self._reports.booked(grants.values(), took, ends.values())

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
        self._grants_of(request.resource, request.tenant).grant(answer)
        if answer.waited <= 0:
            self._took.append(took)
        if self._unsettled is not None and not answer.settled:
            self._unsettled.granted(answer.lease, answer.expires_in)

    def refused(self, request: Acquire, answer: Problem, took: float) -> None:
        """Take in a refusal as it is answered."""
        self.tally.refused(answer)
        # What is not configured has no name: callers could make up any.
        if self._counting is not None and answer.code is not ErrorCode.UNKNOWN_RESOURCE:
            self._counting.at(request.resource, request.tenant)[REFUSED + answer.code] += 1
        if self._reports is not None:
            self._reports.refused(request, answer, took)

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
        self._ends_of(policy.resource, policy.tenant).settle(report, known, dollars, answer)

    def lent(self, request: Acquire, answer: Granted) -> None:
        """Take in a block: its calls count when they have ended."""
        self._grants_of(request.resource, request.tenant).lend(answer)
        if self._unsettled is not None and not answer.settled:
            self._unsettled.granted(answer.lease, answer.expires_in)

    def ended(self, policy: Policy, lease: str, told: BlockReport) -> None:
        """Take in what calls of a block have used, and how they went, as far as it is news."""
        if self._unsettled is not None and told.stage == "ended":
            self._unsettled.settled(lease)
        for each in told.ended:
            if each.told:
                continue
            known = each.usage
            if known is not None and known.provenance is _UNKNOWN:
                known = None
            dollars = dollars_of(policy, known, each.cost_usd)
            self._written += each.calls
            self._grants_of(policy.resource, policy.tenant).count += each.calls
            self._ends_of(policy.resource, policy.tenant).end(each, known, dollars)

    def moved(self, policy: Policy, answer: Settled) -> None:
        """Take in what a report on a block has moved."""
        self._ends_of(policy.resource, policy.tenant).move(answer)

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

    def _grants_of(self, resource: str, tenant: str) -> Grants:
        self._written += 1
        page = self._grants.get((resource, tenant))
        if page is None or self._written > MOST:
            self._open(resource, tenant)
            page = self._grants[resource, tenant] = Grants(resource, tenant)
        return page

    def _ends_of(self, resource: str, tenant: str) -> Ends:
        self._written += 1
        page = self._ends.get((resource, tenant))
        if page is None or self._written > MOST:
            self._open(resource, tenant)
            page = self._ends[resource, tenant] = Ends(resource, tenant)
        return page

    def _open(self, resource: str, tenant: str) -> None:
        """Make room for a page, and let the books know its name: who comes first has one."""
        if self._written > MOST or len(self._grants) + len(self._ends) >= MOST_PAGES:
            self.catch_up()
            self._written = 1  # what the page is for
        self.tally.name(resource)
        if self._counting is not None:
            self._counting.at(resource, tenant)


def _count_grants(sums: Sums, grants: Grants) -> None:
    sums[counting.GRANTED] += grants.count
    for charges in (grants.reserved, grants.again):
        for charged, times in charges.items():
            sums[counting.RESERVED] += times * tokens_of(amounts(charged))


def _count_ends(sums: Sums, ends: Ends) -> None:
    for reports in (ends.reports, ends.late):
        for outcome, calls in reports.items():
            sums[counting.CALLS] += calls
            sums[OUTCOME + outcome] += calls
    for latency in ends.latencies:
        note_time(sums, counting.LATENCY, latency)
    for ttft in ends.ttfts:
        note_time(sums, counting.TTFT, ttft)
    for dollars in ends.dollars:
        sums[counting.MICRO_DOLLARS] += dollars * 1e6
    if ends.inputs:
        sums[counting.INPUT] += ends.inputs
    if ends.outputs:
        sums[counting.OUTPUT] += ends.outputs
    if ends.cached:
        sums[counting.CACHED] += ends.cached
    if ends.reasoning:
        sums[counting.REASONING] += ends.reasoning
    if ends.unpriced:
        sums[counting.UNPRICED] += ends.unpriced
    if ends.refunded_tokens:
        sums[counting.REFUNDED] += ends.refunded_tokens
    if ends.debited_tokens:
        sums[counting.DEBITED] += ends.debited_tokens


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
