"""Calls that have begun: their script call is on its way, and nobody awaits it.

Most acquires and settles are over with the first answer of the store. Those need no task: their
answer is worked out where the store's is heard. What needs more goes on, with all that is known by
then, as if it had only now been asked for.
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from limiter_service.engine.ids import LeaseRef
from limiter_service.engine.policy import Policy
from limiter_service.store.commands import Claim, Posted, Reply, Report
from limiter_wire import Acquire, Settle


class Begun(msgspec.Struct, kw_only=True):
    """What has begun, and what came of it. `began` is in the loop's time."""

    policy: Policy
    began: float
    posted: Posted | None = None
    used: bool = False

    @property
    def reply(self) -> Reply | None:
        """The answer of the store; None after a failure."""
        return None if self.posted is None else self.posted.reply

    def once(self, ask: Callable[[], Awaitable[Reply]]) -> Awaitable[Reply]:
        """What came of it, the first time; then what *ask* brings."""
        if self.used or self.posted is None:
            return ask()
        self.used = True
        return self.posted.outcome()


class BegunAcquire(Begun, kw_only=True):
    """An acquire."""

    request: Acquire
    request_id: str
    claim: Claim


class BegunSettle(Begun, kw_only=True):
    """A settle, with what it says to the scripts."""

    request: Settle
    ref: LeaseRef
    told: Report


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
