"""What a replica that decides alone tells its callers (engine/degraded). Pure."""

import math
from collections.abc import Sequence

from limiter_service.engine import charging, ids
from limiter_service.engine.ids import LeaseRef, Owed
from limiter_service.engine.levels import amount, whole
from limiter_service.engine.local import NEVER, Decision, Window
from limiter_service.engine.outages import Outage
from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.messages import Claim
from limiter_wire import Acquire, BreakerState, ErrorCode, Granted, LimitState, Problem

_MICRO = 1_000_000
RETRY_AFTER = 1.0
"""Seconds after which to ask again where nobody knows better."""


def granted(
    policy: Policy,
    request: Acquire,
    request_id: str,
    claim: Claim,
    windows: Sequence[Window],
    refused: frozenset[int],
    now: float,
) -> Granted:
    """A grant: its lease says what the store has still to charge."""
    owed = Owed(
        taken=int(now),
        ttl=int(claim.ttl),
        fingerprint=int(claim.fingerprint),
        charges={limit.id: c for limit, c in zip(policy.limits, claim.amounts, strict=True)},
    )
    ref = LeaseRef(
        policy.pool,
        policy.model,
        policy.tenant,
        request_id,
        int(claim.nonce),
        request.route,
        owed,
    )
    return Granted(
        lease=ids.encode(ref),
        expires_in=claim.ttl / _MICRO,
        charged=by_meter(policy, claim.amounts),
        limits=states_of(policy, windows, refused, now),
        degraded=True,
    )


def short(
    pool: Outage,
    policy: Policy,
    windows: Sequence[Window],
    amounts: Sequence[float],
    decision: Decision,
    now: float,
) -> Refusal | None:
    """The refusal of what a share has no room for."""
    if pool.presence.part == 0:
        why = "not every replica has counted this one yet"
        if not pool.presence.known:
            why = "this replica has never seen it, so it knows of no share"
        return lost(policy, f"the store is lost, and {why}")
    if pool.presence.part < pool.part:
        return lost(policy, "the store is lost, and somebody has joined meanwhile")
    if decision.place is None:
        return None
    limit, wanted = policy.limits[decision.place], amounts[decision.place]
    seen, asked = states_of(policy, windows, frozenset(), now), whole(wanted / limit.unit)
    if wanted > limit.capacity and limit.window != "ramp":
        detail = f"{limit.name} never holds {asked:g} {limit.meter}"
        return refuse(
            ErrorCode.NEVER_FITS,
            detail,
            resource=policy.resource,
            limit=limit.name,
            limits=seen,
            degraded=True,
        )
    share = f"one of {pool.presence.replicas} shares while the store is lost"
    if decision.wait == NEVER:
        return refuse(
            ErrorCode.STORE_UNAVAILABLE,
            f"{limit.name}: {asked:g} {limit.meter} do not fit into {share}",
            resource=policy.resource,
            retry_after=RETRY_AFTER,
            limit=limit.name,
            would_fit=would_fit(policy, windows, amounts, now),
            limits=seen,
            degraded=True,
        )
    room = amount(limit, windows[decision.place].left(now))
    return refuse(
        ErrorCode.RATE_LIMITED,
        f"{limit.name} has {room:g} {limit.meter} left of {share}, and "
        f"{asked:g} are asked for; it fits in {decision.wait / _MICRO:.3f} s",
        resource=policy.resource,
        retry_after=decision.wait / _MICRO,
        limit=limit.name,
        would_fit=would_fit(policy, windows, amounts, now),
        limits=seen,
        degraded=True,
    )


def lost(policy: Policy, detail: str) -> Refusal:
    """The refusal of what cannot be decided here."""
    return refuse(
        ErrorCode.STORE_UNAVAILABLE,
        detail,
        resource=policy.resource,
        retry_after=RETRY_AFTER,
    )


def circuit_of(told: Problem | None) -> BreakerState:
    """The state of a circuit that has last said this, or nothing."""
    if told is None or told.code is not ErrorCode.BREAKER_OPEN:
        return BreakerState.CLOSED
    return BreakerState.HALF_OPEN if told.reason == "probing" else BreakerState.OPEN


def by_meter(policy: Policy, charges: Sequence[float]) -> dict[str, float]:
    """The largest charge of each meter, without those of limits that are only watched."""
    charged: dict[str, float] = {}
    for limit, charge in zip(policy.limits, charges, strict=True):
        if charge >= 0:
            charged[limit.meter] = max(charged.get(limit.meter, 0), whole(charge / limit.unit))
    return charged


def states_of(
    policy: Policy, windows: Sequence[Window], refused: frozenset[int], now: float
) -> list[LimitState]:
    """What a caller sees: the whole limits, and what is left of this replica's shares."""
    return [
        LimitState(
            name=limit.name,
            meter=limit.meter,
            limit=whole(limit.limit),
            remaining=amount(limit, window.left(now)),
            reset_after=math.ceil(max(0.0, window.reset(now))) / _MICRO,
            per=limit.per,
            window=limit.window,
            scope=limit.scope,
            shadow=limit.shadow,
            refused=i in refused,
        )
        for i, (limit, window) in enumerate(zip(policy.limits, windows, strict=True))
    ]


def would_fit(
    policy: Policy, windows: Sequence[Window], amounts: Sequence[float], now: float
) -> int | None:
    """How many tokens would fit now; None where no limit is in force."""
    rooms: list[int] = []
    for limit, window, wanted in zip(policy.limits, windows, amounts, strict=True):
        if limit.shadow:
            continue
        if charging.counts_tokens(limit):
            rooms.append(max(0, int(amount(limit, window.left(now)))))
        elif window.wait(wanted, now) != 0:
            rooms.append(0)
    return min(rooms) if rooms else None
