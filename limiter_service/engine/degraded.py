"""Acquire, check, settle and renew while the store of a pool is lost (engine/outages).

Nothing here waits for the store. What the breaker last said goes on holding: a circuit that was
open refuses until its time is over, then lets one call a second through until one succeeds.
Callers who may wait are held in the order in which they come, one line per resource.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from limiter_service.engine import breaking, charging, ids
from limiter_service.engine.breaking import Class
from limiter_service.engine.ids import LeaseRef, Owed
from limiter_service.engine.journal import Entry, charges_of
from limiter_service.engine.levels import amount, whole
from limiter_service.engine.local import NEVER, Decision, Window, decide
from limiter_service.engine.outages import Outage, Outages, Phase
from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.messages import KEEP, Claim
from limiter_wire import (
    Acquire,
    BreakerState,
    Checked,
    ErrorCode,
    Granted,
    LimitState,
    LimitView,
    Meter,
    Outcome,
    Problem,
    QueueState,
    Renew,
    Renewed,
    ResourceView,
    Settle,
    Settled,
)

_MICRO = 1_000_000
_RETRY_AFTER = 1.0
_PROBE_EVERY = 1.0
_LEAST_PAUSE = 0.001
_MOST_PAUSED = 1000


class Pause(msgspec.Struct):
    """What the breaker last said of a resource: until when (loop time), and in which words."""

    until: float
    lasts: float
    code: ErrorCode
    reason: str | None
    detail: str


class Pauses:
    """Resources that the breaker refuses, as this replica last heard; the oldest go first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Pause] = OrderedDict()

    def heard(self, refusal: Refusal, now: float) -> None:
        """Take in what the breaker has refused."""
        told = refusal.problem
        if told.resource is None or told.code is ErrorCode.RETRY_BUDGET:
            return
        lasts = told.retry_after or 0.0
        pause = Pause(now + lasts, lasts, told.code, told.reason, told.detail)
        self._known[told.resource] = pause
        self._known.move_to_end(told.resource)
        if len(self._known) > _MOST_PAUSED:
            self._known.popitem(last=False)

    def passed(self, resource: str) -> None:
        """The breaker has let a call pass."""
        if self._known:
            self._known.pop(resource, None)

    def tries(self, resource: str, now: float) -> None:
        """A call passes when the time is over: the next does a second later."""
        pause = self._known.get(resource)
        if pause is not None:
            pause.until = now + _PROBE_EVERY

    def refusal(self, resource: str, now: float) -> Refusal | None:
        """What a call is told that may not pass now."""
        pause = self._known.get(resource)
        left = 0.0 if pause is None else pause.until - now
        if pause is None or left <= 0:
            return None
        return refuse(
            pause.code,
            f"{pause.detail}; the store is lost, and this is what it last said",
            resource=resource,
            retry_after=left,
            reason=pause.reason,
            degraded=True,
        )

    def told(self, resource: str, report: Settle, now: float) -> None:
        """Take in how a call has ended."""
        pause = self._known.get(resource)
        if pause is None:
            return
        match breaking.class_of(report):
            case Class.SUCCESS:
                del self._known[resource]
            case Class.FAILURE | Class.THROTTLE:
                pause.until = now + max(pause.lasts, _PROBE_EVERY)
            case _:
                pass


class _Line:
    """Those who wait for one resource at this replica."""

    def __init__(self) -> None:
        self.turn, self.depth = asyncio.Lock(), 0


class Degraded:
    """The use cases. Every method raises Refusal when it has no answer."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages
        self.pauses = Pauses()
        self._lines: dict[str, _Line] = {}
        self._closing = False

    def close(self) -> None:
        """Let whoever waits here ask another replica."""
        self._closing = True
        for pool in self._outages.all():
            pool.turn(pool.phase)

    def is_aside(self, policy: Policy) -> bool:
        """Whether the store of a pool decides, as it does when all is well."""
        return self._outages.pool(policy.pool).phase is Phase.STORE

    async def stands_in(self, policy: Policy) -> bool:
        """Whether this replica decides for a pool now; waits while nobody does."""
        pool = self._outages.pool(policy.pool)
        while pool.phase is Phase.HELD:
            await pool.changed.wait()
        return pool.phase is not Phase.STORE

    async def acquire(
        self, policy: Policy, request: Acquire, request_id: str, claim: Claim, hold: float
    ) -> Granted | None:
        """Take from this replica's share, or wait for it at most *hold* seconds; None when the
        store is back.
        """
        await asyncio.sleep(0)  # nothing here waits for anything: the watch must have its turn
        pool = self._outages.pool(policy.pool)
        if pool.phase in {Phase.STORE, Phase.HELD}:
            return None
        line = self._lines.get(policy.resource)
        if hold > 0:
            return await self._in_line(pool, policy, request, request_id, claim, hold)
        if line is not None:
            raise self._behind(pool, policy, claim.amounts)
        return self._take(pool, policy, request, request_id, claim)

    async def _in_line(
        self,
        pool: Outage,
        policy: Policy,
        request: Acquire,
        request_id: str,
        claim: Claim,
        hold: float,
    ) -> Granted | None:
        """First come, first served: whoever waits holds the line, the others wait for that."""
        deadline = asyncio.get_running_loop().time() + hold
        line = self._lines.setdefault(policy.resource, _Line())
        line.depth += 1
        last: Refusal | None = None
        try:
            async with asyncio.timeout_at(deadline), line.turn:
                while pool.phase in {Phase.ALONE, Phase.CHARGING}:
                    if self._closing:
                        raise _closed(policy)
                    try:
                        return self._take(pool, policy, request, request_id, claim)
                    except Refusal as refusal:
                        last = refusal
                    left = deadline - asyncio.get_running_loop().time()
                    await _either(pool.changed, _pause(last, left))
                return None
        except TimeoutError:
            told = (last or self._behind(pool, policy, claim.amounts)).problem
            raise refuse(
                ErrorCode.WAIT_TIMEOUT,
                f"the wait is over; {told.detail}",
                resource=policy.resource,
                retry_after=told.retry_after,
                limit=told.limit,
                limits=told.limits,
                degraded=True,
            ) from None
        finally:
            line.depth -= 1
            if line.depth == 0:
                self._lines.pop(policy.resource, None)

    def _take(
        self, pool: Outage, policy: Policy, request: Acquire, request_id: str, claim: Claim
    ) -> Granted:
        known = pool.journal.find(policy.tenant, request_id)
        if known is not None:
            return _again(known, claim)
        now = self._outages.now_us(pool)
        refusal = self._refusal(pool, policy, claim.amounts, now)
        if refusal is not None:
            raise refusal
        self.pauses.tries(policy.resource, asyncio.get_running_loop().time())
        windows = pool.windows_of(policy, now)
        refused = frozenset(
            i
            for i, (limit, window, wanted) in enumerate(
                zip(policy.limits, windows, claim.amounts, strict=True)
            )
            if limit.shadow and window.wait(wanted, now) != 0
        )
        charges = charges_of(claim.amounts, refused)
        for window, charge in zip(windows, charges, strict=True):
            if charge >= 0:
                window.take(charge, now, claim.nonce, claim.ttl)
        claim = replace(claim, amounts=charges)
        entry = Entry(
            policy=policy,
            request_id=request_id,
            claim=claim,
            taken=now,
            granted=_granted(policy, request, request_id, claim, windows, refused, now),
            net=[max(0.0, charge) for charge in charges],
        )
        pool.journal.add(entry)
        pool.granted += 1
        return entry.granted

    def _refusal(
        self, pool: Outage, policy: Policy, amounts: Sequence[float], now: float
    ) -> Refusal | None:
        """Why *amounts* are not granted here now; None where they are."""
        mode = self._outages.mode(policy.pool)
        if mode == "closed":
            return _lost(policy, f"the store is lost: {pool.reason}")
        if pool.journal.full:
            return _lost(policy, "the store is lost, and no more leases can be remembered")
        if pool.is_strange(policy):
            return _lost(policy, "the store is lost, and no more tenants can be told apart")
        paused = self.pauses.refusal(policy.resource, asyncio.get_running_loop().time())
        if paused is not None:
            return paused
        windows = pool.windows_of(policy, now)
        decision = decide(policy.limits, windows, amounts, now)
        return _short(pool, policy, windows, amounts, decision, now) if mode == "degrade" else None

    def _behind(self, pool: Outage, policy: Policy, amounts: Sequence[float]) -> Refusal:
        """The refusal of somebody who would have to stand behind others and may not."""
        now = self._outages.now_us(pool)
        windows = pool.windows_of(policy, now)
        wait = max(decide(policy.limits, windows, amounts, now).wait, 0.0) / _MICRO
        line = self._lines.get(policy.resource)
        depth = line.depth if line else 0
        state = QueueState(depth=depth, predicted_wait=wait, predicted_wait_p90=wait)
        return refuse(
            ErrorCode.RATE_LIMITED,
            f"{depth} wait for {policy.resource} at this replica while the store is lost",
            resource=policy.resource,
            retry_after=max(wait, _RETRY_AFTER),
            limits=_states(policy, windows, frozenset(), now),
            queue=state,
            degraded=True,
        )

    def check(self, policy: Policy, amounts: Sequence[float]) -> Checked:
        """Say what acquire would answer here and now."""
        pool, mode = self._outages.pool(policy.pool), self._outages.mode(policy.pool)
        now = self._outages.now_us(pool)
        refusal = self._refusal(pool, policy, amounts, now)
        if refusal is not None and (mode == "closed" or not pool.presence.known):
            raise refusal
        if policy.resource in self._lines:
            refusal = self._behind(pool, policy, amounts)
        told = None if refusal is None else refusal.problem
        windows = pool.windows_of(policy, now)
        return Checked(
            would_grant=told is None,
            retry_after=0.0 if told is None else told.retry_after or 0.0,
            limit=None if told is None else told.limit,
            breaker=_circuit(told),
            would_fit=_would_fit(policy, windows, amounts, now),
            never_fits=told is not None and told.code is ErrorCode.NEVER_FITS,
            limits=_states(policy, windows, frozenset(), now),
            degraded=True,
        )

    def view(self, policy: Policy) -> ResourceView:
        """What is left of this replica's shares."""
        pool = self._outages.pool(policy.pool)
        if self._outages.mode(policy.pool) == "closed" or not pool.presence.known:
            raise _lost(policy, f"the store is lost: {pool.reason}")
        now = self._outages.now_us(pool)
        part = 1.0 if self._outages.mode(policy.pool) == "open" else pool.presence.part
        windows = pool.windows_of(policy, now)
        for window in windows:
            window.advance(now)
        seen = zip(policy.limits, _states(policy, windows, frozenset(), now), strict=True)
        return ResourceView(
            resource=policy.resource,
            tenant=policy.tenant,
            limits=[
                LimitView(
                    **msgspec.structs.asdict(state),
                    capacity=whole(limit.capacity / limit.unit * part),
                    configured=whole(limit.limit),
                    learn=limit.learn,
                )
                for limit, state in seen
            ],
            degraded=True,
        )

    def settle(self, policy: Policy, ref: LeaseRef, report: Settle) -> Settled | None:
        """Settle a lease that was granted here, or keep the report for later; None when it has
        been charged, so that the store can settle it.
        """
        pool = self._outages.pool(policy.pool)
        if self._outages.mode(policy.pool) == "closed":
            raise _lost(policy, f"the store is lost: {pool.reason}")
        self.pauses.told(policy.resource, report, asyncio.get_running_loop().time())
        if report.phase == "first_token":
            return Settled(settled=False, degraded=True)
        now = self._outages.now_us(pool)
        entry = pool.journal.find(ref.tenant, ref.request_id)
        if entry is None or entry.claim.nonce != ref.nonce or entry.debits is not None:
            if pool.phase is not Phase.ALONE:
                return None
            return self._keep(pool, policy, ref, report, now)
        if entry.settled is not None:
            return replace(entry.settled, already_settled=True)
        if now >= entry.until():
            detail = "the lease expired before this report; its tokens stay spent"
            raise refuse(ErrorCode.LEASE_EXPIRED, detail, resource=policy.resource, degraded=True)
        entry.settled = _settle(entry, pool.windows_of(entry.policy, now), report, now)
        pool.turn(pool.phase)  # who waits may fit now
        return entry.settled

    def _keep(
        self, pool: Outage, policy: Policy, ref: LeaseRef, report: Settle, now: float
    ) -> Settled:
        if not pool.presence.known:
            raise _lost(policy, "the store is lost, and this replica has never seen it")
        if report.block is not None and report.lease in pool.journal.reports:
            pool.journal.reports[report.lease] = report  # it says all of the block
        elif report.lease not in pool.journal.reports:
            if pool.journal.full:
                raise _lost(policy, "the store is lost, and no more reports can be remembered")
            pool.journal.reports[report.lease] = report
            if ref.owed is None:
                pool.ended(policy, report.lease, now)
                pool.turn(pool.phase)
        return Settled(degraded=True)

    def renew(self, policy: Policy, ref: LeaseRef, report: Renew) -> Renewed | None:
        """Let a lease that was granted here live on; None when it has been charged. Raises
        Refusal for others: they cannot be reached.
        """
        pool = self._outages.pool(policy.pool)
        entry = pool.journal.find(ref.tenant, ref.request_id)
        if entry is None or entry.claim.nonce != ref.nonce or entry.debits is not None:
            if pool.phase is not Phase.ALONE:
                return None
            raise _lost(policy, "the store is lost, and the lease is kept there")
        now = self._outages.now_us(pool)
        if entry.settled is not None or now >= entry.until():
            detail = "the lease was settled, or has expired"
            raise refuse(ErrorCode.LEASE_EXPIRED, detail, resource=policy.resource, degraded=True)
        ttl = policy.lease_ttl if report.ttl is None else report.ttl
        used = charging.used(entry.policy, report.usage, None, Outcome.SUCCESS)
        charges = list(entry.claim.amounts)
        windows = pool.windows_of(entry.policy, now)
        for i, (window, limit) in enumerate(zip(windows, entry.policy.limits, strict=True)):
            if limit.window == "concurrency":
                window.take(1.0, now, entry.claim.nonce, ttl * _MICRO)
            elif charges[i] >= 0 and used[i] > charges[i]:
                window.settle(used[i] - charges[i], now, entry.taken, entry.claim.nonce)
                charges[i] = entry.net[i] = used[i]
        life = now - entry.taken + ttl * _MICRO
        entry.claim = replace(entry.claim, ttl=int(life), amounts=charges)
        return Renewed(
            lease=report.lease,
            expires_in=ttl,
            charged=_by_meter(entry.policy, charges),
            degraded=True,
        )


def _circuit(told: Problem | None) -> BreakerState:
    """The state of a circuit that has last said this, or nothing."""
    if told is None or told.code is not ErrorCode.BREAKER_OPEN:
        return BreakerState.CLOSED
    return BreakerState.HALF_OPEN if told.reason == "probing" else BreakerState.OPEN


def _short(
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
        return _lost(policy, f"the store is lost, and {why}")
    if pool.presence.part < pool.part:
        return _lost(policy, "the store is lost, and somebody has joined meanwhile")
    if decision.place is None:
        return None
    limit, wanted = policy.limits[decision.place], amounts[decision.place]
    seen, asked = _states(policy, windows, frozenset(), now), whole(wanted / limit.unit)
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
            retry_after=_RETRY_AFTER,
            limit=limit.name,
            would_fit=_would_fit(policy, windows, amounts, now),
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
        would_fit=_would_fit(policy, windows, amounts, now),
        limits=seen,
        degraded=True,
    )


def _settle(entry: Entry, windows: Sequence[Window], report: Settle, now: float) -> Settled:
    """Move every charge of *entry* to what was used."""
    policy, nonce = entry.policy, entry.claim.nonce
    used = charging.used(
        policy,
        report.usage,
        report.cost_usd,
        report.outcome,
        None if report.cause is None else report.cause.refund,
    )
    entry.moved = [0.0] * len(policy.limits)
    refunded: dict[str, float] = {}
    debited: dict[str, float] = {}
    for i, (limit, window) in enumerate(zip(policy.limits, windows, strict=True)):
        window.advance(now)
        charge = entry.claim.amounts[i]
        if limit.window == "concurrency":
            window.settle(0.0, now, entry.taken, nonce)
        elif charge >= 0 and used[i] != KEEP:
            moved = window.settle(used[i] - charge, now, entry.taken, nonce)
            entry.moved[i], entry.net[i] = moved, charge + moved
            if moved:
                into, units = (refunded, -moved) if moved < 0 else (debited, moved)
                into[limit.meter] = max(into.get(limit.meter, 0), whole(units / limit.unit))
    return Settled(refunded=refunded, debited=debited, degraded=True)


def _again(known: Entry, claim: Claim) -> Granted:
    if known.claim.fingerprint != claim.fingerprint:
        detail = f"request_id {known.request_id!r} was used with other parameters"
        raise refuse(
            ErrorCode.REQUEST_CONFLICT, detail, resource=known.policy.resource, degraded=True
        )
    return replace(known.granted, settled=known.settled is not None)


def _granted(
    policy: Policy,
    request: Acquire,
    request_id: str,
    claim: Claim,
    windows: Sequence[Window],
    refused: frozenset[int],
    now: float,
) -> Granted:
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
        charged=_by_meter(policy, claim.amounts),
        limits=_states(policy, windows, refused, now),
        degraded=True,
    )


def _by_meter(policy: Policy, charges: Sequence[float]) -> dict[str, float]:
    charged: dict[str, float] = {}
    for limit, charge in zip(policy.limits, charges, strict=True):
        if charge >= 0:
            charged[limit.meter] = max(charged.get(limit.meter, 0), whole(charge / limit.unit))
    return charged


def _states(
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


def _would_fit(
    policy: Policy, windows: Sequence[Window], amounts: Sequence[float], now: float
) -> int | None:
    rooms: list[int] = []
    for limit, window, wanted in zip(policy.limits, windows, amounts, strict=True):
        if limit.shadow:
            continue
        if charging.counts_tokens(limit):
            rooms.append(max(0, int(amount(limit, window.left(now)))))
        elif window.wait(wanted, now) != 0:
            rooms.append(0)
    return min(rooms) if rooms else None


def _pause(refusal: Refusal, left: float) -> float:
    """How long to wait before asking again. Raises the refusal where waiting does not help."""
    told = refusal.problem
    pause = told.retry_after or 0.0
    slots = {limit.name for limit in told.limits if limit.meter is Meter.CONCURRENCY}
    if told.limit in slots:  # they come back with settles; the time is only the latest
        return max(pause, _LEAST_PAUSE)
    if told.code is ErrorCode.RATE_LIMITED and pause > left:
        raise refuse(
            ErrorCode.WAIT_TOO_LONG,
            f"the wait is longer than max_wait; {told.detail}",
            resource=told.resource,
            retry_after=pause,
            limit=told.limit,
            limits=told.limits,
            degraded=True,
        )
    paused = told.code in {ErrorCode.BREAKER_OPEN, ErrorCode.COOLDOWN}
    if told.code is not ErrorCode.RATE_LIMITED and not (paused and pause <= left):
        raise refusal
    return max(pause, _LEAST_PAUSE)


def _closed(policy: Policy) -> Refusal:
    detail = "this replica is shutting down; ask again with the same request_id"
    return refuse(
        ErrorCode.SHUTTING_DOWN, detail, resource=policy.resource, retry_after=0.0, degraded=True
    )


async def _either(changed: asyncio.Event, pause: float) -> None:
    try:
        async with asyncio.timeout(pause):
            await changed.wait()
    except TimeoutError:
        return


def _lost(policy: Policy, detail: str) -> Refusal:
    return refuse(
        ErrorCode.STORE_UNAVAILABLE,
        detail,
        resource=policy.resource,
        retry_after=_RETRY_AFTER,
    )
