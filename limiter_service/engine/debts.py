"""Leases that were granted without the store: charged by whoever meets them first."""

from collections.abc import Sequence

from limiter_service.engine.answers import conflict, granted, nonce_of
from limiter_service.engine.calls import Calls
from limiter_service.engine.ids import LeaseRef
from limiter_service.engine.journal import REMEMBERED, late, still_counts
from limiter_service.engine.outages import Outages
from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import refuse
from limiter_service.store.commands import Commands
from limiter_service.store.messages import Claim
from limiter_wire import Acquire, ErrorCode, Granted

_MICRO = 1_000_000


class Debts:
    """Charges them. Every method raises Refusal when it has no answer."""

    def __init__(self, commands: Commands, calls: Calls, outages: Outages) -> None:
        self._commands, self._calls, self._outages = commands, calls, outages

    async def late(
        self, policy: Policy, request: Acquire, request_id: str, claim: Claim
    ) -> Granted:
        """Charge what a caller has granted to itself."""
        assert request.since is not None
        now = self._calls.now_us()
        taken = now - request.since * _MICRO
        numbers = await self._charge(policy, request.tenant, request_id, claim, taken, now)
        if request.ttl is None and numbers[1] != claim.fingerprint:
            raise conflict(policy, request_id)
        return granted(policy, request_id, numbers, request.route)

    async def _charge(
        self,
        policy: Policy,
        tenant: str,
        request_id: str,
        claim: Claim,
        taken: float,
        now: float,
    ) -> Sequence[float]:
        """The lease that the store has after it has charged *claim*, granted elsewhere."""
        key, claim = policy.keys.lease(tenant, request_id), late(claim, taken, now)
        policy.chain(now)
        debits = [
            amount if amount > 0 and still_counts(policy, limit, taken, now) else 0.0
            for limit, amount in zip(policy.limits, claim.amounts, strict=True)
        ]
        reply = await self._calls.run(
            policy, lambda chain: self._commands.charge(chain, key, claim, debits, None)
        )
        # Until the next look: if the store is lost before that, its share is not granted again.
        self._outages.taken(policy, debits)
        return reply.numbers

    async def charged(self, ref: LeaseRef, policy: Policy) -> LeaseRef:
        """*ref* as the store knows it: a lease that was granted while it was lost is charged by
        whoever meets it first.
        """
        owed = ref.owed
        if owed is None:
            return ref
        now = self._outages.now_us(self._outages.pool(ref.pool))  # as who has granted it
        if now - owed.taken > REMEMBERED:  # charged or not: the store may have forgotten it
            raise refuse(ErrorCode.UNKNOWN_LEASE, "no such lease: it ended long ago")
        claim = Claim(
            nonce=ref.nonce,
            fingerprint=owed.fingerprint,
            ttl=owed.ttl,
            remember=policy.remember_us,
            amounts=[owed.charges.get(limit.id, 0.0) for limit in policy.limits],
        )
        numbers = await self._charge(policy, ref.tenant, ref.request_id, claim, owed.taken, now)
        return LeaseRef(
            ref.pool, ref.model, ref.tenant, ref.request_id, nonce_of(numbers), ref.route
        )
