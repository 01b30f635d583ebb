"""Leases that nobody settles: the replica that has granted one sees to it that it is counted.

A lease that is settled elsewhere, or renewed, is told apart by a look into the store when its
time is over. Losing this loses a figure, never a limit.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from limiter_service.engine import ids
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Key, Keys

_GRACE = 1.0
_MOST = 100_000
_MOST_AT_ONCE = 200
_UNKNOWN = -1e17
_MICRO = 1_000_000

Left = Callable[[Sequence[Key], float, Sequence[float]], Awaitable[Sequence[float]]]
"""Of leases, by a tag and their nonces: the microseconds that each has left."""

Expired = Callable[[str, str], None]
"""Hears of a lease that expired: its resource and tenant."""


class Unsettled:
    """Leases under way that this replica has granted. Bounded: more are not watched."""

    def __init__(self, left: Left, expired: Expired, prefix: str) -> None:
        self._left, self._expired, self._prefix = left, expired, prefix
        self._ends: dict[str, int] = {}
        self._due: dict[int, dict[str, None]] = {}
        """What is looked at, by the second of the loop's time at which that is."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None

    def granted(self, lease: str, expires_in: float) -> None:
        """Watch a lease."""
        ends = self._ends
        if lease not in ends and len(ends) < _MOST:
            self._watch(lease, expires_in)

    def settled(self, lease: str) -> None:
        """It was settled here, or its end is known."""
        second = self._ends.pop(lease, None)
        if second is None:
            return
        due = self._due.get(second)
        if due is not None:  # else it is being looked at
            due.pop(lease, None)
            if not due:
                del self._due[second]

    @property
    def count(self) -> int:
        """How many are watched."""
        return len(self._ends)

    async def aclose(self) -> None:
        """Watch no more."""
        self._ends.clear()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            await asyncio.wait({self._look})

    def _watch(self, lease: str, expires_in: float) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._watch_until(lease, self._loop.time() + expires_in + _GRACE)

    def _watch_until(self, lease: str, end: float) -> None:
        second = int(end) + 1
        self._ends[lease] = second
        due = self._due.get(second)
        if due is None:
            due = self._due[second] = {}
        due[lease] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._tick)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        over = [
            lease
            for second in [second for second in self._due if second <= now]
            for lease in self._due.pop(second)
            if self._ends.get(lease) == second  # else it is over, or lives longer
        ]
        if over and self._look is None:
            self._look = loop.create_task(self._judge(over))
        elif over:
            for lease in over:  # the last look is not over
                self._watch_until(lease, now)
        self._timer = loop.call_later(1.0, self._tick) if self._due else None

    async def _judge(self, leases: Sequence[str]) -> None:
        pools: defaultdict[str, dict[str, ids.LeaseRef]] = defaultdict(dict)
        for lease in leases:
            ref = ids.decode(lease)
            if ref is not None:
                pools[ref.pool][lease] = ref
        try:
            for pool, refs in pools.items():
                await self._judge_pool(Keys(pool, self._prefix), refs)
        except StoreError:
            for lease in leases:  # the store is away; it is looked at again
                if lease in self._ends:
                    self._watch(lease, 5.0)
        finally:
            self._look = None

    async def _judge_pool(self, keys: Keys, refs: Mapping[str, ids.LeaseRef]) -> None:
        names = list(refs)
        for first in range(0, len(names), _MOST_AT_ONCE):
            some = names[first : first + _MOST_AT_ONCE]
            found = await self._left(
                [keys.lease(refs[n].tenant, refs[n].request_id) for n in some],
                ids.new_nonce(),
                [refs[n].nonce for n in some],
            )
            for name, left in zip(some, found, strict=True):
                if self._ends.pop(name, None) is None:
                    continue  # settled meanwhile
                ref = refs[name]
                if left > 0:  # it was renewed
                    self._watch(name, left / _MICRO)
                elif left > _UNKNOWN:
                    self._expired(f"{ref.pool}/{ref.model}", ref.tenant)
