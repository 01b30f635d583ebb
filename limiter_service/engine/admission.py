"""Acquire, check, renew and settle: from a caller's words to one script call and back."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import UNSET
from msgspec.structs import replace

from limiter_service.config import seconds
from limiter_service.engine import breaking, charging, ids
from limiter_service.engine.answers import (
    MARKS,
    TTL,
    conflict,
    denied,
    granted,
    history_of,
    nonce_of,
    paused,
    renewed,
    settled,
    verdict_of,
    would_fit,
)
from limiter_service.engine.begun import Arrivals, BegunAcquire, BegunSettle
from limiter_service.engine.books import Books, verdict
from limiter_service.engine.calls import Calls
from limiter_service.engine.debts import Debts
from limiter_service.engine.degraded import Degraded
from limiter_service.engine.demands import Demand, amounts_of, demand, fingerprint, usual
from limiter_service.engine.expectation import Expectations
from limiter_service.engine.forecast import Forecast
from limiter_service.engine.given import Given, Lease
from limiter_service.engine.ids import LeaseRef
from limiter_service.engine.learning import Learning
from limiter_service.engine.lending import Lending, not_lent
from limiter_service.engine.lessons import Lessons
from limiter_service.engine.lines import Lines
from limiter_service.engine.outages import Outages
from limiter_service.engine.passes import Passes
from limiter_service.engine.policy import Policies, Policy, UnknownResource
from limiter_service.engine.queueing import Queue, Tell
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.reports import PLAIN, refuse_dead_lease, told_by, used_plainly
from limiter_service.engine.shape import Taken
from limiter_service.engine.statistics import Observer
from limiter_service.store.claims import (
    claim_in,
    kin_of_settle,
    named,
    plainly_reporting,
    reporting,
)
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.hints import Hints
from limiter_service.store.messages import NEVER, Chain, Claim, Reply, Report, Verdict
from limiter_service.store.posted import Listener
from limiter_wire import (
    Acquire,
    BlockReport,
    Checked,
    ErrorCode,
    Granted,
    Outcome,
    QueueState,
    Renew,
    Renewed,
    ResourceList,
    ResourceView,
    Settle,
    Settled,
    Waiting,
)
from limiter_wire.naming import new_request_id

_MICRO = 1_000_000
_MOST_LISTED = 1000  # callers make up names for wildcards
_DONE, _DONE_WHILE_OTHERS_WAIT = Verdict.DONE, Verdict.DONE_WHILE_OTHERS_WAIT
_STALE, _EXPIRED = Verdict.STALE, Verdict.EXPIRED
_WOULD_WAIT = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.WAIT_TIMEOUT})


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
        books: Books | None = None,
        nonces: Callable[[], int] = ids.new_nonce,
    ) -> None:
        self._commands, self._prefix, self._nonce = commands, prefix, nonces
        self.policies = policies
        self.draining: str | None = None  # why nothing is granted here for the time being
        self._given = Given()
        self.expectations = Expectations(commands, prefix)
        self.books = books or Books()
        self.tally = self.books.tally
        self._forecast = Forecast()
        self._calls = Calls(wall_us)
        self.passes = Passes(commands, self._calls, hints, self._compiled, prefix)
        self.learning = Learning(commands, self._calls, self.passes, self._policy, self.books)
        self.outages = Outages(
            commands, self._calls, lambda: self.policies, prefix, self.passes.replica
        )
        self.outages.tell(self.settle, self.passes.adrift)
        self.passes.away = self.outages.is_away
        self.degraded = Degraded(self.outages)
        self._debts = Debts(commands, self._calls, self.outages)
        self._lessons = Lessons(self.books, self.expectations, self._forecast, self.outages)
        self._hold_limit = hold_limit
        self.lending = Lending(commands, self._calls, prefix, nonces)
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

    def begin(self, request: Acquire, listener: Listener) -> BegunAcquire | None:
        """Begin an acquire that most likely takes one call of the store: *listener* hears when
        `conclude` has something to say. None where it has to be awaited from the beginning.
        """
        if request.block is not None or request.since is not None:
            return None
        if self.draining is not None or not self._commands.gathers:
            return None
        policy = self.policies.known(request.resource, request.tenant)
        if policy is None or not self.degraded.is_aside(policy) or self.passes.busy(policy.pool):
            return None
        asks = usual(policy, request) or self._unusual(policy, request)
        if asks is None:
            return None
        request_id = request.request_id or new_request_id()
        key = policy.keys.lease(request.tenant, request_id)
        begun = BegunAcquire(policy, request, request_id, key, asks, listener)
        chain = policy.steady or policy.chain(self._calls.now_us())
        asked = named(self._nonce(), asks.asked)
        sent = self._commands.post_acquire(begun, chain, key, policy.queue, asked, again=asks.again)
        return begun if sent else None

    def _unusual(self, policy: Policy, request: Acquire) -> Demand | None:
        """What an unusual request asks for; None where that is not known yet, or is nothing."""
        pool, model, route = policy.pool, policy.model, request.route
        if policy.expects and not self.expectations.is_ready(pool, model, route):
            return None
        try:
            return demand(policy, request, self._amounts(policy, request))
        except Refusal:
            return None  # to be counted as such

    def conclude(self, begun: BegunAcquire) -> Granted | Taken | None:
        """The grant; None when `acquire` has to go on. Raises Refusal."""
        reply = begun.reply
        if reply is None or reply.verdict is _STALE:
            return None
        policy, request = begun.policy, begun.request
        took = begun.heard - begun.began
        try:
            answer = self._taken(begun, reply) or self._answer(
                policy, request, begun.request_id, begun.demand.amounts, reply
            )
        except Refusal as refusal:
            self._refused(request, refusal, took)
            raise
        if answer is None:
            return None
        if isinstance(answer, Taken):
            answer.suggested = self._suggested(policy, request)
        else:
            answer = self._advised(policy, request, answer)
        self.books.answered(request, answer, took)
        return answer

    def _taken(self, begun: BegunAcquire, reply: Reply) -> Taken | None:
        """A grant that has a shape."""
        policy, lease, asks = begun.policy, reply.numbers, begun.demand
        shape = policy.shape
        if shape is None or reply.verdict is not _DONE or not shape.fits(lease):
            return None
        self.outages.taken(policy, asks.amounts)
        self.books.passed(policy, lease)
        self.degraded.pauses.passed(policy.resource)
        route = begun.request.route
        nonce = nonce_of(lease)
        name = policy.stem.encode(begun.request_id, nonce, route)
        self._given.note(name, Lease(policy, begun.key, nonce, route))
        return Taken(
            shape,
            name,
            lease[TTL] / _MICRO,
            asks.charged,
            asks.told,
            lease,
            breaking.circuit(lease[MARKS]),
        )

    async def acquire(
        self,
        request: Acquire,
        hold: float | None = None,
        tell: Tell | None = None,
        begun: BegunAcquire | None = None,
    ) -> Granted | Waiting:
        """Reserve budget on every limit of the chain, wait for it, or refuse.

        A request that may wait is held for *hold* seconds (default: the hold limit), then it
        is told that it waits; meanwhile *tell* hears where it stands. When the task that holds it
        is cancelled, the place stays for 5 s. It goes on with what has *begun*.
        """
        if request.block is not None:
            return await self._lend(request)
        if begun is None:
            arrivals = Arrivals()
            begun = self.begin(request, arrivals)
            if begun is not None:
                await arrivals.of(begun)
                found = self.conclude(begun)
                if found is not None:
                    return found.granted() if isinstance(found, Taken) else found
        return await self._go_on(request, hold, tell, begun)

    async def _go_on(
        self,
        request: Acquire,
        hold: float | None,
        tell: Tell | None,
        begun: BegunAcquire | None,
    ) -> Granted | Waiting:
        clock = asyncio.get_running_loop().time
        began = clock() if begun is None else begun.began
        try:
            answer = await self._acquire(request, hold, tell, begun)
        except Refusal as refusal:
            self._refused(request, refusal, clock() - began)
            raise
        if isinstance(answer, Granted):
            self.books.answered(request, answer, clock() - began)
        return answer

    def _refused(self, request: Acquire, refusal: Refusal, took: float) -> None:
        self.books.refused(request, refusal.problem, took)

    async def _acquire(
        self,
        request: Acquire,
        hold: float | None,
        tell: Tell | None,
        begun: BegunAcquire | None,
    ) -> Granted | Waiting:
        policy = self._policy(request.resource, request.tenant)
        if self.draining is not None:
            raise refuse(
                ErrorCode.SHUTTING_DOWN, self.draining, resource=policy.resource, retry_after=1.0
            )
        request_id = begun.request_id if begun else request.request_id or new_request_id()
        alone = await self.degraded.stands_in(policy)
        if policy.expects and not alone:
            await self.expectations.ready(policy.pool, policy.model, request.route)
        if begun is not None and begun.policy is not policy:
            begun = None  # it was begun under the policy before a reload
        if begun is None:
            claim = self._claim(policy, request, self._amounts(policy, request))
        else:
            claim = begun.claim
        if request.since is not None:
            return await self._debts.late(policy, request, request_id, claim)
        began = asyncio.get_running_loop().time()
        asked = request
        while True:
            if not alone:
                try:
                    return await self._through_store(
                        policy, asked, request_id, claim, hold, tell, begun
                    )
                except Refusal as refusal:
                    if not self._is_lost(policy, refusal):
                        raise
            waited = asyncio.get_running_loop().time() - began
            # A pass may have granted the same claim: what is granted here is another call's.
            claim = replace(claim, nonce=self._nonce())
            answer = await self._alone(policy, request, request_id, claim, hold, waited)
            if answer is not None:
                return answer
            alone = await self.degraded.stands_in(policy)
            waited = asyncio.get_running_loop().time() - began
            asked = replace(request, max_wait=max(0.0, request.max_wait - waited))

    async def _lend(self, request: Acquire) -> Granted:
        """A block; it is no decision about a call, and is not counted as one."""
        policy = self._policy(request.resource, request.tenant)
        if self.draining is not None or await self.degraded.stands_in(policy):
            raise not_lent(policy, "away", self.draining or "the store is lost", 1.0)
        request_id = request.request_id or new_request_id()
        ttl = policy.lease_ttl + seconds(policy.config.blocks.hold)
        claim = Claim(
            nonce=self._nonce(),
            fingerprint=fingerprint(request),
            ttl=int((ttl if request.ttl is None else request.ttl) * _MICRO),
            remember=policy.remember_us,
            marks=breaking.marks(request.worker, 1),
            amounts=self._amounts(policy, request),
        )
        answer = await self.lending.lend(policy, request, request_id, claim)
        assert answer.block is not None
        self.outages.taken(policy, [amount * answer.block.calls for amount in claim.amounts])
        self.books.lent(request, answer)
        return answer

    async def _through_store(
        self,
        policy: Policy,
        request: Acquire,
        request_id: str,
        claim: Claim,
        hold: float | None,
        tell: Tell | None,
        begun: BegunAcquire | None,
    ) -> Granted | Waiting:
        if begun is not None or not self.passes.busy(policy.pool):
            answer = await self._take(policy, request, request_id, claim, begun)
            if answer is not None:
                return self._advised(policy, request, answer)

        def current() -> tuple[Policy, list[float]]:
            policy = self._policy(request.resource, request.tenant)
            return policy, self._amounts(policy, request)

        found = await self._queue.take(policy, request, request_id, claim, hold, current, tell)
        if not isinstance(found, Granted):
            return found
        self.outages.taken(policy, claim.amounts)
        self.books.granted(policy, found)
        return self._advised(policy, request, found)

    def _is_lost(self, policy: Policy, refusal: Refusal) -> bool:
        """Whether *refusal* says that the store is lost, and this replica is to decide."""
        if not isinstance(refusal.__cause__, StoreUnavailable):
            return False
        self.outages.lost(policy.pool, str(refusal.__cause__))
        return self.outages.mode(policy.pool) != "closed" and self.outages.watches(policy.pool)

    async def _alone(
        self,
        policy: Policy,
        request: Acquire,
        request_id: str,
        claim: Claim,
        hold: float | None,
        waited: float,
    ) -> Granted | Waiting | None:
        """The answer of this replica alone; None when the store is back."""
        patience = min(request.max_wait, seconds(policy.config.queue.max_wait)) - waited
        held = min(self._hold_limit if hold is None else min(hold, self._hold_limit), patience)
        try:
            answer = await self.degraded.acquire(policy, request, request_id, claim, max(0.0, held))
        except Refusal as refusal:
            told = refusal.problem
            pause = told.retry_after or 0.0
            if told.code in _WOULD_WAIT and held < patience and pause <= patience:
                return Waiting(
                    request_id=request_id,
                    waited=waited,
                    predicted_wait=pause,
                    queue=told.queue
                    or QueueState(depth=0, predicted_wait=pause, predicted_wait_p90=pause),
                )
            raise
        return answer if answer is None else self._advised(policy, request, answer)

    def _advised(self, policy: Policy, request: Acquire, answer: Granted) -> Granted:
        suggested = self._suggested(policy, request)
        return answer if suggested is None else replace(answer, suggested_max_tokens=suggested)

    def _suggested(self, policy: Policy, request: Acquire) -> int | None:
        return self.expectations.suggested_max_tokens(
            policy.pool, policy.model, request.route, request.max_output_tokens
        )

    async def _take(
        self,
        policy: Policy,
        request: Acquire,
        request_id: str,
        claim: Claim,
        begun: BegunAcquire | None,
    ) -> Granted | None:
        """Take without a look at the queue; None when only the queue can answer."""
        lease, queue = policy.keys.lease(request.tenant, request_id), policy.queue

        def ask(chain: Chain) -> Awaitable[Reply]:
            return self._commands.acquire(chain, lease, queue, claim)

        run = ask if begun is None else lambda chain: begun.once(lambda: ask(chain))
        reply = await self._calls.run(policy, run)
        return self._answer(policy, request, request_id, claim.amounts, reply)

    def _answer(
        self,
        policy: Policy,
        request: Acquire,
        request_id: str,
        amounts: Sequence[float],
        reply: Reply,
    ) -> Granted | None:
        """What an acquire is told; None when only the queue can answer. Raises Refusal."""
        match reply.verdict:
            case Verdict.DONE | Verdict.REPEATED:
                answer = granted(policy, request_id, reply.numbers, request.route)
                # A repeat, too: it may be the first answer that comes here.
                self.outages.taken(policy, amounts)
                if reply.verdict is Verdict.DONE:
                    self.books.taken(policy, reply.numbers, answer)
                self.degraded.pauses.passed(policy.resource)
                return answer
            case Verdict.CONFLICT:
                raise conflict(policy, request_id)
            case Verdict.QUEUED:
                return None
            case Verdict.PAUSED:
                refusal = paused(policy, reply.numbers)
                self.degraded.pauses.heard(refusal, asyncio.get_running_loop().time())
                if breaking.can_wait(reply.numbers, request.max_wait * _MICRO):
                    return None
                raise refusal
            case _:
                limit, wait, levels, _ = verdict_of(policy, reply.numbers)
                self.books.denied(policy, amounts, levels)
                if request.max_wait > 0 and wait != NEVER:
                    return None
                raise denied(policy, amounts, limit, wait, levels)

    def _claim(self, policy: Policy, request: Acquire, amounts: list[float]) -> Claim:
        return claim_in(named(self._nonce(), demand(policy, request, amounts).asked))

    def close(self) -> None:
        """Let every caller that waits go: it asks another replica."""
        self.passes.close()
        self.degraded.close()

    async def cancel(self, request: Acquire) -> None:
        """Let a waiter go at once, when the task that acquired for it has ended; what it was
        granted unheard comes back.
        """
        if request.request_id is not None:
            policy = self._policy(request.resource, request.tenant)
            if await self.degraded.stands_in(policy):
                return  # nobody stands in line here, and the store forgets who does not ask
            await self._queue.leave(policy, request.request_id)

    async def check(self, request: Acquire) -> Checked:
        """Say what acquire would answer; change nothing."""
        policy = self._policy(request.resource, request.tenant)
        if await self.degraded.stands_in(policy):
            return self.degraded.check(policy, self._amounts(policy, request))
        await self.expectations.ready(policy.pool, policy.model, request.route)
        amounts = self._amounts(policy, request)
        tag = self._nonce()
        try:
            reply = await self._calls.run(
                policy, lambda chain: self._commands.check(chain, tag, request.attempt, amounts)
            )
        except Refusal as refusal:
            if not self._is_lost(policy, refusal):
                raise
            return self.degraded.check(policy, amounts)
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

    def begin_settle(self, report: Settle, listener: Listener) -> BegunSettle | None:
        """Begin a settle as `begin` does an acquire; `conclude_settle` has its answer."""
        if report.block is not None or not self._commands.gathers:
            return None
        lease = self._given.take(report.lease)
        if lease is None or not self.policies.has(lease.policy):
            lease = self._known(report.lease)
        if lease is None or not self.degraded.is_aside(lease.policy):
            return None
        policy, tag = lease.policy, self._nonce()
        chain = policy.steady or policy.chain(self._calls.now_us())
        used = used_plainly(policy, report)
        if used is None:
            told = told_by(policy, report, self._calls.now_us() / _MICRO)
            asked, kin = reporting(tag, lease.nonce, told), kin_of_settle(chain, told)
        else:
            told = PLAIN
            asked, kin = plainly_reporting(tag, lease.nonce, used), chain.settling
        begun = BegunSettle(policy, report, lease.route, told, listener)
        sent = self._commands.post_settle(begun, chain, lease.key, policy.queue, asked, kin)
        return begun if sent else None

    def _known(self, name: str) -> Lease | None:
        """The lease of that id, if its policy is known and it owes nothing."""
        ref = ids.decode(name)
        if ref is None or ref.owed is not None:
            return None
        policy = self.policies.known(f"{ref.pool}/{ref.model}", ref.tenant)
        if policy is None:
            return None
        return Lease(policy, policy.keys.lease(ref.tenant, ref.request_id), ref.nonce, ref.route)

    def conclude_settle(self, begun: BegunSettle) -> Settled | None:
        """The answer; None when `settle` has to go on. Raises Refusal."""
        reply = begun.reply
        if reply is None or reply.verdict is _STALE:
            return None
        return self._settled(begun.route, begun.policy, begun.request, begun.told, reply)

    async def settle(self, report: Settle, begun: BegunSettle | None = None) -> Settled:
        """Replace what the lease reserved by what was used; the same answer to a repeat. It goes
        on with what has *begun*.
        """
        if begun is None:
            arrivals = Arrivals()
            begun = self.begin_settle(report, arrivals)
            if begun is not None:
                await arrivals.of(begun)
                found = self.conclude_settle(begun)
                if found is not None:
                    return found
        ref, policy = self._lease(report.lease)
        if await self.degraded.stands_in(policy):
            answer = self.degraded.settle(policy, ref, report)
            if answer is not None:
                return answer
        try:
            return await self._settle(await self._debts.charged(ref, policy), policy, report, begun)
        except Refusal as refusal:
            if not self._is_lost(policy, refusal):
                raise
        # The store may have taken it in; then it knows the repeat.
        answer = self.degraded.settle(policy, ref, report)
        return Settled(degraded=True) if answer is None else answer

    async def _repay(
        self, ref: LeaseRef, policy: Policy, report: Settle, told: BlockReport
    ) -> Settled:
        reply = await self.lending.repay(ref, policy, report, told)
        if reply.verdict not in {Verdict.ALREADY, Verdict.REPEATED, Verdict.UNKNOWN}:
            self.books.ended(policy, report.lease, told)
        refuse_dead_lease(reply, policy)
        if reply.verdict is Verdict.DONE_WHILE_OTHERS_WAIT:
            self.passes.room_again(policy)
        history = history_of(policy, reply.numbers)
        answer = settled(policy, reply, history)
        if history is not None and not answer.already_settled:
            self._lessons.debited(policy, history)
            self.books.moved(policy, answer)
        return answer

    async def _settle(
        self, ref: LeaseRef, policy: Policy, report: Settle, begun: BegunSettle | None
    ) -> Settled:
        if report.block is not None:
            return await self._repay(ref, policy, report, report.block)
        told = told_by(policy, report, self._calls.now_us() / _MICRO)
        tag = self._nonce()
        key, queue = policy.keys.lease(ref.tenant, ref.request_id), policy.queue

        def ask(chain: Chain) -> Awaitable[Reply]:
            return self._commands.settle(chain, key, queue, tag, ref.nonce, told)

        if begun is not None and begun.policy is not policy:
            begun = None
        run = ask if begun is None else lambda chain: begun.once(lambda: ask(chain))
        return self._settled(ref.route, policy, report, told, await self._calls.run(policy, run))

    def _settled(
        self, route: str | None, policy: Policy, report: Settle, told: Report, reply: Reply
    ) -> Settled:
        """What a settle is told. Raises Refusal."""
        if reply.verdict is _EXPIRED and not told.first_token:
            self.books.settled(policy, report)  # nothing moves, and the call has cost what it did
        refuse_dead_lease(reply, policy)
        history = history_of(policy, reply.numbers)
        answer = settled(policy, reply, history)
        if not answer.already_settled:
            self._lessons.note(policy, report, told, route, reply, history, answer)
        if reply.verdict is _DONE_WHILE_OTHERS_WAIT:
            self.passes.room_again(policy)
        if report.estimated_input_tokens is None:
            return answer
        known = self.expectations.calibration(policy.pool, policy.model, route)
        return answer if known is None else replace(answer, calibration=known)

    async def renew(self, report: Renew) -> Renewed:
        """Let the lease live on, and charge what it has used beyond its reservation."""
        ref, policy = self._lease(report.lease)
        if await self.degraded.stands_in(policy):
            answer = self.degraded.renew(policy, ref, report)
            if answer is not None:
                return answer
        ref = await self._debts.charged(ref, policy)
        used = charging.used(policy, report.usage, None, Outcome.SUCCESS)
        ttl = policy.lease_ttl if report.ttl is None else report.ttl
        tag = self._nonce()
        key, queue = policy.keys.lease(ref.tenant, ref.request_id), policy.queue
        life = int(ttl * _MICRO)
        reply = await self._calls.run(
            policy,
            lambda chain: self._commands.renew(chain, key, queue, tag, ref.nonce, life, used),
        )
        refuse_dead_lease(reply, policy)
        if reply.verdict is Verdict.ALREADY:
            raise refuse(ErrorCode.LEASE_EXPIRED, "the lease was settled", resource=policy.resource)
        answer, history = renewed(policy, report, ttl, reply.numbers)
        self._lessons.debited(policy, history)
        return answer

    async def view(self, resource: str, tenant: str) -> ResourceView:
        """The live state of every limit that *resource* meets for *tenant*."""
        policy = self._policy(resource, tenant)
        if await self.degraded.stands_in(policy):
            return self.degraded.view(policy)
        return await self.learning.view(resource, tenant)

    async def views(
        self, tenant: str, among: Callable[[str], bool] = lambda _: True
    ) -> ResourceList:
        """The live state of every resource that is configured or was asked for, *among* some."""
        names = [name for name in self.policies.resources(_MOST_LISTED) if among(name)]
        return ResourceList(
            resources=list(await asyncio.gather(*(self.view(name, tenant) for name in names)))
        )

    def _amounts(self, policy: Policy, request: Acquire) -> list[float]:
        def expected() -> float | None:
            return self.expectations.expected_output(policy.pool, policy.model, request.route)

        return amounts_of(policy, request, expected)

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
