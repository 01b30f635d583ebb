"""Acquire, check, renew and settle: from a caller's words to one script call and back."""

import asyncio
import uuid
from collections.abc import Callable

from msgspec import UNSET
from msgspec.structs import replace

from limiter_service.config import seconds
from limiter_service.engine import breaking, charging, ids, learning
from limiter_service.engine.answers import (
    charged_by_meter,
    charges_of,
    conflict,
    denied,
    granted,
    lease_history,
    marks_of,
    paused,
    scopes_of,
    settled,
    verdict_of,
    would_fit,
)
from limiter_service.engine.books import Books, verdict
from limiter_service.engine.calls import Calls
from limiter_service.engine.charging import PriceMissing
from limiter_service.engine.expectation import Expectations
from limiter_service.engine.forecast import Forecast
from limiter_service.engine.ids import LeaseRef
from limiter_service.engine.learning import Learning
from limiter_service.engine.levels import read
from limiter_service.engine.lines import Lines
from limiter_service.engine.passes import Passes
from limiter_service.engine.policy import Policies, Policy, UnknownResource
from limiter_service.engine.queueing import Queue, Tell
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.statistics import Observer
from limiter_service.engine.tally import Tally
from limiter_service.store.commands import NEVER, Claim, Commands, Reply, Report, Verdict
from limiter_service.store.hints import Hints
from limiter_service.store.keys import Keys
from limiter_wire import (
    Acquire,
    Checked,
    ErrorCode,
    Granted,
    Outcome,
    Provenance,
    Renew,
    Renewed,
    ResourceList,
    ResourceView,
    Settle,
    Settled,
    Waiting,
)

_MICRO = 1_000_000
_MOST_LISTED = 1000  # callers make up names for wildcards


class Engine:
    """The use cases of the service. Every method raises Refusal when it has no answer.

    `wall_us` is this host's clock in Unix microseconds: only for choosing the boundaries of
    calendar windows, and the scripts refuse a wrong choice. `nonces` names calls; the jitter
    of circuits comes from them.
    """

    def __init__(
        self,
        commands: Commands,
        policies: Policies,
        wall_us: Callable[[], float],
        prefix: str,
        *,
        hints: Hints,
        observe: Observer,
        hold_limit: float = 25.0,
        nonces: Callable[[], int] = ids.new_nonce,
    ) -> None:
        self._commands, self._prefix, self._nonce = commands, prefix, nonces
        self.policies, self.tally = policies, Tally()
        self.expectations = Expectations(commands, prefix)
        self.books = Books()
        self._forecast = Forecast()
        self._calls = Calls(wall_us)
        self.passes = Passes(commands, self._calls, hints, self._compiled, prefix)
        self.learning = Learning(commands, self._calls, self.passes, self._policy, self.books)
        self.lines = Lines(commands, self._calls, self._forecast, self._compiled, prefix)
        self._queue = Queue(
            commands,
            self._calls,
            self._forecast,
            self.passes,
            observe,
            prefix=prefix,
            hold_limit=hold_limit,
        )

    async def acquire(
        self, request: Acquire, hold: float | None = None, tell: Tell | None = None
    ) -> Granted | Waiting:
        """Reserve budget on every limit of the chain, wait for it, or refuse.

        A request that may wait is held for *hold* seconds (default: the hold limit), then it
        is told that it waits; meanwhile *tell* hears where it stands. When the task that holds it
        is cancelled, the place stays for 5 s.
        """
        try:
            answer = await self._acquire(request, hold, tell)
        except Refusal as refusal:
            self.tally.refused(refusal.problem)
            raise
        if isinstance(answer, Granted):
            self.tally.granted(request.resource)
        return answer

    async def _acquire(
        self, request: Acquire, hold: float | None, tell: Tell | None
    ) -> Granted | Waiting:
        policy = self._policy(request.resource, request.tenant)
        request_id = request.request_id or uuid.uuid4().hex
        if policy.expects:
            await self.expectations.ready(policy.pool, policy.model, request.route)
        ttl = policy.lease_ttl if request.ttl is None else request.ttl
        claim = Claim(
            nonce=self._nonce(),
            fingerprint=_fingerprint(request),
            ttl=int(ttl * _MICRO),
            remember=int(policy.remember * _MICRO),
            marks=breaking.marks(request.worker, request.attempt),
            amounts=self._amounts(policy, request),
        )
        if not self.passes.busy(policy.pool):
            answer = await self._take(policy, request, request_id, claim)
            if answer is not None:
                return self._advised(policy, request, answer)

        def current() -> tuple[Policy, list[float]]:
            policy = self._policy(request.resource, request.tenant)
            return policy, self._amounts(policy, request)

        found = await self._queue.take(policy, request, request_id, claim, hold, current, tell)
        if not isinstance(found, Granted):
            return found
        self.books.granted(policy, found)
        return self._advised(policy, request, found)

    def _advised(self, policy: Policy, request: Acquire, answer: Granted) -> Granted:
        suggested = self._suggested(policy, request)
        return answer if suggested is None else replace(answer, suggested_max_tokens=suggested)

    def _suggested(self, policy: Policy, request: Acquire) -> int | None:
        return self.expectations.suggested_max_tokens(
            policy.pool, policy.model, request.route, request.max_output_tokens
        )

    async def _take(
        self, policy: Policy, request: Acquire, request_id: str, claim: Claim
    ) -> Granted | None:
        """Take without a look at the queue; None when only the queue can answer."""
        keys = Keys(policy.pool, self._prefix)
        lease, queue = keys.lease(request.tenant, request_id), keys.queue()
        reply = await self._calls.run(
            policy, lambda chain: self._commands.acquire(chain, lease, queue, claim)
        )
        match reply.verdict:
            case Verdict.DONE | Verdict.REPEATED:
                answer = granted(policy, request_id, reply.numbers, request.route)
                if reply.verdict is Verdict.DONE:
                    self.books.taken(policy, reply.numbers, answer)
                return answer
            case Verdict.CONFLICT:
                raise conflict(policy, request_id)
            case Verdict.QUEUED:
                return None
            case Verdict.PAUSED:
                if breaking.can_wait(reply.numbers, request.max_wait * _MICRO):
                    return None
                raise paused(policy, reply.numbers)
            case _:
                limit, wait, levels, _ = verdict_of(policy, reply.numbers)
                self.books.denied(policy, claim.amounts, levels)
                if request.max_wait > 0 and wait != NEVER:
                    return None
                raise denied(policy, claim.amounts, limit, wait, levels)

    async def cancel(self, request: Acquire) -> None:
        """Let a waiter go at once, when the task that acquired for it has ended; what it was
        granted unheard comes back.
        """
        if request.request_id is not None:
            policy = self._policy(request.resource, request.tenant)
            await self._queue.leave(policy, request.request_id)

    async def check(self, request: Acquire) -> Checked:
        """Say what acquire would answer; change nothing."""
        policy = self._policy(request.resource, request.tenant)
        await self.expectations.ready(policy.pool, policy.model, request.route)
        amounts = self._amounts(policy, request)
        tag = self._nonce()
        reply = await self._calls.run(
            policy, lambda chain: self._commands.check(chain, tag, request.attempt, amounts)
        )
        worst, wait, levels, seen = verdict_of(policy, reply.numbers, 5)
        why, pause, state = reply.numbers[2:5]
        return Checked(
            would_grant=worst is None and why == 0,
            retry_after=0.0 if wait == NEVER else max(wait, pause) / _MICRO,
            limit=worst.name if worst else None,
            breaker=breaking.state_of(state),
            would_fit=would_fit(policy, amounts, levels),
            never_fits=wait == NEVER,
            limits=seen,
            suggested_max_tokens=self._suggested(policy, request) or UNSET,
            calibration=self.expectations.calibration(policy.pool, policy.model, request.route)
            or UNSET,
            trial=verdict(policy, amounts, levels, passes=why == 0) or UNSET,
        )

    async def settle(self, report: Settle) -> Settled:
        """Replace what the lease reserved by what was used; the same answer to a repeat."""
        ref, policy = self._lease(report.lease)
        told = told_by(policy, report, self._calls.now_us() / _MICRO)
        tag = self._nonce()
        keys = Keys(ref.pool, self._prefix)
        key, queue = keys.lease(ref.tenant, ref.request_id), keys.queue()
        reply = await self._calls.run(
            policy, lambda chain: self._commands.settle(chain, key, queue, tag, ref.nonce, told)
        )
        if reply.verdict is Verdict.EXPIRED and not told.first_token:
            self.books.settled(policy, report)  # nothing moves, and the call has cost what it did
        _refuse_dead_lease(reply, policy)
        if reply.verdict is not Verdict.ALREADY:
            self._note(policy, report, told, ref.route, reply)
        if reply.verdict is Verdict.DONE_WHILE_OTHERS_WAIT:
            self.passes.room_again(policy)
        answer = settled(policy, reply)
        if report.estimated_input_tokens is None:
            return answer
        known = self.expectations.calibration(policy.pool, policy.model, ref.route)
        return answer if known is None else replace(answer, calibration=known)

    async def renew(self, report: Renew) -> Renewed:
        """Let the lease live on, and charge what it has used beyond its reservation."""
        ref, policy = self._lease(report.lease)
        used = charging.used(policy, report.usage, None, Outcome.SUCCESS)
        ttl = policy.lease_ttl if report.ttl is None else report.ttl
        tag = self._nonce()
        keys = Keys(ref.pool, self._prefix)
        key, queue, life = keys.lease(ref.tenant, ref.request_id), keys.queue(), int(ttl * _MICRO)
        reply = await self._calls.run(
            policy,
            lambda chain: self._commands.renew(chain, key, queue, tag, ref.nonce, life, used),
        )
        _refuse_dead_lease(reply, policy)
        if reply.verdict is Verdict.ALREADY:
            raise refuse(ErrorCode.LEASE_EXPIRED, "the lease was settled", resource=policy.resource)
        levels, _ = read(reply.numbers, *scopes_of(reply.numbers))
        return Renewed(
            lease=report.lease,
            expires_in=ttl,
            charged=charged_by_meter(policy, levels, charges_of(reply.numbers)),
        )

    async def view(self, resource: str, tenant: str) -> ResourceView:
        """The live state of every limit that *resource* meets for *tenant*."""
        return await self.learning.view(resource, tenant)

    async def views(self, tenant: str) -> ResourceList:
        """The live state of every resource that is configured or was asked for."""
        names = self.policies.resources(_MOST_LISTED)
        return ResourceList(
            resources=list(await asyncio.gather(*(self.view(name, tenant) for name in names)))
        )

    def _note(
        self, policy: Policy, report: Settle, told: Report, route: str | None, reply: Reply
    ) -> None:
        self.tally.reported(
            policy.resource,
            report.outcome,
            breaking.Class(told.outcome_class),
            marks_of(reply.numbers),
            slow=told.slow,
            early=told.first_token,
        )
        if not told.first_token:
            self._learn(policy, report, route, reply)

    def _learn(self, policy: Policy, report: Settle, route: str | None, reply: Reply) -> None:
        usage = report.usage
        self.books.settled(policy, report)
        if usage and report.outcome is Outcome.SUCCESS and usage.provenance is Provenance.FINAL:
            self.expectations.learn(
                policy.pool,
                policy.model,
                route,
                output=usage.output_tokens,
                estimated=report.estimated_input_tokens,
                actual=usage.input_tokens,
            )
        levels, moved, held = lease_history(reply.numbers)
        self._forecast.learn_settle(policy, levels, charges_of(reply.numbers), moved, held)

    def _compiled(self, resource: str, tenant: str) -> Policy:
        return self.policies.policy(resource, tenant)

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
        cached = (request.cache_read_tokens or 0) + (request.cache_write_tokens or 0)
        if cached > (request.input_tokens or 0):
            raise refuse(
                ErrorCode.INVALID,
                "`cache_read_tokens` and `cache_write_tokens` are parts of `input_tokens`",
                resource=request.resource,
            )
        expected = None
        if policy.expects:
            expected = self.expectations.expected_output(policy.pool, policy.model, request.route)
        try:
            return charging.reserve(policy, request, expected)
        except PriceMissing as error:
            raise refuse(ErrorCode.INVALID, str(error), resource=policy.resource) from error


def told_by(policy: Policy, report: Settle, now: float) -> Report:
    """What a settle says to the scripts; *now* is in Unix seconds."""
    said, pause = learning.told_by(policy, report, now)
    slow_after = seconds(policy.config.breaker.slow_ttft)
    return Report(
        first_token=report.phase == "first_token",
        outcome_class=breaking.class_of(report),
        kind=breaking.error_number(report),
        slow=report.ttft is not None and report.ttft >= slow_after,
        retry_after=int(pause * _MICRO),
        readings=said,
        used=charging.used(
            policy,
            report.usage,
            report.cost_usd,
            report.outcome,
            None if report.cause is None else report.cause.refund,
        ),
    )


def _fingerprint(request: Acquire) -> int:
    cached = (request.cache_read_tokens, request.cache_write_tokens)
    return ids.fingerprint(
        request.resource,
        request.tokens,
        request.input_tokens,
        request.max_output_tokens,
        request.cost_usd,
        request.ttl,
        *(
            cached if any(each is not None for each in cached) else ()
        ),  # other replicas may not know them yet
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
