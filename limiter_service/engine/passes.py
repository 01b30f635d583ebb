"""Passes over the queues of pools: who is next is decided in the store (lua/lib/serving).

While this replica knows that somebody waits in a pool it makes a pass at the predicted time of
the next fit, when a settle has made room, and at least every BEAT, which also says that the
replica lives. A pass of any replica serves everybody; whom it served is published as a hint, and
found again by the next pass of the replica that holds the caller.

A pass removes callers out of sight when their turn comes. Those behind are swept, a part of the
queue with each beat, and the next part at once where one had some.
"""

import asyncio
import contextlib
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog

from limiter_service.config import seconds
from limiter_service.engine import ids
from limiter_service.engine.bells import Bell
from limiter_service.engine.calls import Calls
from limiter_service.engine.errands import Errands
from limiter_service.engine.policy import Policy, UnknownResource
from limiter_service.engine.refusals import Refusal
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError
from limiter_service.store.hints import Hints
from limiter_service.store.keys import (
    Key,
    Keys,
    chain_id,
    model_id,
    request_digest,
    tenant_id,
)
from limiter_service.store.messages import Chain, QueueKeys, Served, ServeTerms, SweepTerms

GRACE = 5.0
"""Seconds that a place is kept for a caller out of sight, and a grant for one that does not ask."""

BEAT = 1.0
"""Seconds between passes at most, while this replica holds callers."""

_AFTER_A_FAILURE = 0.2
_BUSY = 1.0
_MOST_GRANTS = 64
_MOST_CHAINS = 64
_LOOK_NOW = -2.0  # an operator has changed a circuit (lua/override)
_LOOK_AT, _MOST_SWEPT = 2000, 100
_BACKUP = 0.03  # another replica has made a pass and will make the next one
_KEPT_LONGER = 60.0
_KEEP_UNKNOWN = 180_000
_MICRO = 1_000_000
_NO_CHAIN = Chain((), (), (), (), -1.0)

_log = structlog.get_logger()

PolicyOf = Callable[[str, str], Policy]


def keep_ms(policy: Policy) -> int:
    """How long the store keeps the queue of a pool after its last change."""
    return int((seconds(policy.config.queue.max_wait) + _KEPT_LONGER) * 1000)


class Place:
    """A caller that this replica holds. `deadline` is in loop time."""

    def __init__(self, model: bytes, deadline: float) -> None:
        self.model, self.deadline = model, deadline
        self.told = Bell()


class Pool:
    """What this replica knows of one pool's queue."""

    def __init__(self, name: str, prefix: str) -> None:
        self.name, self.keys = name, QueueKeys.of(Keys(name, prefix))
        self.places: dict[bytes, set[Place]] = {}
        self.chains: dict[bytes, tuple[str, str]] = {}
        self.room: set[bytes] = set()
        self.wake = asyncio.Event()
        self.due: float | None = None
        self.busy_until = self.sweep_at = 0.0
        self.swept_to, self.keep = b"", _KEEP_UNKNOWN
        self.unfinished = False
        self.task: asyncio.Task[None] | None = None

    def know(self, resource: str, tenant: str) -> None:
        """Bring this chain along in the next passes."""
        model = resource.partition("/")[2]
        name = chain_id(model, tenant)
        self.chains.pop(name, None)
        while len(self.chains) >= _MOST_CHAINS:
            del self.chains[next(iter(self.chains))]
        self.chains[name] = resource, tenant

    @contextlib.contextmanager
    def place(self, digest: bytes, model: str, deadline: float) -> Iterator[Bell]:
        """A bell that rings when the callers behind a request should ask again."""
        place = Place(model_id(model), deadline)
        self.places.setdefault(digest, set()).add(place)
        try:
            yield place.told
        finally:
            self.places[digest].discard(place)
            if not self.places[digest]:
                del self.places[digest]

    def tell(self, digest: bytes) -> None:
        """Let the callers behind a request ask again."""
        for place in self.places.get(digest, ()):
            place.told.set()

    def tell_impatient(self, model: bytes, until: float) -> None:
        """The same for those of a model who may not wait *until* then."""
        for places in self.places.values():
            for place in places:
                if place.model == model and place.deadline < until:
                    place.told.set()


class Passes:
    """The pools that this replica has to do with, and their passes."""

    def __init__(
        self, commands: Commands, calls: Calls, hints: Hints, policy_of: PolicyOf, prefix: str
    ) -> None:
        self._commands, self._calls, self._hints = commands, calls, hints
        self._policy_of, self._prefix = policy_of, prefix
        self.replica = float(ids.new_nonce() + 1)
        self.closing, self._ended = False, False
        self.away: Callable[[str], bool] = lambda _: False
        """Whether a pool is decided without the store."""
        self._pools: dict[str, Pool] = {}
        self._errands = Errands()

    def pool(self, name: str) -> Pool:
        """What is known of a pool's queue."""
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = Pool(name, self._prefix)
        return pool

    @property
    def held(self) -> int:
        """How many callers this replica holds."""
        return sum(len(places) for pool in self._pools.values() for places in pool.places.values())

    def busy(self, name: str) -> bool:
        """Whether somebody was seen waiting in a pool just now."""
        known = self._pools.get(name)
        if known is None or not known.busy_until:
            return False
        return known.busy_until > asyncio.get_running_loop().time()

    def note_waiter(self, policy: Policy) -> Pool:
        """Somebody waits for *policy*: bring its limits along in the next passes."""
        pool = self.pool(policy.pool)
        pool.busy_until = asyncio.get_running_loop().time() + _BUSY
        pool.unfinished = True
        pool.know(policy.resource, policy.tenant)
        return pool

    def watch(self, policy: Policy) -> None:
        """Somebody was refused for those who wait: see to it that they are still there."""
        pool = self.pool(policy.pool)
        pool.know(policy.resource, policy.tenant)
        if pool.task is None:
            self.kick(pool)

    def room_again(self, policy: Policy) -> None:
        """A settle has made room: serve whoever waits for it."""
        pool = self.pool(policy.pool)
        pool.room.add(tenant_id(policy.tenant))
        self.kick(pool)

    async def cancel(self, policy: Policy, request_id: str, *, let_go: bool) -> None:
        """Remove a waiter, a grant that was not fetched included; or with *let_go* note that
        nobody holds its caller: its place is kept for GRACE. Raises Refusal.
        """
        lease = Keys(policy.pool, self._prefix).lease(policy.tenant, request_id)
        await self._cancel(policy, lease, request_digest(policy.tenant, request_id), let_go=let_go)

    def let_go(self, policy: Policy, request_id: str) -> None:
        """The same for a caller that has hung up, beside other work."""
        self._errands.run(self._quietly(self.cancel(policy, request_id, let_go=True)))

    def close(self) -> None:
        """Let every caller go for good: each asks again and sees `closing`."""
        self._ended = True
        self.hand_over()

    def hand_over(self) -> None:
        """Let every caller go to another replica, until `take_up`."""
        if not self.closing:
            self.closing = True
            self._tell_everybody()

    def adrift(self, name: str) -> None:
        """The store is lost: let those who wait in a pool ask, so that they hear it."""
        pool = self.pool(name)
        for digest in list(pool.places):
            pool.tell(digest)

    def take_up(self) -> None:
        """Hold callers again."""
        self.closing = self._ended

    def _tell_everybody(self) -> None:
        for pool in self._pools.values():
            for digest in list(pool.places):
                pool.tell(digest)

    async def aclose(self) -> None:
        """Let every caller go, then end the passes."""
        self.close()
        while any(pool.places for pool in self._pools.values()):
            self._tell_everybody()
            await asyncio.sleep(0.01)
        for pool in self._pools.values():
            if pool.task is not None:
                pool.task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await pool.task
        await self._errands.over()
        await self._hints.aclose()

    def kick(self, pool: Pool) -> None:
        pool.due = 0.0
        pool.wake.set()
        self.tend(pool)

    def tend(self, pool: Pool) -> None:
        if pool.task is None and not self._ended:
            pool.task = asyncio.get_running_loop().create_task(self._look_after(pool))

    async def _look_after(self, pool: Pool) -> None:
        """Make passes while somebody waits, or when this replica has been told of room."""
        loop = asyncio.get_running_loop()
        listening = False
        try:
            while pool.places or pool.unfinished or pool.due == 0.0:
                if pool.places and not listening:
                    listening = True
                    self._hints.listen(pool.keys.channel, lambda message: self._hear(pool, message))
                if self.away(pool.name):  # the store has yet to hear what was granted without it
                    await asyncio.sleep(_AFTER_A_FAILURE)
                    continue
                pool.wake.clear()
                pool.due = None
                try:
                    again = await self._pass(pool)
                    again |= await self._sweep(pool)
                except StoreError as error:
                    _log.debug("the queue was not served", pool=pool.name, problem=str(error))
                    await asyncio.sleep(_AFTER_A_FAILURE)
                    continue
                if again or pool.due == 0.0:
                    pool.due = 0.0
                    continue
                await self._rest(pool, loop)
        finally:
            pool.task = None
            self._hints.ignore(pool.keys.channel)
            if pool.places:
                self.tend(pool)

    async def _rest(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        """Until the next pass is due, which a hint may put off, or somebody kicks."""
        beat = loop.time() + BEAT
        while not pool.wake.is_set():
            until = beat if pool.due is None else min(beat, pool.due)
            if until <= loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await pool.wake.wait()

    async def _pass(self, pool: Pool) -> bool:
        """Serve the queue once. True when there is more to serve at once."""
        served = await self._serve(pool)
        if served is None:
            return True
        now = asyncio.get_running_loop().time()
        # Also for callers of others: theirs may be dead, and somebody has to see that.
        pool.unfinished = served.waiters > 0 or served.unfetched > 0
        if served.waiters > 0:
            pool.busy_until = now + _BUSY
        if served.due is not None and pool.due != 0.0:
            pool.due = now + served.due / _MICRO
        if served.waiters == 0 and not served.again:  # also when the store has lost the queue
            for digest in list(pool.places):
                pool.tell(digest)
        for digest in served.again:
            pool.tell(digest)
        for model, pause in served.paused:
            pool.tell_impatient(model, now + pause / _MICRO)
        for names in served.missing:
            resource, _, tenant = names.decode().partition("\0")
            pool.know(resource, tenant)
        for digest, names in served.overdue:
            self._errands.run(self._take_back(pool, digest, names))
        return served.more

    async def _serve(self, pool: Pool) -> Served | None:
        """One call; None when the boundaries of a calendar were stale."""
        now = self._calls.now_us()
        chains, keep = {}, 0
        for name, (resource, tenant) in list(pool.chains.items()):
            try:
                policy = self._policy_of(resource, tenant)
            except UnknownResource:  # its waiters are told so when they ask again
                chains[name] = _NO_CHAIN
                continue
            chains[name] = policy.chain(now)
            keep = max(keep, keep_ms(policy))
        pool.keep = keep or _KEEP_UNKNOWN
        room, pool.room = pool.room, set()
        terms = ServeTerms(
            replica=self.replica,
            most=_MOST_GRANTS,
            grace=GRACE * _MICRO,
            patience=GRACE * _MICRO,
            keep=pool.keep,
            room_again=b"".join(room),
        )
        served = await self._commands.dispatch(chains, pool.keys, ids.new_nonce(), terms)
        if isinstance(served, float):
            self._calls.correct(served)
            pool.room |= room
            return None
        return served

    async def _sweep(self, pool: Pool) -> bool:
        """Remove callers out of sight from a part of the queue. True when there were some: who
        dies leaves many.
        """
        now = asyncio.get_running_loop().time()
        if now < pool.sweep_at:
            return False
        terms = SweepTerms(grace=GRACE * _MICRO, look_at=_LOOK_AT, most=_MOST_SWEPT, keep=pool.keep)
        removed, pool.swept_to = await self._commands.sweep(
            pool.keys, ids.new_nonce(), terms, pool.swept_to
        )
        pool.sweep_at = now + (0.0 if removed else BEAT)
        return removed > 0

    async def _take_back(self, pool: Pool, digest: bytes, names: bytes) -> None:
        """Return a grant that nobody has fetched: its caller or its replica is gone."""
        resource, _, tenant = names.decode().partition("\0")
        with contextlib.suppress(UnknownResource, Refusal):
            policy = self._policy_of(resource, tenant)
            lease = Keys(pool.name, self._prefix).lease(tenant, "")  # a removal does not use it
            await self._cancel(policy, lease, digest, let_go=False)
            self.room_again(policy)

    async def _cancel(self, policy: Policy, lease: Key, digest: bytes, *, let_go: bool) -> None:
        queue = self.pool(policy.pool).keys
        await self._calls.run(
            policy,
            lambda chain: self._commands.cancel(
                chain,
                lease,
                queue,
                ids.new_nonce(),
                digest,
                let_go_of=self.replica if let_go else None,
                keep=keep_ms(policy),
            ),
        )

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        with contextlib.suppress(Refusal):  # then the place ends with this replica's passes
            await work

    def _hear(self, pool: Pool, message: bytes) -> None:
        """Another replica (or this one) has made a pass: who is served, when the next is due."""
        (due,) = struct.unpack_from("<d", message)
        if due == _LOOK_NOW:
            self.kick(pool)
            return
        for at in range(8, len(message), 24):
            (holder,) = struct.unpack_from("<d", message, at)
            if holder == self.replica:
                pool.tell(message[at + 8 : at + 24])
        if due >= 0 and pool.due is not None and pool.due != 0.0:
            now = asyncio.get_running_loop().time()
            pool.due = max(pool.due, now + due / _MICRO + _BACKUP)
