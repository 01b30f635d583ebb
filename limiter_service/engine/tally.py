"""What this replica has decided and was told, counted. Pure."""

from collections import Counter

from limiter_service.engine.breaking import Class, is_early, is_probe, taken_for
from limiter_wire import ErrorCode, Outcome, Problem

OTHER = "other"
"""In place of the names of resources beyond the most that are told apart."""

_MOST = 1000

Decision = tuple[str, str, str, str]
"""Resource, code, reason of the breaker, binding limit."""


class Tally:
    """Counts by resource: at most a thousand of them have a name here, callers make up names
    for wildcards.
    """

    def __init__(self) -> None:
        self.decisions: Counter[Decision] = Counter()
        self.reports: Counter[tuple[str, Outcome]] = Counter()
        self.probes: Counter[tuple[str, str]] = Counter()
        self.stale: Counter[str] = Counter()
        self._names: set[str] = set()

    def granted(self, resource: str) -> None:
        """A lease was given."""
        self.decisions[self.name(resource), "granted", "", ""] += 1

    def refused(self, problem: Problem) -> None:
        """An acquire was refused; what is not configured has no name."""
        known = problem.code is not ErrorCode.UNKNOWN_RESOURCE
        resource = self.name(problem.resource) if known and problem.resource else ""
        key = (resource, str(problem.code), problem.reason or "", problem.limit or "")
        self.decisions[key] += 1

    def reported(
        self, resource: str, outcome: Outcome, kind: Class, marks: float, *, slow: bool, early: bool
    ) -> None:
        """A call has ended, or with *early* has begun to answer; *marks* are what its lease
        remembers of it (lua/lib/lease).
        """
        name = self.name(resource)
        if not early:
            self.reports[name, outcome] += 1
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

    def name(self, resource: str) -> str:
        """What a resource is called here."""
        if resource in self._names:
            return resource
        if len(self._names) >= _MOST:
            return OTHER
        self._names.add(resource)
        return resource


def _vote(kind: Class, *, slow: bool) -> str:
    if kind is Class.FAILURE or (kind is Class.SUCCESS and slow):
        return "failed"
    return "passed" if kind is Class.SUCCESS else "neutral"
