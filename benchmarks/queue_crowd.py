"""Waiters in the store without callers: scripts are called as the service calls them."""

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, cast

import msgspec
from harness import Replica, Store

from limiter_service.config import parse
from limiter_service.engine import ids
from limiter_service.engine.breaking import Class
from limiter_service.engine.policy import Policies, Policy
from limiter_service.store.keys import (
    DEFAULT_PREFIX,
    Keys,
    chain_id,
    line_id,
    request_digest,
    tenant_id,
)
from limiter_service.store.messages import (
    Claim,
    QueueKeys,
    Reply,
    Report,
    Served,
    ServeTerms,
    SweepTerms,
    Terms,
    Verdict,
    Waiter,
)

QUEUE = "queue: {max_waiters: 1000000, max_wait: 2h}"
HOUR = 3600e6
TOKENS = 100
PLENTY = 10**12
AT_ONCE = 500
CHAINS = 64  # as engine/passes

Request = tuple[str, int]
"""Tenant and number."""


def config(shared: int, own: int | None) -> str:
    """A pool with a shared limit of tokens, and where given one for each tenant."""
    limit = "{{limits: [{{meter: tokens, limit: {0}, per: day, burst: {0}}}]}}"
    tenants = "" if own is None else f"tenants: {{'*': {limit.format(own)}}}"
    models = f"models: {{m: {limit.format(shared)}}}"
    return f"pools: \n  bench:\n    {models}\n    {tenants}\n    {QUEUE}\n"


class Shape(msgspec.Struct, frozen=True):
    """How waiters are spread over tenants; 0: a tenant each."""

    name: str
    tenants: int
    own: bool = False


SHAPES = (
    Shape("1 line", 1),
    Shape("100 tenants", 100),
    Shape("a tenant each", 0),
    Shape("own limits", 100, own=True),
)


class Crowd:
    """Waiters. Nothing they need has room, until all has, or one of *leases* is settled."""

    def __init__(self, where: Store, replica: Replica, shape: Shape, leases: int = 1) -> None:
        self._redis, self._commands, self._shape = where.redis, replica.commands, shape
        self._first = shape.tenants if shape.own else leases
        scarce = TOKENS if shape.own else TOKENS * leases
        limits = (
            [(PLENTY, scarce), (PLENTY, PLENTY)] if shape.own else [(scarce, None), (PLENTY, None)]
        )
        self._policies = [
            Policies(parse(config(*pair), ".yaml"), DEFAULT_PREFIX, 200_000) for pair in limits
        ]
        self.keys = QueueKeys.of(Keys("bench"))
        self._replica = replica.engine.passes.replica
        self.chance = random.Random(1)
        self._next = 0
        self._known: dict[bytes, str] = {}
        self._held: list[Request] = []
        self.waiting: dict[bytes, Request] = {}

    def _tenant(self, number: int) -> str:
        return f"t{number % self._shape.tenants if self._shape.tenants else number}"

    def _policy(self, tenant: str, *, plenty: bool = False) -> Policy:
        return self._policies[plenty].policy("bench/m", tenant)

    async def drain(self) -> None:
        """Take what room there is."""
        self._held = [(self._tenant(number), number) for number in range(self._first)]
        self._next = self._first
        await self._take(self._held)

    async def _take(self, requests: Iterable[Request]) -> None:
        for verdict in await asyncio.gather(*map(self._ask, requests)):
            assert verdict is Verdict.DONE, verdict

    async def join(self, count: int) -> None:
        """So many more. Who finds room that an earlier plenty has left does not count."""
        wanted = len(self.waiting) + count
        while len(self.waiting) < wanted:
            numbers = self._numbers(min(AT_ONCE, wanted - len(self.waiting)))
            requests = [(self._tenant(number), number) for number in numbers]
            verdicts = await asyncio.gather(*map(self._ask, requests))
            for request, verdict in zip(requests, verdicts, strict=True):
                if verdict is Verdict.WAITS:
                    self.waiting[_digest(request)] = request
                else:
                    assert verdict is Verdict.DONE, verdict

    def _numbers(self, count: int) -> range:
        numbers = range(self._next, self._next + count)
        self._next = numbers.stop
        return numbers

    async def strangers(self, count: int) -> list[bytes]:
        """Requests of tenants who have no line yet, and no room of their own: who they are."""
        tenants = [f"new{number}" for number in self._numbers(count)]
        if self._shape.own:
            await self._take((tenant, 0) for tenant in tenants)
        self.waiting |= {_digest((tenant, 1)): (tenant, 1) for tenant in tenants}
        return [_digest((tenant, 1)) for tenant in tenants]

    async def ask(self, names: Sequence[bytes]) -> None:
        """Stand in line, or ask again; nobody is served."""
        for verdict in await asyncio.gather(*(self._ask(self.waiting[name]) for name in names)):
            assert verdict is Verdict.WAITS, verdict

    async def _ask(self, request: Request) -> Verdict:
        tenant, number = request
        policy = self._policy(tenant)
        chain = policy.chain(0)
        unknown = [-1.0] * len(policy.limits)
        amounts = [float(TOKENS) if limit.meter == "tokens" else 1.0 for limit in policy.limits]
        claim = Claim(nonce=number + 1, fingerprint=1, ttl=HOUR, remember=1e6, amounts=amounts)
        terms = Terms(
            max_wait=HOUR,
            replica=self._replica,
            step=1e-3,
            cost=1e-3,
            priority_class=0,
            share=0.0,
            period=60e6,
            most_waiters=10**6,
            keep=7_200_000,
            allowed=unknown,
            going_on=0.0,
        )
        waiter = Waiter(
            digest=_digest(request),
            line=line_id("m", tenant, 5),
            names=f"bench/m\0{tenant}".encode(),
        )
        lease = Keys("bench").lease(tenant, str(number))
        answer = await self._commands.enqueue(chain, lease, self.keys, claim, terms, waiter)
        return answer.verdict

    async def settle(self) -> str:
        """Give back all of a lease, which makes room for one; whose it was."""
        tenant, number = self._held.pop(0)
        chain = self._policy(tenant).chain(0)
        keys = Keys("bench")
        unused = Report(
            first_token=False,
            outcome_class=Class.SUCCESS,
            kind=0,
            slow=False,
            retry_after=0.0,
            used=[0.0] * len(self._policy(tenant).limits),
        )
        lease = keys.lease(tenant, str(number))
        answer = await self._commands.settle(
            chain, lease, keys.queue(), ids.new_nonce(), number + 1, unused
        )
        assert answer.verdict is Verdict.DONE_WHILE_OTHERS_WAIT, answer.verdict
        return tenant

    async def serve(self, *, plenty: bool) -> list[bytes]:
        """One pass, made again with the chains that it misses; who may fetch now."""
        room: list[str] = []
        if plenty and self._shape.own:  # what a settle of each of these would say
            room = self.chance.sample([f"t{n}" for n in range(self._shape.tenants)], 16)
        while True:
            served = await self.pass_over(room, plenty=plenty)
            if served.granted:
                return [name for name in set(served.again) if name in self.waiting]
            if not served.missing:
                return []

    async def pass_over(self, room: Sequence[str], *, plenty: bool = False) -> Served:
        """One pass, with the tenants who have *room* again; it is known then what it missed."""
        for tenant in room:
            self._know(tenant)
        terms = ServeTerms(
            replica=self._replica,
            most=64,
            grace=5e6,
            patience=HOUR,
            keep=7_200_000,
            room_again=b"".join(map(tenant_id, room)),
        )
        chains = {
            name: self._policy(tenant, plenty=plenty).chain(0)
            for name, tenant in self._known.items()
        }
        served = await self._commands.dispatch(chains, self.keys, ids.new_nonce(), terms)
        assert not isinstance(served, float)
        for names in served.missing:
            self._know(names.decode().partition("\0")[2])
        return served

    def _know(self, tenant: str) -> None:
        self._known.pop(chain_id("m", tenant), None)
        while len(self._known) >= CHAINS:
            del self._known[next(iter(self._known))]
        self._known[chain_id("m", tenant)] = tenant

    async def fetch(self, names: Sequence[bytes]) -> None:
        """Take these grants."""
        requests = [self.waiting.pop(name) for name in names]
        for verdict in await asyncio.gather(*map(self._ask, requests)):
            assert verdict is Verdict.REPEATED, verdict
        self._held += requests

    def somebody(self, count: int) -> list[bytes]:
        """So many, from anywhere in the queue."""
        return self.chance.sample(list(self.waiting), count)

    async def leave(self, names: Sequence[bytes]) -> None:
        """Cancel these."""
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]
            for reply in await asyncio.gather(*map(self._cancel, part)):
                assert reply.verdict is Verdict.DONE, reply.verdict

    def place(self, nth: int) -> bytes:
        """Where the nth of all waiters stands."""
        (found,) = cast("list[bytes]", self._redis.zrange(self.keys.keys[1], nth, nth))
        return found

    async def sweep(self, place: bytes, count: int) -> int:
        """Look at so many from *place* on for those out of sight; how many were removed."""
        terms = SweepTerms(grace=HOUR, look_at=count, most=count, keep=7_200_000)
        removed, _ = await self._commands.sweep(self.keys, ids.new_nonce(), terms, place)
        return removed

    def _cancel(self, name: bytes) -> Coroutine[Any, Any, Reply]:
        tenant, _ = self.waiting.pop(name)
        return self._commands.cancel(
            self._policy(tenant).chain(0),
            Keys("bench").lease(tenant, ""),
            self.keys,
            ids.new_nonce(),
            name,
            let_go_of=None,
            keep=7_200_000,
        )


def _digest(request: Request) -> bytes:
    return request_digest(request[0], str(request[1]))
