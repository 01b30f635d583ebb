"""What calls have cost, how fast budgets go, and what shadow limits would have done.

Figures of this replica, for /v1/stats, /v1/resources and metrics. Losing them loses no limit.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from limiter_service.engine.answers import scopes_of
from limiter_service.engine.costs import Ledger, Pace
from limiter_service.engine.levels import Level, read
from limiter_service.engine.policy import Policy
from limiter_service.engine.trials import Trials, judge
from limiter_wire import (
    BudgetView,
    CostStats,
    Granted,
    Provenance,
    Settle,
    TrialStats,
    TrialVerdict,
    Usage,
)


class Reports(Protocol):
    """Who wants to hear of it: metrics."""

    def differs(self, limits: Iterable[str], difference: str) -> None:
        """Shadow limits that would have answered otherwise."""

    def spent(self, resource: str, usage: Usage | None, dollars: float | None) -> None:
        """A call that was settled."""

    def budgets(self, pool: str, views: Iterable[BudgetView]) -> None:
        """Budgets as they stand."""


class Books:
    """The books of one replica."""

    def __init__(self) -> None:
        self._reports: Reports | None = None
        self._pace, self._ledger, self._trials = Pace(), Ledger(), Trials()

    def tell(self, reports: Reports) -> None:
        """Let *reports* hear of everything from now on."""
        self._reports = reports

    def taken(self, policy: Policy, lease: Sequence[float], answer: Granted) -> None:
        """Take in a grant, and the levels just after it."""
        if policy.has_budgets:
            self._pace.note(policy, read(lease, *scopes_of(lease))[0])
        self.granted(policy, answer)

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

    def settled(self, policy: Policy, report: Settle) -> None:
        """Take in what a call has used."""
        known = report.usage
        if known is not None and known.provenance is Provenance.UNKNOWN:
            known = None
        dollars = self._ledger.note(policy, known, report.cost_usd)
        if self._reports is not None:
            self._reports.spent(policy.resource, known, dollars)

    def budgets(self, policy: Policy, levels: Sequence[Level]) -> list[BudgetView]:
        """Every budget of a chain, and when it will be spent."""
        if not policy.has_budgets:
            return []
        self._pace.note(policy, levels)
        views = self._pace.views(policy, levels)
        if self._reports is not None:
            self._reports.budgets(policy.pool, views)
        return views

    def costs(self) -> list[CostStats]:
        """What settled calls have cost, by resource and tenant."""
        return self._ledger.stats()

    def trials(self) -> list[TrialStats]:
        """Where shadow limits differ from what is enforced, by limit and tenant."""
        return self._trials.stats()

    def _differ(self, limits: Sequence[str], difference: str) -> None:
        if limits and self._reports is not None:
            self._reports.differs(limits, difference)


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
