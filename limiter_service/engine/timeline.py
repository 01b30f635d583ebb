"""The last minutes, for whoever begins to look: what was decided, and levels. Bounded; pure."""

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

Counts = tuple[float, float, float, float]
"""Granted, no room, stopped, failed."""

_NONE: Counts = (0.0, 0.0, 0.0, 0.0)


def place_of(code: str) -> int:
    """Where an answer to an acquire is counted in Counts."""
    if code == "granted":
        return 0
    if code in _STOPS:
        return 2
    return 1 if status_of(ErrorCode(code)) == _NO_ROOM else 3


def traffic(counts: Mapping[str, Counts], decisions: Mapping[Decision, int]) -> list[Traffic]:
    """What was decided of each resource, the busiest first, with the most frequent refusals."""
    refusals: dict[str, Counter[tuple[str, str, str]]] = {}
    for (resource, code, reason, limit), count in list(decisions.items()):
        if code != "granted":
            refusals.setdefault(resource, Counter())[code, reason, limit] += count
    busiest = sorted(counts.items(), key=lambda each: (-sum(each[1]), each[0]))
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
        for resource, (granted, no_room, stopped, failed) in busiest[:_MOST]
    ]


class Step(msgspec.Struct, frozen=True):
    """What was decided in the seconds up to a time, and the share that was left of each limit."""

    time: float
    counts: dict[str, Counts]
    levels: dict[tuple[str, str], float] = {}


class Timeline:
    """A ring of steps."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=_STEPS)

    def fill(self, steps: Sequence[Step]) -> None:
        """Put *steps* in place of all that is known, except the levels that were seen."""
        levels = {round(step.time / STEP): step.levels for step in self._steps}
        self._steps.clear()
        for step in steps:
            seen = levels.get(round(step.time / STEP), {})
            self._steps.append(msgspec.structs.replace(step, levels=seen))

    def note(self, moment: Live) -> None:
        """Take in a moment, unless it belongs to the step that was noted last."""
        if self._steps and moment.time - self._steps[-1].time < STEP - 0.1:
            return
        pace = STEP / moment.traffic_seconds if moment.traffic_seconds else 0.0
        counts = {
            each.resource: (
                each.granted * pace,
                each.no_room * pace,
                each.stopped * pace,
                each.failed * pace,
            )
            for each in moment.traffic
        }
        self._steps.append(Step(moment.time, counts, _levels(moment)))

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
        granted, no_room, stopped, failed = ([round(each, 3) for each in c] for c in columns)
        return TrafficPast(
            resource=resource, granted=granted, no_room=no_room, stopped=stopped, failed=failed
        )


def _levels(moment: Live) -> dict[tuple[str, str], float]:
    chains = [(each.resource, each.limits) for each in moment.resources]
    chains += [(f"{each.pool}/@{each.tenant}", each.limits) for each in moment.tenants]
    return {
        (name, limit.name): round(limit.remaining / limit.limit, 4)
        for name, limits in chains
        for limit in limits
        if limit.limit
    }
