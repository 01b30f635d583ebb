"""Acquires of the whole fleet of late, from its counts in the store."""

import itertools
from collections.abc import Iterable

from limiter_service.engine.history import History
from limiter_service.engine.timeline import STEP, Counts, Step, place_of
from limiter_wire import CallStats

_LATE = 10.0
_FINE, _COARSE = 12, 900.0


class FleetTraffic:
    """Reads how many acquires were granted and refused, by resource."""

    def __init__(self, history: History) -> None:
        self._history = history

    async def of_late(self) -> tuple[float, dict[str, Counts]]:
        """Counts of the last seconds, and how many seconds these are; none without the store."""
        found = await self._history.of(_LATE)
        return (found.reach, _counts(found.resources)) if found else (0.0, {})

    async def steps(self, now: float) -> list[Step]:
        """The last minute step by step, and before it the average of a quarter of an hour."""
        reached = [await self._history.of(STEP * nth) for nth in range(_FINE + 1)]
        whole = await self._history.of(_COARSE)
        sums = [(each.reach, _counts(each.resources)) for each in reached if each is not None]
        if whole is None or len(sums) <= _FINE:
            return []
        fine = [
            Step(now - reach, _less(counts, before))
            for (reach, before), (_, counts) in itertools.pairwise(sums)
        ]
        reach, minute = sums[-1]
        before = _less(_counts(whole.resources), minute)
        many = round((whole.reach - reach) / STEP)
        average = {name: _share(counts, many) for name, counts in before.items()}
        coarse = [Step(now - reach - STEP * nth, average) for nth in range(many)]
        return [*fine, *coarse][::-1]


def _counts(calls: Iterable[CallStats]) -> dict[str, Counts]:
    return {each.resource: _places(each) for each in calls}


def _places(calls: CallStats) -> Counts:
    found = [float(calls.granted), 0.0, 0.0, 0.0]
    for code, count in calls.refused.items():
        found[place_of(code)] += count
    granted, no_room, stopped, failed = found
    return granted, no_room, stopped, failed


def _less(counts: dict[str, Counts], before: dict[str, Counts]) -> dict[str, Counts]:
    nothing: Counts = (0.0, 0.0, 0.0, 0.0)
    found: dict[str, Counts] = {}
    for name, (a, b, c, d) in counts.items():
        w, x, y, z = before.get(name, nothing)
        found[name] = max(0.0, a - w), max(0.0, b - x), max(0.0, c - y), max(0.0, d - z)
    return found


def _share(counts: Counts, many: int) -> Counts:
    a, b, c, d = counts
    return a / many, b / many, c / many, d / many
