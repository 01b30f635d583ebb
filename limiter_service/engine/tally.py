"""What this replica has decided and was told, counted. Pure.

Callers make up names of models and tenants (a tenant's limits have its name): they are told
apart up to a number.
"""

from collections import Counter
from collections.abc import Callable

from limiter_service.engine.breaking import Class, is_counted, is_early, is_probe, taken_for
from limiter_service.engine.names import REST, Names
from limiter_service.engine.pages import Ends, Grants
from limiter_wire import ErrorCode, Outcome, Problem

MOST_RESOURCES = 200
MOST_DECISIONS = 5000
"""Resource, code, reason and limit together."""

_MOST_REFUSALS = MOST_DECISIONS - (MOST_RESOURCES + 1)

Decision = tuple[str, str, str, str]
"""Resource, code, reason of the breaker, binding limit."""


class Tally:
    """Counts by resource; *catch_up* brings here, and to all books, what was not told at once."""

    def __init__(self, catch_up: Callable[[], None] = lambda: None) -> None:
        self.catch_up = catch_up
        self._granted: Counter[str] = Counter()
        self._refused: Counter[Decision] = Counter()
        self._reports: Counter[tuple[str, Outcome]] = Counter()
        self.probes: Counter[tuple[str, str]] = Counter()
        self.stale: Counter[str] = Counter()
        self.name = Names(REST, MOST_RESOURCES).of

    @property
    def decisions(self) -> Counter[Decision]:
        """What was answered so far."""
        self.catch_up()
        granted = {(name, "granted", "", ""): count for name, count in self._granted.items()}
        return Counter(granted) + self._refused

    @property
    def reports(self) -> Counter[tuple[str, Outcome]]:
        """Calls that were settled so far."""
        self.catch_up()
        return self._reports

    def granted(self, grants: Grants) -> None:
        """Leases were given."""
        self._granted[self.name(grants.resource)] += grants.count

    def ended(self, ends: Ends) -> None:
        """Calls were settled in time."""
        name = self.name(ends.resource)
        for outcome, calls in ends.reports.items():
            self._reports[name, outcome] += calls

    def refused(self, problem: Problem) -> None:
        """An acquire was refused; what is not configured has no name."""
        known = problem.code is not ErrorCode.UNKNOWN_RESOURCE
        resource = self.name(problem.resource) if known and problem.resource else ""
        key = resource, str(problem.code), problem.reason or "", problem.limit or ""
        if key not in self._refused and len(self._refused) >= _MOST_REFUSALS:
            key = REST, str(problem.code), "", REST
        self._refused[key] += 1

    def reported(self, resource: str, kind: int, marks: float, *, slow: bool, early: bool) -> None:
        """A call has ended, or with *early* has begun to answer; *kind* is what that is to a
        circuit (breaking.Class), and *marks* are what its lease remembers of it (lua/lib/lease).
        """
        if not early and (is_counted(marks) or (is_probe(marks) and is_early(marks))):
            return  # as nearly all are, or its vote was counted at the first token
        name = self.name(resource)
        match taken_for(marks):
            case "stale":
                self.stale[name] += 1
            case "late":
                self.probes[name, "late"] += 1
            case "voted":
                self.probes[name, _vote(kind, slow=slow)] += 1
            case _:
                pass


def _vote(kind: int, *, slow: bool) -> str:
    if kind == Class.FAILURE or (kind == Class.SUCCESS and slow):
        return "failed"
    return "passed" if kind == Class.SUCCESS else "neutral"
