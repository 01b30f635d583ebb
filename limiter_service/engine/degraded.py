"""Acquire, check, settle and renew while the store of a pool is lost (engine/outages).

Nothing here waits for the store. What the breaker last said goes on holding (engine/pauses), and
what callers are told stands in engine/alone. Callers who may wait are held in the order in which
they come, one line per resource.
"""

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from limiter_service.engine import charging
from limiter_service.engine.alone import (
    RETRY_AFTER,
    by_meter,
    circuit_of,
    granted,
    lost,
    short,
    states_of,
    would_fit,
)
from limiter_service.engine.ids import LeaseRef
from limiter_service.engine.journal import Entry, charges_of
from limiter_service.engine.levels import whole
from limiter_service.engine.local import Window, decide
from limiter_service.engine.outages import Outage, Outages, Phase
from limiter_service.engine.pauses import Pauses
from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.messages import KEEP, Claim
from limiter_wire import (
    Acquire,
    Checked,
    ErrorCode,
    Granted,
    LimitView,
    Meter,
    Outcome,
    QueueState,
    Renew,
    Renewed,
    ResourceView,
    Settle,
    Settled,
)

_MICRO = 1_000_000
_LEAST_PAUSE = 0.001


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
            granted=granted(policy, request, request_id, claim, windows, refused, now),
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
            return lost(policy, f"the store is lost: {pool.reason}")
        if pool.journal.full:
            return lost(policy, "the store is lost, and no more leases can be remembered")
        if pool.is_strange(policy):
            return lost(policy, "the store is lost, and no more tenants can be told apart")
        paused = self.pauses.refusal(policy.resource, asyncio.get_running_loop().time())
        if paused is not None:
            return paused
        windows = pool.windows_of(policy, now)
        decision = decide(policy.limits, windows, amounts, now)
        return short(pool, policy, windows, amounts, decision, now) if mode == "degrade" else None

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
            retry_after=max(wait, RETRY_AFTER),
            limits=states_of(policy, windows, frozenset(), now),
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
            breaker=circuit_of(told),
            would_fit=would_fit(policy, windows, amounts, now),
            never_fits=told is not None and told.code is ErrorCode.NEVER_FITS,
            limits=states_of(policy, windows, frozenset(), now),
            degraded=True,
        )

    def view(self, policy: Policy) -> ResourceView:
        """What is left of this replica's shares."""
        pool = self._outages.pool(policy.pool)
        if self._outages.mode(policy.pool) == "closed" or not pool.presence.known:
            raise lost(policy, f"the store is lost: {pool.reason}")
        now = self._outages.now_us(pool)
        part = 1.0 if self._outages.mode(policy.pool) == "open" else pool.presence.part
        windows = pool.windows_of(policy, now)
        for window in windows:
            window.advance(now)
        seen = zip(policy.limits, states_of(policy, windows, frozenset(), now), strict=True)
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
            raise lost(policy, f"the store is lost: {pool.reason}")
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
            raise lost(policy, "the store is lost, and this replica has never seen it")
        if report.block is not None and report.lease in pool.journal.reports:
            pool.journal.reports[report.lease] = report  # it says all of the block
        elif report.lease not in pool.journal.reports:
            if pool.journal.full:
                raise lost(policy, "the store is lost, and no more reports can be remembered")
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
            raise lost(policy, "the store is lost, and the lease is kept there")
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
            charged=by_meter(entry.policy, charges),
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
