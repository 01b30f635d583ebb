"""What this replica has decided and was told, counted. Pure.

Callers make up names of models and tenants (a tenant's limits have its name): they are told
apart up to a number.
"""

from collections import Counter

from limiter_service.engine.breaking import Class, is_counted, is_early, is_probe, taken_for
from limiter_service.engine.names import REST, Names
from limiter_wire import BlockReport, ErrorCode, Outcome, Problem

MOST_RESOURCES = 200
MOST_DECISIONS = 5000
"""Resource, code, reason and limit together."""

_MOST_REFUSALS = MOST_DECISIONS - (MOST_RESOURCES + 1)

Decision = tuple[str, str, str, str]
"""Resource, code, reason of the breaker, binding limit."""


class Tally:
    """Counts by resource."""

    def __init__(self) -> None:
        self._granted: dict[str, int] = {}
        self._refused: Counter[Decision] = Counter()
        self.reports: Counter[tuple[str, Outcome]] = Counter()
        self.probes: Counter[tuple[str, str]] = Counter()
        self.stale: Counter[str] = Counter()
        self.name = Names(REST, MOST_RESOURCES).of

    @property
    def decisions(self) -> Counter[Decision]:
        """What was answered so far."""
        granted = {(name, "granted", "", ""): count for name, count in self._granted.items()}
        return Counter(granted) + self._refused

    def granted(self, resource: str) -> None:
        """A lease was given."""
        self._grant(self.name(resource), 1)

    def ended(self, resource: str, told: BlockReport) -> None:
        """Calls of a block have ended: what was granted to them was granted by its holder."""
        name = self.name(resource)
        for each in told.ended:
            if not each.told:
                self._grant(name, each.calls)
                self.reports[name, each.outcome] += each.calls

    def refused(self, problem: Problem) -> None:
        """An acquire was refused; what is not configured has no name."""
        known = problem.code is not ErrorCode.UNKNOWN_RESOURCE
        resource = self.name(problem.resource) if known and problem.resource else ""
        key = resource, str(problem.code), problem.reason or "", problem.limit or ""
        if key not in self._refused and len(self._refused) >= _MOST_REFUSALS:
            key = REST, str(problem.code), "", REST
        self._refused[key] += 1

    def _grant(self, name: str, calls: int) -> None:
        self._granted[name] = self._granted.get(name, 0) + calls

    def reported(
        self, resource: str, outcome: Outcome, kind: int, marks: float, *, slow: bool, early: bool
    ) -> None:
        """A call has ended, or with *early* has begun to answer; *kind* is what that is to a
        circuit (breaking.Class), and *marks* are what its lease remembers of it (lua/lib/lease).
        """
        name = self.name(resource)
        if not early:
            self.reports[name, outcome] += 1
            if is_counted(marks):
                return  # as nearly all are
            if is_probe(marks) and is_early(marks):
                return  # its vote was counted at the first token
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
