"""Acquire, check, renew and settle: from a caller's words to one script call and back."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence

from limiter_service.engine import charging, ids
from limiter_service.engine.charging import PriceMissing
from limiter_service.engine.expectation import Expectation
from limiter_service.engine.ids import LeaseRef
from limiter_service.engine.levels import Level, amount, left, read, states, whole
from limiter_service.engine.policy import Limit, Policies, Policy, UnknownResource
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.commands import NEVER, Chain, Claim, Commands, Reply, Verdict
from limiter_service.store.errors import StoreError, StoreUnavailable
from limiter_service.store.keys import Keys
from limiter_wire import (
    Acquire,
    Checked,
    ErrorCode,
    Granted,
    LimitState,
    Outcome,
    Renew,
    Renewed,
    ResourceList,
    ResourceView,
    Settle,
    Settled,
)

_MICRO = 1_000_000
_STORE_RETRY_AFTER = 1.0
_MOST_LISTED = 1000  # callers make up names for wildcards

# Where the parts of a lease stand (lua/lib/lease).
_NONCE, _TTL, _SETTLED, _LIMITS, _CHARGES = 0, 2, 4, 5, 6
_REFUSED = -1.0


class Engine:
    """The use cases of the service. Every method raises Refusal when it has no answer.

    `wall_us` is this host's clock in Unix microseconds: only for choosing the boundaries of
    calendar windows, and the scripts refuse a wrong choice.
    """

    def __init__(
        self, commands: Commands, policies: Policies, wall_us: Callable[[], float], prefix: str
    ) -> None:
        self._commands, self._wall_us, self._prefix = commands, wall_us, prefix
        self.policies = policies
        self._expectation = Expectation()
        self._ahead = 0.0  # how far the store's clock is ahead of ours, once it told us

    async def acquire(self, request: Acquire) -> Granted:
        """Reserve budget on every limit of the chain, or refuse."""
        policy = self._policy(request.resource, request.tenant)
        amounts = self._amounts(policy, request)
        request_id = request.request_id or uuid.uuid4().hex
        ttl = policy.lease_ttl if request.ttl is None else request.ttl
        claim = Claim(
            nonce=ids.new_nonce(),
            fingerprint=_fingerprint(request),
            ttl=int(ttl * _MICRO),
            remember=int(policy.remember * _MICRO),
            amounts=amounts,
        )
        key = Keys(policy.pool, self._prefix).lease(request.tenant, request_id)
        reply = await self._call(policy, lambda chain: self._commands.acquire(chain, key, claim))
        match reply.verdict:
            case Verdict.DONE | Verdict.REPEATED:
                return _granted(policy, request_id, reply.numbers)
            case Verdict.CONFLICT:
                raise refuse(
                    ErrorCode.REQUEST_CONFLICT,
                    f"request_id {request_id!r} was used with other parameters",
                    resource=policy.resource,
                )
            case _:
                raise _denied(policy, amounts, reply.numbers)

    async def check(self, request: Acquire) -> Checked:
        """Say what acquire would answer; change nothing."""
        policy = self._policy(request.resource, request.tenant)
        amounts = self._amounts(policy, request)
        tag = ids.new_nonce()
        reply = await self._call(policy, lambda chain: self._commands.check(chain, tag, amounts))
        worst, wait, levels, seen = _verdict(policy, reply.numbers)
        return Checked(
            would_grant=worst is None,
            retry_after=0.0 if wait == NEVER else wait / _MICRO,
            limit=worst.name if worst else None,
            would_fit=_would_fit(policy, amounts, levels),
            never_fits=wait == NEVER,
            limits=seen,
        )

    async def settle(self, report: Settle) -> Settled:
        """Replace what the lease reserved by what was used; the same answer to a repeat."""
        ref, policy = self._lease(report.lease)
        if report.phase == "first_token":
            return Settled(settled=False)
        used = charging.used(policy, report.usage, report.cost_usd, report.outcome)
        tag = ids.new_nonce()
        key = Keys(ref.pool, self._prefix).lease(ref.tenant, ref.request_id)
        reply = await self._call(
            policy, lambda chain: self._commands.settle(chain, key, tag, ref.nonce, used)
        )
        _refuse_dead_lease(reply, policy)
        if reply.verdict is Verdict.DONE and report.usage and report.outcome is Outcome.SUCCESS:
            self._expectation.learn(policy.resource, report.usage.output_tokens)
        return _settled(policy, reply)

    async def renew(self, report: Renew) -> Renewed:
        """Let the lease live on, and charge what it has used beyond its reservation."""
        ref, policy = self._lease(report.lease)
        used = charging.used(policy, report.usage, None, Outcome.SUCCESS)
        ttl = policy.lease_ttl if report.ttl is None else report.ttl
        tag = ids.new_nonce()
        key = Keys(ref.pool, self._prefix).lease(ref.tenant, ref.request_id)
        reply = await self._call(
            policy,
            lambda chain: self._commands.renew(chain, key, tag, ref.nonce, int(ttl * _MICRO), used),
        )
        _refuse_dead_lease(reply, policy)
        if reply.verdict is Verdict.ALREADY:
            raise refuse(ErrorCode.LEASE_EXPIRED, "the lease was settled", resource=policy.resource)
        levels, _ = read(reply.numbers, *_scopes_of(reply.numbers))
        return Renewed(
            lease=report.lease,
            expires_in=ttl,
            charged=_charged(policy, levels, _charges(reply.numbers)),
        )

    async def view(self, resource: str, tenant: str) -> ResourceView:
        """The live state of every limit that *resource* meets for *tenant*."""
        policy = self._policy(resource, tenant)
        tag = ids.new_nonce()
        reply = await self._call(policy, lambda chain: self._commands.snapshot(chain, tag))
        levels, _ = read(reply.numbers, 1, len(policy.limits))
        slots = [
            int(level.cell[0])
            for level, limit in zip(levels, policy.limits, strict=True)
            if limit.window == "concurrency"
        ]
        return ResourceView(
            resource=policy.resource,
            tenant=tenant,
            limits=states(policy, levels, frozenset()),
            in_flight=max(slots) if slots else None,
        )

    async def views(self, tenant: str) -> ResourceList:
        """The live state of every resource that is configured or was asked for."""
        names = self.policies.resources(_MOST_LISTED)
        return ResourceList(
            resources=list(await asyncio.gather(*(self.view(name, tenant) for name in names)))
        )

    async def _call(self, policy: Policy, call: Callable[[Chain], Awaitable[Reply]]) -> Reply:
        """Run *call*; once more when the store's clock is in another calendar window."""
        try:
            for _ in range(3):
                reply = await call(policy.chain(self._wall_us() + self._ahead))
                if reply.verdict is not Verdict.STALE:
                    return reply
                self._ahead = reply.numbers[0] - self._wall_us()
        except StoreError as error:
            raise _store_refusal(error, policy.resource) from error
        raise refuse(
            ErrorCode.STORE_UNAVAILABLE,
            "the store's clock does not stay in any calendar window",
            resource=policy.resource,
            retry_after=_STORE_RETRY_AFTER,
        )

    def _policy(self, resource: str, tenant: str) -> Policy:
        try:
            return self.policies.policy(resource, tenant)
        except UnknownResource as error:
            raise refuse(ErrorCode.UNKNOWN_RESOURCE, str(error), resource=resource) from error

    def _lease(self, lease: str) -> tuple[LeaseRef, Policy]:
        ref = ids.decode(lease)
        if ref is None:
            raise refuse(ErrorCode.UNKNOWN_LEASE, "the lease id was not given out by this service")
        try:
            return ref, self.policies.policy(f"{ref.pool}/{ref.model}", ref.tenant)
        except UnknownResource as error:
            raise refuse(ErrorCode.UNKNOWN_LEASE, str(error)) from error

    def _amounts(self, policy: Policy, request: Acquire) -> list[float]:
        if (request.tokens is None) == (request.input_tokens is None):
            raise refuse(
                ErrorCode.INVALID,
                "give one of `tokens` and `input_tokens`",
                resource=request.resource,
            )
        if request.tokens is not None and request.max_output_tokens is not None:
            raise refuse(
                ErrorCode.INVALID,
                "`max_output_tokens` goes with `input_tokens`, not with `tokens`",
                resource=request.resource,
            )
        expected = self._expectation.expected(policy.resource)
        try:
            return charging.reserve(policy, request, expected)
        except PriceMissing as error:
            raise refuse(ErrorCode.INVALID, str(error), resource=policy.resource) from error


def _fingerprint(request: Acquire) -> int:
    return ids.fingerprint(
        request.resource,
        request.tokens,
        request.input_tokens,
        request.max_output_tokens,
        request.cost_usd,
        request.ttl,
    )


def _store_refusal(error: StoreError, resource: str) -> Refusal:
    if isinstance(error, StoreUnavailable):
        detail = f"the store did not answer: {error}"
    else:
        detail = f"the store's answer makes no sense: {error}"
    return refuse(
        ErrorCode.STORE_UNAVAILABLE, detail, resource=resource, retry_after=_STORE_RETRY_AFTER
    )


def _refuse_dead_lease(reply: Reply, policy: Policy) -> None:
    if reply.verdict is Verdict.UNKNOWN:
        raise refuse(
            ErrorCode.UNKNOWN_LEASE,
            "no such lease: it was never granted, or ended long ago",
            resource=policy.resource,
        )
    if reply.verdict is Verdict.EXPIRED:
        raise refuse(
            ErrorCode.LEASE_EXPIRED,
            "the lease expired before this report; its tokens stay spent",
            resource=policy.resource,
        )


def _scopes_of(lease: Sequence[float]) -> tuple[int, int]:
    limits = int(lease[_LIMITS])
    return _CHARGES + limits, limits


def _charges(lease: Sequence[float]) -> Sequence[float]:
    return lease[_CHARGES : _CHARGES + int(lease[_LIMITS])]


def _granted(policy: Policy, request_id: str, lease: Sequence[float]) -> Granted:
    levels, _ = read(lease, *_scopes_of(lease))
    charges = _charges(lease)
    refused = frozenset(i for i, charge in enumerate(charges) if charge == _REFUSED)
    ref = LeaseRef(policy.pool, policy.model, policy.tenant, request_id, int(lease[_NONCE]))
    return Granted(
        lease=ids.encode(ref),
        expires_in=lease[_TTL] / _MICRO,
        charged=_charged(policy, levels, charges),
        limits=states(policy, levels, refused),
        settled=lease[_SETTLED] > 0,
    )


def _charged(policy: Policy, levels: Sequence[Level], charges: Sequence[float]) -> dict[str, float]:
    """Charges by meter: where several limits count one meter, the largest."""
    charged: dict[str, float] = {}
    for level, charge in zip(levels, charges, strict=True):
        limit = policy.by_id.get(level.limit_id)
        if limit is not None and charge != _REFUSED:
            charged[limit.meter] = max(charged.get(limit.meter, 0), whole(charge / limit.unit))
    return charged


def _settled(policy: Policy, reply: Reply) -> Settled:
    lease = reply.numbers
    levels, end = read(lease, *_scopes_of(lease))
    refunded: dict[str, float] = {}
    debited: dict[str, float] = {}
    for level, moved in zip(levels, lease[end:], strict=True):
        limit = policy.by_id.get(level.limit_id)
        if limit is None or moved == 0:
            continue
        into, units = (refunded, -moved) if moved < 0 else (debited, moved)
        into[limit.meter] = max(into.get(limit.meter, 0), whole(units / limit.unit))
    return Settled(
        already_settled=reply.verdict is Verdict.ALREADY, refunded=refunded, debited=debited
    )


def _verdict(
    policy: Policy, numbers: Sequence[float]
) -> tuple[Limit | None, float, list[Level], list[LimitState]]:
    worst, wait = int(numbers[0]), numbers[1]
    levels, _ = read(numbers, 2, len(policy.limits))
    limit = policy.limits[worst - 1] if worst else None
    return limit, wait, levels, states(policy, levels, frozenset())


def _denied(policy: Policy, amounts: Sequence[float], numbers: Sequence[float]) -> Refusal:
    limit, wait, levels, seen = _verdict(policy, numbers)
    assert limit is not None
    i = policy.limits.index(limit)
    asked = whole(amounts[i] / limit.unit)
    if wait == NEVER:
        capacity = whole(limit.capacity / limit.unit)
        return refuse(
            ErrorCode.NEVER_FITS,
            f"{asked:g} {limit.meter} can never fit: {limit.name} holds at most {capacity:g}",
            resource=policy.resource,
            limit=limit.name,
            would_fit=_would_fit(policy, amounts, levels),
            limits=seen,
        )
    room = amount(limit, left(limit, levels[i]))
    return refuse(
        ErrorCode.RATE_LIMITED,
        f"{limit.name} has {room:g} {limit.meter} left and {asked:g} are asked for; "
        f"it fits in {wait / _MICRO:.3f} s",
        resource=policy.resource,
        retry_after=wait / _MICRO,
        limit=limit.name,
        would_fit=_would_fit(policy, amounts, levels),
        limits=seen,
    )


def _would_fit(policy: Policy, amounts: Sequence[float], levels: Sequence[Level]) -> int | None:
    """The largest token request that fits now: 0 when another limit refuses, None when no
    limit counts tokens.
    """
    rooms: list[int] = []
    for limit, asked, level in zip(policy.limits, amounts, levels, strict=True):
        if limit.shadow:
            continue
        if charging.counts_tokens(limit):
            rooms.append(max(0, int(amount(limit, left(limit, level)))))
        elif asked > left(limit, level) + 1e-6:
            rooms.append(0)
    return min(rooms) if rooms else None
