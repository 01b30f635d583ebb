"""Explain the state that scripts answer with (lua/lib/layout). Pure."""

import math
from collections.abc import Iterator, Sequence

import msgspec

from limiter_service.engine.policy import Limit, Policy
from limiter_wire import LimitState

_MICRO = 1_000_000
_COUNT, _RECORDS, _CELLS = 2, 3, 3
_RECORD = {1: 5, 2: 6, 3: 7, 4: 5}
_SHADOW = 4


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One limit at the time of the answer, in the scripts' units and microseconds."""

    limit_id: float
    capacity: float
    left: float
    reset: float


def read(numbers: Sequence[float], start: int, limits: int) -> tuple[list[Level], int]:
    """*limits* limits of the scopes in *numbers* from *start* on, and where they end."""
    levels: list[Level] = []
    while True:  # a chain without limits still has one scope
        start = _read_scope(numbers, start, levels)
        if len(levels) >= limits:
            return levels, start


def _read_scope(numbers: Sequence[float], start: int, levels: list[Level]) -> int:
    count = int(numbers[start + _COUNT])
    p = start + _RECORDS
    records = []
    for _ in range(count):
        records.append(p)
        p += _RECORD[(int(numbers[p]) - 1) % _SHADOW + 1]
    now, skew = numbers[p], numbers[p + 1]
    at = p + _CELLS
    for record in records:
        levels.append(_level(numbers, record, at, now, now - skew))
        at += int(numbers[record + 2])
    return at


def _level(s: Sequence[float], p: int, at: int, now: float, wall: float) -> Level:
    capacity = s[p + 3]
    match (int(s[p]) - 1) % _SHADOW + 1:
        case 1:
            left, reset = s[at], (capacity - s[at]) / s[p + 4]
        case 2:
            left, reset = capacity - s[at + 1], _ring_reset(s, p, at, now)
        case 3:
            stop, next_stop = s[p + 5], s[p + 6]
            end = next(e for e in (stop, next_stop, 2 * next_stop - stop) if s[at] < e)
            left, reset = capacity - s[at + 1], end - wall
        case _:
            left, reset = capacity - s[at], 0.0
    return Level(limit_id=s[p + 1], capacity=capacity, left=left, reset=max(0.0, reset))


def _ring_reset(s: Sequence[float], p: int, at: int, now: float) -> float:
    newest, ring = int(s[at]), int(s[p + 5]) + 1
    for slot in range(newest, newest - ring, -1):
        if s[at + 2 + slot % ring] != 0:
            return (slot + ring) * s[p + 4] - now
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
            remaining=amount(limit, level.left),
            reset_after=math.ceil(level.reset) / _MICRO,
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
