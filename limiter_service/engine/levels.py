"""Explain the state that scripts answer with (lua/lib/layout). Pure."""

import math
from collections.abc import Iterator, Sequence

import msgspec

from limiter_service.engine.policy import SLOTS_OF_A_WINDOW, Limit, Policy, slot_width
from limiter_wire import LimitState

_MICRO = 1_000_000
_COUNT, TIME, SKEW, _CELLS = 1, 2, 3, 5
_SIZES = (1, SLOTS_OF_A_WINDOW + 3, 2, 1)  # of a cell, by kind
_RING = SLOTS_OF_A_WINDOW + 1


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """The cell of one limit, as it stood at `now` in its scope and `wall` on the server."""

    limit_id: float
    cell: Sequence[float]
    now: float
    wall: float


def read(numbers: Sequence[float], start: int, limits: int) -> tuple[list[Level], int]:
    """*limits* limits of the states in *numbers* from *start* on, and where they end."""
    levels: list[Level] = []
    while True:  # a chain without limits still has one scope
        count, now = int(numbers[start + _COUNT]), numbers[start + TIME]
        wall, at = now - numbers[start + SKEW], start + _CELLS
        for _ in range(count):
            limit_id = numbers[at]
            size = _SIZES[int(limit_id) % len(_SIZES)]
            cell = numbers[at + 1 : at + 1 + size]
            levels.append(Level(limit_id=limit_id, cell=cell, now=now, wall=wall))
            at += 1 + size
        start = at
        if len(levels) >= limits:
            return levels, start


def left(limit: Limit, level: Level) -> float:
    """What is left of a limit, in the scripts' units; negative is a debt."""
    match limit.window:
        case "bucket":
            return level.cell[0]
        case "sliding" | "calendar":
            return limit.capacity - level.cell[1]
        case _:
            return limit.capacity - level.cell[0]


def reset(policy: Policy, limit: Limit, level: Level) -> float:
    """Microseconds until a limit is as good as new when nothing else comes."""
    match limit.window:
        case "bucket":
            after = (limit.capacity - level.cell[0]) / limit.rate
        case "sliding":
            after = _ring_reset(level.cell, slot_width(limit), level.now)
        case "calendar":
            after = policy.window_end(limit, level.cell[0]) - level.wall
        case _:
            after = 0.0
    return max(0.0, after)


def _ring_reset(cell: Sequence[float], width: int, now: float) -> float:
    newest = int(cell[0])
    for slot in range(newest, newest - _RING, -1):
        if cell[2 + slot % _RING] != 0:
            return (slot + _RING) * width - now
    return 0.0


def states(policy: Policy, levels: Sequence[Level], refused: frozenset[int]) -> list[LimitState]:
    """What a caller sees; limits that a reload has dropped since are left out."""
    return list(_states(policy, levels, refused))


def _states(
    policy: Policy, levels: Sequence[Level], refused: frozenset[int]
) -> Iterator[LimitState]:
    for i, level in enumerate(levels):
        limit = policy.by_id.get(level.limit_id)
        if limit is None:
            continue
        yield LimitState(
            name=limit.name,
            meter=limit.meter,
            limit=whole(limit.limit),
            remaining=amount(limit, left(limit, level)),
            reset_after=math.ceil(reset(policy, limit, level)) / _MICRO,
            per=limit.per,
            window=limit.window,
            scope=limit.scope,
            shadow=limit.shadow,
            refused=i in refused,
        )


def amount(limit: Limit, units: float) -> float:
    """*units* of the scripts in the limit's own meter: whole, except money."""
    if limit.unit == 1:
        # A level that is due at this microsecond may miss by the last bits.
        return math.floor(units + 1e-6)
    return math.floor(units + 1e-6) / limit.unit


def whole(value: float) -> float:
    """An int where *value* is one: 30000, not 30000.0."""
    return int(value) if value == int(value) else value
