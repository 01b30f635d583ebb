"""Calls that have begun: their script call is on its way, and nobody awaits it.

Most acquires and settles are over with the first answer of the store. Those need no task: their
answer is worked out where the store's is heard. What needs more goes on, with all that is known by
then, as if it had only now been asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable

from limiter_service.engine.demands import Demand
from limiter_service.engine.policy import Policy
from limiter_service.store.claims import claim_in
from limiter_service.store.keys import Key
from limiter_service.store.messages import Claim, Reply, Report
from limiter_service.store.posted import Listener, Posted
from limiter_wire import Acquire, Settle


class Begun(Posted):
    """What has begun under a policy, and what comes of it."""

    __slots__ = ("_used", "policy")

    policy: Policy
    _used: bool

    def once(self, ask: Callable[[], Awaitable[Reply]]) -> Awaitable[Reply]:
        """What came of it, the first time; then what *ask* brings."""
        if self._used:
            return ask()
        self._used = True
        return self.outcome()


class BegunAcquire(Begun):
    """An acquire of a lease that is to have the key *key*."""

    __slots__ = ("demand", "key", "request", "request_id")

    def __init__(
        self,
        policy: Policy,
        request: Acquire,
        request_id: str,
        key: Key,
        demand: Demand,
        listener: Listener,
    ) -> None:
        Begun.__init__(self, listener)  # super() takes longer than all of it
        self.policy, self.request, self.request_id = policy, request, request_id
        self.key, self.demand, self._used = key, demand, False

    @property
    def claim(self) -> Claim:
        """What it has asked of the store."""
        assert self.asked is not None
        return claim_in(self.asked)


class BegunSettle(Begun):
    """A settle, with what it says to the scripts beside what was used, of a lease that remembers
    its *route*.
    """

    __slots__ = ("request", "route", "told")

    def __init__(
        self, policy: Policy, request: Settle, route: str | None, told: Report, listener: Listener
    ) -> None:
        Begun.__init__(self, listener)
        self.policy, self.request, self.route, self.told = policy, request, route, told
        self._used = False


class Arrivals:
    """Lets one task wait for all that it has begun."""

    def __init__(self) -> None:
        self._come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = self._expected = 0

    @property
    def gone(self) -> bool:
        """Whether the task was cancelled."""
        return self._come.cancelled()

    def hear(self) -> None:
        """One has come."""
        self._heard += 1
        if self._heard == self._expected and not self._come.done():
            self._come.set_result(None)

    async def of(self, *begun: Begun) -> None:
        """Return when all of them have come."""
        self._expected = len(begun)
        if self._heard < self._expected:
            await self._come
