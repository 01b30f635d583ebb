"""Waiting: an acquire stands in the queue of its pool until it is granted or gives up.

The queue is in the store (lua/lib/queue), and passes serve it (engine/passes). A caller that
was served fetches its grant by asking again with the same request id, which is also how it
comes back through another replica.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from limiter_service.config import seconds
from limiter_service.engine.answers import (
    Standing,
    conflict,
    denied,
    granted,
    not_now,
    paused,
    standing,
)
from limiter_service.engine.bells import Bell
from limiter_service.engine.calls import Calls
from limiter_service.engine.forecast import Forecast, Prediction
from limiter_service.engine.passes import GRACE, Passes, Pool, keep_ms
from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.statistics import Observer, Wait
from limiter_service.engine.weighing import weigh
from limiter_service.store.commands import Commands
from limiter_service.store.keys import Keys, line_id, request_digest, tenant_id
from limiter_service.store.messages import NEVER, Claim, Reply, Terms, Verdict, Waiter
from limiter_wire import Acquire, ErrorCode, Granted, QueueState, Waiting

NEWS = 1.0
"""Seconds between two news of where a caller stands, at least."""

HELD = math.inf
"""The hold of a caller that no proxy takes for dead while it waits: until its wait is over."""

_ASK_AGAIN = 10.0  # a message may be lost, and the store may lose the queue
_MOST_ASKING = 100.0  # callers in a second: it costs them a script call each
_AFTER_A_FAILURE = 0.2
_MOST_PROMISES = 100_000
_MICRO = 1_000_000


Current = Callable[[], tuple[Policy, list[float]]]
"""The policy in force for a request, and its amounts. Raises Refusal."""

Tell = Callable[[Waiting], None]
"""Hears where a caller stands while it is held."""


class _Wish(msgspec.Struct, frozen=True):
    """What one caller asks for, and until when: loop times."""

    policy: Policy
    request: Acquire
    request_id: str
    claim: Claim
    deadline: float
    held_until: float
    held: bool


class _Promise(msgspec.Struct, frozen=True):
    """What a waiter was told, when it had waited for *elapsed*; microseconds of the store."""

    forecast: Prediction
    elapsed: float
    at: float


class Queue:
    """Callers that wait."""

    def __init__(
        self,
        commands: Commands,
        calls: Calls,
        forecast: Forecast,
        passes: Passes,
        observe: Observer,
        *,
        prefix: str,
        hold_limit: float,
    ) -> None:
        self._commands, self._calls, self._forecast = commands, calls, forecast
        self._passes, self._observe = passes, observe
        self._prefix, self._hold_limit = prefix, hold_limit
        # Many ask several times until they are served. Forecasts are judged by the first.
        self._promised: dict[bytes, _Promise] = {}

    async def take(
        self,
        policy: Policy,
        request: Acquire,
        request_id: str,
        claim: Claim,
        hold: float | None,
        current: Current,
        tell: Tell | None = None,
    ) -> Granted | Waiting:
        """Take, or wait: until the grant, for *hold* seconds, or until `max_wait` is over. By
        the policy that *current* gives, which may change meanwhile. The hold limit is the most
        that *hold* may be, but for HELD. *tell* hears where the request stands: at first, and
        when that has changed, each NEWS at most.

        Raises Refusal. When cancelled, the caller has hung up: its place stays for GRACE.
        """
        now = asyncio.get_running_loop().time()
        patience = min(request.max_wait, seconds(policy.config.queue.max_wait))
        held_for = self._hold_limit if hold is None else hold
        if held_for != HELD:
            held_for = min(held_for, self._hold_limit)
        held = held_for > 0 and patience > 0
        wish = _Wish(policy, request, request_id, claim, now + patience, now + held_for, held)
        digest = request_digest(policy.tenant, request_id)
        pool = self._passes.pool(policy.pool)
        with pool.place(digest, policy.model, wish.deadline) as at:
            try:
                return await self._wait(wish, at, current, tell)
            except asyncio.CancelledError:
                self._passes.let_go(policy, request_id)
                raise

    async def leave(self, policy: Policy, request_id: str) -> None:
        """Remove a waiter whose caller has gone; what it was granted comes back. Raises
        Refusal.
        """
        self._promised.pop(request_digest(policy.tenant, request_id), None)
        await self._commands.quiet()  # its last question may be on its way
        await self._passes.cancel(policy, request_id, let_go=False)
        self._passes.room_again(policy)

    async def _wait(
        self, wish: _Wish, told: Bell, current: Current, tell: Tell | None
    ) -> Granted | Waiting:
        loop, first = asyncio.get_running_loop(), True
        news: QueueState | None = None
        while True:
            told.clear()
            if not first:
                wish = await self._by_policy_in_force(wish, current)
            try:
                reply = await self._ask(wish, max(0.0, wish.deadline - loop.time()))
            except Refusal as refusal:
                lost = refusal.problem.code is ErrorCode.STORE_UNAVAILABLE
                over = min(wish.deadline, wish.held_until) <= loop.time()
                closed = wish.policy.config.on_store_loss == "closed"
                if first or over or not lost or not closed:
                    raise
                await asyncio.sleep(_AFTER_A_FAILURE)
                continue
            answer = self._answer(wish, reply)
            if isinstance(answer, Granted):
                self._served(wish, answer.waited)
                return answer
            at, forecast = answer
            pool = self._passes.note_waiter(wish.policy)
            if first:
                first = False
                self._begin(pool, wish, at)
            if self._passes.closing:
                await self._hang_up(wish)
                raise _closing(wish.policy)
            self._passes.tend(pool)
            if loop.time() >= wish.held_until:
                if wish.held:
                    await self._hang_up(wish)
                return self._waiting(wish.request_id, at, forecast)
            if tell is not None and news != (news := _state(at, forecast)):
                tell(self._waiting(wish.request_id, at, forecast))
            pause = max(_ASK_AGAIN if tell is None else NEWS, len(pool.places) / _MOST_ASKING)
            until = min(wish.held_until, wish.deadline, loop.time() + pause)
            del reply, answer, at, forecast  # many wait here, each with its frame
            await told.rest(until)

    async def _by_policy_in_force(self, wish: _Wish, current: Current) -> _Wish:
        """The same wish after a reload; one whose model is gone leaves. Raises Refusal."""
        try:
            policy, amounts = current()
        except Refusal:
            await self.leave(wish.policy, wish.request_id)
            raise
        if policy is wish.policy:
            return wish
        claim = replace(wish.claim, amounts=amounts)
        return replace(wish, policy=policy, claim=claim)

    def _begin(self, pool: Pool, wish: _Wish, at: Standing) -> None:
        """A new first waiter may fit at once; its tenant's lines are looked at in their order."""
        if at.place == 0:
            pool.room.add(tenant_id(wish.policy.tenant))
            self._passes.kick(pool)

    async def _hang_up(self, wish: _Wish) -> None:
        with contextlib.suppress(Refusal):  # then the place ends with this replica's passes
            await self._passes.cancel(wish.policy, wish.request_id, let_go=True)

    async def _ask(self, wish: _Wish, left: float) -> Reply:
        policy, claim = wish.policy, wish.claim
        keys = Keys(policy.pool, self._prefix)
        lease, queue = (
            keys.lease(policy.tenant, wish.request_id),
            self._passes.pool(policy.pool).keys,
        )
        weight = weigh(policy, claim.amounts, wish.request.priority)
        now = self._calls.now_us()
        policy.chain(now)
        allowed, going_on = self._forecast.allowed(policy, wish.request.priority, left, now)
        terms = Terms(
            max_wait=int(left * _MICRO),
            replica=self._passes.replica if wish.held and not self._passes.closing else 0.0,
            step=weight.step,
            cost=weight.cost,
            priority_class=weight.priority_class,
            share=weight.share,
            period=weight.period,
            most_waiters=policy.config.queue.max_waiters,
            keep=keep_ms(policy),
            allowed=allowed,
            going_on=going_on,
        )
        waiter = Waiter(
            digest=request_digest(policy.tenant, wish.request_id),
            line=line_id(policy.model, policy.tenant, wish.request.priority),
            names=f"{policy.resource}\0{policy.tenant}".encode(),
        )
        return await self._calls.run(
            policy,
            lambda chain: self._commands.enqueue(chain, lease, queue, claim, terms, waiter),
        )

    def _answer(self, wish: _Wish, reply: Reply) -> Granted | tuple[Standing, Prediction]:
        """The grant, or where the request stands. Raises Refusal."""
        policy, claim = wish.policy, wish.claim
        if reply.verdict in {Verdict.DONE, Verdict.REPEATED}:
            return granted(policy, wish.request_id, reply.numbers, wish.request.route)
        if reply.verdict is Verdict.CONFLICT:
            raise conflict(policy, wish.request_id)
        if reply.verdict is Verdict.PAUSED:
            raise paused(policy, reply.numbers)
        at = standing(policy, reply.numbers)
        if at.wait == NEVER:
            raise denied(policy, claim.amounts, at.limit, at.wait, at.levels)
        forecast = self._forecast.predict(
            policy,
            wish.request.priority,
            (at.needs, at.most),
            claim.amounts,
            at.levels,
            at.wait,
        )
        if reply.verdict is Verdict.WAITS:
            self._promise(wish, at, forecast)
            return at, forecast
        self._in_vain(wish, at)
        if reply.verdict is Verdict.TIMED_OUT:
            self._passes.room_again(policy)  # for those behind
        elif at.waiters > 0 or reply.verdict is Verdict.DENIED:
            self._passes.watch(policy)
        if reply.verdict is Verdict.DENIED and at.waiters == 0:
            raise denied(policy, claim.amounts, at.limit, at.wait, at.levels)
        state = _state(at, forecast)
        code, detail = _REASONS[reply.verdict]
        raise not_now(
            policy,
            code,
            detail.format(wait=forecast.p50, depth=at.waiters),
            claim.amounts,
            at,
            state,
        )

    def _waiting(self, request_id: str, at: Standing, forecast: Prediction) -> Waiting:
        return Waiting(
            request_id=request_id,
            waited=(at.now - at.began) / _MICRO,
            predicted_wait=forecast.p50,
            queue=_state(at, forecast),
        )

    def _promise(self, wish: _Wish, at: Standing, forecast: Prediction) -> None:
        name = request_digest(wish.policy.tenant, wish.request_id)
        if name not in self._promised:
            if len(self._promised) >= _MOST_PROMISES:  # those who never came back
                del self._promised[next(iter(self._promised))]
            self._promised[name] = _Promise(forecast, at.now - at.began, at.now)

    def _served(self, wish: _Wish, waited: float) -> None:
        policy = wish.policy
        promise = self._promised.pop(request_digest(policy.tenant, wish.request_id), None)
        if promise is not None:
            rest = max(0.0, waited - promise.elapsed / _MICRO)
            self._forecast.learn_wait(policy, wish.request.priority, promise.forecast, rest)
            self._observe(Wait(policy.resource, rest, promise.forecast, policy.tenant))

    def _in_vain(self, wish: _Wish, at: Standing) -> None:
        policy = wish.policy
        promise = self._promised.pop(request_digest(policy.tenant, wish.request_id), None)
        if promise is not None:
            rest = (at.now - promise.at) / _MICRO
            forecast = promise.forecast
            self._forecast.learn_wait(policy, wish.request.priority, forecast, rest, over=False)


def _closing(policy: Policy) -> Refusal:
    return refuse(
        ErrorCode.SHUTTING_DOWN,
        "this replica is shutting down; ask again with the same request_id: "
        f"the place is kept for {GRACE:g} s",
        resource=policy.resource,
        retry_after=0.0,
    )


_REASONS = {
    Verdict.DENIED: (
        ErrorCode.RATE_LIMITED,
        "{depth} wait in this pool, and this request would have to wait behind some of them",
    ),
    Verdict.TOO_LONG: (
        ErrorCode.WAIT_TOO_LONG,
        "the predicted wait is {wait:.3f} s, longer than max_wait",
    ),
    Verdict.FULL: (ErrorCode.QUEUE_FULL, "{depth} wait in this pool, and that is all it takes"),
    Verdict.TIMED_OUT: (
        ErrorCode.WAIT_TIMEOUT,
        "max_wait is over; another {wait:.3f} s are predicted",
    ),
}


def _state(at: Standing, forecast: Prediction) -> QueueState:
    return QueueState(
        depth=at.waiters,
        position=at.place,
        predicted_wait=forecast.p50,
        predicted_wait_p90=forecast.p90,
    )
