"""Who holds blocks here, and is told when they are to be given back.

While blocks are held that this replica has lent over a channel, it looks into the store ten times
a second: whether somebody waits in their pool, and whether their circuits are calm. What is not
heard of is bounded: a block is given back when its time is over.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import msgspec

from limiter_service.engine import ids
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Keys
from limiter_service.store.messages import Holdings

EVERY = 0.1
"""Seconds between two looks."""

Tell = Callable[[str], None]
"""Hears of a resource whose blocks are to be given back."""


class _Holder(msgspec.Struct, frozen=True, eq=False):
    model: str
    tell: Tell
    until: float


class Recalls:
    """The holders of blocks, by pool."""

    def __init__(self, commands: Commands, prefix: str) -> None:
        self._commands, self._prefix = commands, prefix
        self._holders: defaultdict[str, list[_Holder]] = defaultdict(list)
        self._looking: dict[str, asyncio.Task[None]] = {}

    def watch(self, resource: str, hold: float, tell: Tell) -> None:
        """Let *tell* hear of it when *resource* is recalled in the next *hold* seconds."""
        pool, _, model = resource.partition("/")
        loop = asyncio.get_running_loop()
        self._holders[pool].append(_Holder(model, tell, loop.time() + hold))
        if pool not in self._looking:
            self._looking[pool] = loop.create_task(self._look_after(pool))

    async def aclose(self) -> None:
        """Look no more."""
        for task in list(self._looking.values()):
            task.cancel()
        if self._looking:
            await asyncio.wait(list(self._looking.values()))

    async def _look_after(self, pool: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            while holders := [each for each in self._holders[pool] if each.until > loop.time()]:
                self._holders[pool] = holders
                models = sorted({each.model for each in holders})
                try:
                    keys = Keys(pool, self._prefix)
                    seen = await self._commands.blocks(keys, models, ids.new_nonce())
                except StoreError:
                    pass  # it is looked at again
                else:
                    self._recall(pool, seen)
                await asyncio.sleep(EVERY)
        finally:
            del self._holders[pool], self._looking[pool]

    def _recall(self, pool: str, seen: Holdings) -> None:
        """Tell everybody whom it concerns, once."""
        concerned = [each for each in self._holders[pool] if seen.waits or each.model in seen.sick]
        if concerned:
            rest = [each for each in self._holders[pool] if each not in concerned]
            self._holders[pool] = rest
        told = set()
        for each in concerned:
            if (each.model, each.tell) not in told:
                told.add((each.model, each.tell))
                each.tell(f"{pool}/{each.model}")
