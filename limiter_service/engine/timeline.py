"""The last minutes of this replica, for whoever begins to look: what it decided, and levels.

Decisions are noted all the time, levels while somebody looks. Bounded; pure.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import msgspec

from limiter_service.engine.tally import Decision
from limiter_wire import (
    ErrorCode,
    LevelPast,
    Live,
    Past,
    RefusalCount,
    Traffic,
    TrafficPast,
    status_of,
)

STEP = 5.0
"""Seconds between two notes."""

_STEPS = 180
_MOST = 200  # resources, and levels, that are told of
_MOST_REFUSALS = 8
_NO_ROOM = 429
_STOPS = {ErrorCode.BREAKER_OPEN, ErrorCode.COOLDOWN, ErrorCode.LATCHED}

Counts = tuple[int, int, int, int]
"""Granted, no room, stopped, failed."""

_NONE: Counts = (0, 0, 0, 0)


def place_of(code: str) -> int:
    """Where an answer to an acquire is counted in Counts."""
    if code == "granted":
        return 0
    if code in _STOPS:
        return 2
    return 1 if status_of(ErrorCode(code)) == _NO_ROOM else 3


def by_resource(decisions: Mapping[Decision, int]) -> dict[str, Counts]:
    """Decisions, counted by resource; those about nothing that is configured are left out."""
    found: dict[str, list[int]] = {}
    for (resource, code, _, _), count in list(decisions.items()):
        if resource:
            found.setdefault(resource, [0, 0, 0, 0])[place_of(code)] += count
    return {name: (a, b, c, d) for name, (a, b, c, d) in found.items()}


def traffic(decisions: Mapping[Decision, int]) -> list[Traffic]:
    """What has been decided of each resource, with its most frequent refusals."""
    refusals: dict[str, Counter[tuple[str, str, str]]] = {}
    for (resource, code, reason, limit), count in list(decisions.items()):
        if code != "granted":
            refusals.setdefault(resource, Counter())[code, reason, limit] += count
    counts = sorted(by_resource(decisions).items(), key=lambda each: (-sum(each[1]), each[0]))
    return [
        Traffic(
            resource=resource,
            granted=granted,
            no_room=no_room,
            stopped=stopped,
            failed=failed,
            refusals=[
                RefusalCount(code=code, reason=reason, limit=limit, count=count)
                for (code, reason, limit), count in refusals.get(resource, Counter()).most_common(
                    _MOST_REFUSALS
                )
            ],
        )
        for resource, (granted, no_room, stopped, failed) in counts[:_MOST]
    ]


class _Step(msgspec.Struct):
    time: float
    counts: dict[str, Counts]
    levels: dict[tuple[str, str], float]


class Timeline:
    """A ring of steps."""

    def __init__(self) -> None:
        self._steps: deque[_Step] = deque(maxlen=_STEPS)
        self._before: dict[str, Counts] = {}
        self._levels: dict[tuple[str, str], float] = {}

    def look(self, moment: Live) -> None:
        """Take in levels; those that stand at the end of a step are kept."""
        chains = [(each.resource, each.limits) for each in moment.resources]
        chains += [(f"{each.pool}/@{each.tenant}", each.limits) for each in moment.tenants]
        self._levels = {
            (name, limit.name): round(limit.remaining / limit.limit, 4)
            for name, limits in chains
            for limit in limits
            if limit.limit
        }

    def note(self, now: float, decisions: Mapping[Decision, int]) -> None:
        """End a step at *now*, in Unix seconds."""
        counts = by_resource(decisions)
        moved = {
            name: _less(count, self._before.get(name, _NONE))
            for name, count in counts.items()
            if count != self._before.get(name)
        }
        self._steps.append(_Step(now, moved, self._levels))
        self._before, self._levels = counts, {}

    def past(self) -> Past:
        """All that is kept."""
        resources = dict.fromkeys(name for step in self._steps for name in step.counts)
        limits = dict.fromkeys(name for step in self._steps for name in step.levels)
        return Past(
            step=STEP,
            times=[step.time for step in self._steps],
            traffic=[self._traffic(name) for name in [*resources][:_MOST]],
            levels=[
                LevelPast(
                    resource=name[0],
                    limit=name[1],
                    left=[step.levels.get(name) for step in self._steps],
                )
                for name in [*limits][: 3 * _MOST]
            ],
        )

    def _traffic(self, resource: str) -> TrafficPast:
        columns = [*zip(*(step.counts.get(resource, _NONE) for step in self._steps), strict=True)]
        granted, no_room, stopped, failed = ([*column] for column in columns)
        return TrafficPast(
            resource=resource, granted=granted, no_room=no_room, stopped=stopped, failed=failed
        )


def _less(count: Sequence[int], before: Sequence[int]) -> Counts:
    granted, no_room, stopped, failed = (a - b for a, b in zip(count, before, strict=True))
    return granted, no_room, stopped, failed
