"""From the numbers of the scripts to answers and refusals. Pure."""

from collections.abc import Sequence

import msgspec

from limiter_service.config import seconds
from limiter_service.engine import breaking, charging, costs
from limiter_service.engine.cells import SKEW, TIME
from limiter_service.engine.levels import (
    Level,
    amount,
    fits,
    left,
    limit_of,
    read,
    states,
    used_in_period,
    whole,
)
from limiter_service.engine.policy import Limit, Policy
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.shape import History
from limiter_service.store.messages import NEVER, Reply, Verdict
from limiter_wire import (
    ErrorCode,
    Granted,
    LimitState,
    QueueState,
    Renew,
    Renewed,
    Settled,
)

_MICRO = 1_000_000

# Where the parts of a lease stand (lua/lib/lease).
_NONCE, TTL, _WAITED, _SETTLED, MARKS, _LIMITS, _CHARGES = 0, 2, 4, 5, 7, 8, 9
_REFUSED = -1.0
_ALREADY = Verdict.ALREADY

# Where the parts of an answer about the queue stand (lua/enqueue).
_PLACE, _WAITERS, _BEGAN, _NEEDS = 2, 3, 4, 6


def scopes_of(lease: Sequence[float]) -> tuple[int, int]:
    """Where the states in a lease begin, and how many limits they have."""
    limits = int(lease[_LIMITS])
    return _CHARGES + limits, limits


def charges_of(lease: Sequence[float]) -> Sequence[float]:
    """What each limit was charged."""
    return lease[_CHARGES : _CHARGES + int(lease[_LIMITS])]


def granted(
    policy: Policy, request_id: str, lease: Sequence[float], route: str | None = None
) -> Granted:
    """The answer to an acquire that has a lease; its id remembers the *route* for the settle."""
    levels, _ = read(lease, *scopes_of(lease))
    charges = charges_of(lease)
    refused = frozenset(i for i, charge in enumerate(charges) if charge == _REFUSED)
    return Granted(
        lease=lease_id(policy, request_id, lease, route),
        waited=lease[_WAITED] / _MICRO,
        expires_in=lease[TTL] / _MICRO,
        charged=charged_by_meter(policy, levels, charges),
        limits=states(policy, levels, refused),
        breaker=breaking.state_in(lease[MARKS]),
        probe=breaking.is_probe(lease[MARKS]),
        settled=lease[_SETTLED] > 0,
    )


def lease_id(policy: Policy, request_id: str, lease: Sequence[float], route: str | None) -> str:
    """The id under which a caller knows a lease; it remembers the *route* for the settle."""
    return policy.stem.encode(request_id, int(lease[_NONCE]), route)


def nonce_of(lease: Sequence[float]) -> int:
    """The number that names a lease among those of its request."""
    return int(lease[_NONCE])


def marks_of(lease: Sequence[float]) -> float:
    """What a lease remembers of the breaker (lua/lib/lease)."""
    return lease[MARKS]


def charged_by_meter(
    policy: Policy, levels: Sequence[Level], charges: Sequence[float]
) -> dict[str, float]:
    """Charges by meter: where several limits count one meter, the largest."""
    charged: dict[str, float] = {}
    for level, charge in zip(levels, charges, strict=True):
        limit = policy.by_id.get(level.limit_id)
        if limit is not None and charge != _REFUSED:
            charged[limit.meter] = max(charged.get(limit.meter, 0), whole(charge / limit.unit))
    return charged


def settled(policy: Policy, reply: Reply, history: History | None) -> Settled:
    """The answer to a settle, or to its repeat; an early report has no *history*."""
    breaker = breaking.state_in(reply.numbers[MARKS])
    if history is None:  # nothing moves
        return Settled(settled=False, breaker=breaker)
    shape = policy.shape
    if shape is not None and history.limit_ids is shape.limit_ids:
        refunded, debited = shape.moved(history)
    else:
        refunded, debited = _moved(policy, history)
    return Settled(
        already_settled=reply.verdict is _ALREADY,
        refunded=refunded,
        debited=debited,
        breaker=breaker,
    )


def _moved(policy: Policy, history: History) -> tuple[dict[str, float], dict[str, float]]:
    """What came back and what was added, by meter."""
    refunded: dict[str, float] = {}
    debited: dict[str, float] = {}
    for limit_id, moved in zip(history.limit_ids, history.moved, strict=True):
        limit = policy.by_id.get(limit_id)
        if limit is None or moved == 0:
            continue
        into, units = (refunded, -moved) if moved < 0 else (debited, moved)
        into[limit.meter] = max(into.get(limit.meter, 0), whole(units / limit.unit))
    return refunded, debited


def history_of(policy: Policy, lease: Sequence[float]) -> History | None:
    """What has come of a lease; None while it is not settled."""
    if lease[_SETTLED] == 0:
        return None
    known = None if policy.shape is None else policy.shape.history(lease)
    if known is not None:
        return known
    levels, end = read(lease, *scopes_of(lease))
    held = max(0.0, lease[_SETTLED] - levels[0].wall) if levels else 0.0
    return History([level.limit_id for level in levels], lease[end:], held)


def renewed(
    policy: Policy, report: Renew, ttl: float, numbers: Sequence[float]
) -> tuple[Renewed, History]:
    """The answer to a renewal, and what it has moved."""
    levels, end = read(numbers, *scopes_of(numbers))
    charged = charged_by_meter(policy, levels, charges_of(numbers))
    history = History([level.limit_id for level in levels], numbers[end:], 0.0)
    return Renewed(lease=report.lease, expires_in=ttl, charged=charged), history


def verdict_of(
    policy: Policy, numbers: Sequence[float], start: int = 2
) -> tuple[Limit | None, float, list[Level], list[LimitState]]:
    """The binding limit, the time to wait for it, and the level of every limit, which stand
    from place *start* on.
    """
    worst, wait = int(numbers[0]), numbers[1]
    levels, _ = read(numbers, start, len(policy.limits))
    limit = policy.limits[worst - 1] if worst else None
    return limit, wait, levels, states(policy, levels, frozenset())


def conflict(policy: Policy, request_id: str) -> Refusal:
    """The refusal of a request id that was used before for something else."""
    detail = f"request_id {request_id!r} was used with other parameters"
    return refuse(ErrorCode.REQUEST_CONFLICT, detail, resource=policy.resource)


def paused(policy: Policy, numbers: Sequence[float]) -> Refusal:
    """The refusal of a call that the breaker does not let pass: why, how long, which latch."""
    why, wait, latch = int(numbers[0]), numbers[1], int(numbers[2])
    config = policy.config.breaker
    # Nobody knows when an operator lets go: asking as seldom as after the longest opening.
    pause = seconds(config.max_open) if wait < 0 else wait / _MICRO
    told = breaking.told(why, latch, policy.resource, wait / _MICRO)
    return refuse(
        told.code, told.detail, resource=policy.resource, retry_after=pause, reason=told.reason
    )


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request stands in the queue, or would stand; times in microseconds. `most` is the
    need before it when the lines that wait now go on using their share.
    """

    limit: Limit | None
    wait: float
    place: int
    waiters: int
    now: float
    began: float
    needs: Sequence[float]
    most: Sequence[float]
    levels: Sequence[Level]


def standing(policy: Policy, numbers: Sequence[float]) -> Standing:
    """What enqueue says beside its verdict."""
    count = len(policy.limits)
    levels, end = read(numbers, _NEEDS + count, count)
    at = _NEEDS + count
    worst = int(numbers[0])
    return Standing(
        limit=policy.limits[worst - 1] if worst else None,
        wait=numbers[1],
        place=int(numbers[_PLACE]),
        waiters=int(numbers[_WAITERS]),
        now=numbers[at + TIME] - numbers[at + SKEW],  # also of a chain without limits
        began=numbers[_BEGAN],
        needs=numbers[_NEEDS : _NEEDS + count],
        most=numbers[end : end + count],
        levels=levels,
    )


def not_now(
    policy: Policy,
    code: ErrorCode,
    detail: str,
    amounts: Sequence[float],
    at: Standing,
    queue: QueueState,
) -> Refusal:
    """The refusal of a request that could have waited."""
    if at.limit is not None and costs.is_budget(at.limit):
        i = policy.limits.index(at.limit)
        detail = f"{detail}; {costs.spent_budget(policy, at.limit, amounts[i], at.levels[i])}"
    return refuse(
        code,
        detail,
        resource=policy.resource,
        retry_after=queue.predicted_wait,
        limit=at.limit.name if at.limit else None,
        would_fit=would_fit(policy, amounts, at.levels),
        limits=states(policy, at.levels, frozenset()),
        queue=queue,
    )


def denied(
    policy: Policy,
    amounts: Sequence[float],
    limit: Limit | None,
    wait: float,
    levels: Sequence[Level],
) -> Refusal:
    """The refusal of a request that a limit has no room for, now or ever."""
    seen = states(policy, levels, frozenset())
    assert limit is not None
    i = policy.limits.index(limit)
    if wait == NEVER:
        return refuse(
            ErrorCode.NEVER_FITS,
            costs.never(limit, amounts[i], levels[i]),
            resource=policy.resource,
            limit=limit.name,
            would_fit=would_fit(policy, amounts, levels),
            limits=seen,
        )
    return refuse(
        ErrorCode.RATE_LIMITED,
        _shortage(policy, limit, amounts[i], levels[i], wait),
        resource=policy.resource,
        retry_after=wait / _MICRO,
        limit=limit.name,
        would_fit=would_fit(policy, amounts, levels),
        limits=seen,
    )


def _shortage(policy: Policy, limit: Limit, asked: float, level: Level, wait: float) -> str:
    if costs.is_budget(limit):
        return costs.spent_budget(policy, limit, asked, level)
    room, wanted = amount(limit, left(limit, level)), whole(asked / limit.unit)
    if limit.window == "ramp":
        assert limit.config.ramp is not None
        period = limit.config.ramp.period
        return (
            f"{limit.name} lets use grow {limit.factor:g}-fold in "
            f"{period if isinstance(period, str) else f'{period:g} s'}, to "
            f"{limit_of(limit, level):g} {limit.meter} at present; of these {room:g} are left "
            f"and {wanted:g} are asked for; it fits in {wait / _MICRO:.3f} s"
        )
    return (
        f"{limit.name} has {room:g} {limit.meter} left and {wanted:g} are asked for; "
        f"it fits in {wait / _MICRO:.3f} s"
    )


def would_fit(policy: Policy, amounts: Sequence[float], levels: Sequence[Level]) -> int | None:
    """The largest token request that fits now: 0 when another limit refuses, None when no
    limit counts tokens.
    """
    rooms: list[int] = []
    for limit, asked, level in zip(policy.limits, amounts, levels, strict=True):
        if limit.shadow:
            continue
        if limit.window == "ramp" and used_in_period(level) <= 0:
            continue  # any amount passes then
        if charging.counts_tokens(limit):
            rooms.append(max(0, int(amount(limit, left(limit, level)))))
        elif not fits(limit, level, asked):
            rooms.append(0)
    return min(rooms) if rooms else None
