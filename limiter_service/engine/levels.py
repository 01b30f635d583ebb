"""Explain the state that scripts answer with (lua/lib/layout). Pure."""

import math
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from limiter_service.engine.cells import SKEW, SPAN, TIME, ring_reset, size
from limiter_service.engine.policy import Limit, Policy, slot_width
from limiter_wire import LimitState

_MICRO = 1_000_000
_COUNT, _CELLS = 1, 5
_LEARNED, _TERMS = 29, 2  # numbers of a record, and before the terms (lua/lib/learned)
_FORGIVEN = 1e-6  # as in lua/lib/limits


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """The cell of one limit, as it stood at `now` in its scope and `wall` on the server.

    `capacity` and `rate` are those in force where they are not the policy's.
    """

    limit_id: float
    cell: Sequence[float]
    now: float
    wall: float
    capacity: float | None = None
    rate: float | None = None


def read(numbers: Sequence[float], start: int, limits: int) -> tuple[list[Level], int]:
    """*limits* limits of the states in *numbers* from *start* on, and where they end."""
    levels: list[Level] = []
    while True:  # a chain without limits still has one scope
        count, now = int(numbers[start + _COUNT]), numbers[start + TIME]
        wall, at = now - numbers[start + SKEW], start + _CELLS
        for _ in range(count):
            limit_id = numbers[at]
            length = size(limit_id)
            cell = numbers[at + 1 : at + 1 + length]
            levels.append(Level(limit_id=limit_id, cell=cell, now=now, wall=wall))
            at += 1 + length
        if numbers[start] < 0:
            terms = numbers[at + _TERMS : at + _TERMS + 2 * count]
            levels[len(levels) - count :] = _under(terms, levels[len(levels) - count :])
            at += _TERMS + 2 * count
        start = at
        if len(levels) >= limits:
            return levels, start


def _under(terms: Sequence[float], levels: Sequence[Level]) -> Iterator[Level]:
    """*levels* with the capacities and rates that are in force."""
    for level, capacity, rate in zip(levels, terms[::2], terms[1::2], strict=True):
        yield replace(level, capacity=capacity, rate=rate)


def capacity_of(limit: Limit, level: Level) -> float:
    """The capacity in force, in the scripts' units."""
    return limit.capacity if level.capacity is None else level.capacity


def limit_of(limit: Limit, level: Level) -> float:
    """The limit in force, in its own meter; of a ramp, what it allows at present."""
    if limit.window == "ramp":
        return whole(round(allowance(limit, level) / limit.unit, 6))
    if level.capacity is None or level.rate is None:
        return whole(limit.limit)
    if limit.window == "bucket":
        return whole(round(limit.limit * level.rate / limit.rate, 6))
    return whole(round(level.capacity / limit.unit, 6))


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a limit beside its policy (lua/lib/learned); times in Unix µs."""

    stated: float
    stated_until: float
    held: float
    held_until: float
    burst: float
    burst_at: float
    corrected: float
    share: float
    cut_at: float


def records(
    numbers: Sequence[float], start: int, levels: Sequence[Level], scopes: int
) -> dict[float, Record]:
    """What is learned, by limit id, from what stands behind the states of a chain."""
    found: dict[float, Record] = {}
    skews = {level.limit_id: level.now - level.wall for level in levels}
    for _ in range(scopes):
        at, end = start + 1, start + 1 + int(numbers[start])
        while at < end:
            limit_id = numbers[at]
            if limit_id < 0:
                known = numbers[at + 1 : at + 1 + _LEARNED]
                found[-limit_id] = _record(known, skews.get(-limit_id, 0.0))
                at += 1 + _LEARNED
            else:
                at += 2 + size(limit_id)
        start = end
    return found


def _record(known: Sequence[float], skew: float) -> Record:
    return Record(
        stated=known[0],
        stated_until=known[3] - skew,
        held=known[8],
        held_until=known[11] if known[11] < 0 else known[11] - skew,
        burst=known[13],
        burst_at=known[14] - skew,
        corrected=known[15] - skew if known[15] > 0 else 0.0,
        share=known[27],
        cut_at=known[28] - skew,
    )


def left(limit: Limit, level: Level) -> float:
    """What is left of a limit, in the scripts' units; negative is a debt."""
    match limit.window:
        case "bucket":
            return level.cell[0]
        case "sliding" | "calendar":
            return capacity_of(limit, level) - level.cell[1]
        case "ramp":
            return allowance(limit, level) - used_in_period(level)
        case _:
            return capacity_of(limit, level) - level.cell[0]


def allowance(limit: Limit, level: Level) -> float:
    """What a ramp lets be used in the period that ends now, in the scripts' units."""
    newest = int(level.cell[0])
    before = _used(level.cell, newest - SPAN)
    return max(capacity_of(limit, level), limit.factor * before)


def used_in_period(level: Level) -> float:
    """What has been used of a ramp in the period that ends now."""
    return _used(level.cell, int(level.cell[0]))


def _used(cell: Sequence[float], last: int) -> float:
    return sum(cell[1 + slot % (2 * SPAN)] for slot in range(last - SPAN + 1, last + 1))


def fits(limit: Limit, level: Level, asked: float) -> bool:
    """Whether a limit has room for so many of the scripts' units. A ramp has, for any amount,
    when nothing was used in a period.
    """
    if limit.window == "ramp" and used_in_period(level) <= 0:
        return True
    return asked - left(limit, level) <= _FORGIVEN


def reset(policy: Policy, limit: Limit, level: Level) -> float:
    """Microseconds until a limit is as good as new when nothing else comes."""
    match limit.window:
        case "bucket":
            after = (capacity_of(limit, level) - level.cell[0]) / (level.rate or limit.rate)
        case "sliding":
            after = ring_reset(level.cell, slot_width(limit), level.now)
        case "calendar":
            after = policy.window_end(limit, level.cell[0]) - level.wall
        case "ramp":
            after = _ramp_reset(level.cell, slot_width(limit), level.now)
        case _:
            after = 0.0
    return max(0.0, after)


def _ramp_reset(cell: Sequence[float], width: int, now: float) -> float:
    newest, ring = int(cell[0]), 2 * SPAN
    for slot in range(newest, newest - ring, -1):
        if cell[1 + slot % ring] != 0:
            return (slot + ring) * width - now
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
            limit=limit_of(limit, level),
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
