"""What befalls a story: the store, the ways to it, replicas and the provider."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from plots import APART, REPLICAS

if TYPE_CHECKING:
    from story import Story


class Fate:
    """Lets one thing happen after the other."""

    def __init__(self, story: "Story") -> None:
        self._story, self._luck = story, story.luck

    async def run(self) -> None:
        """Choose among the faults of the story, again and again."""
        story, luck = self._story, self._luck
        events: dict[str, Callable[[], Awaitable[None]]] = {
            "partition": self._partition, "replica crash": self._crash,
            "failover": self._failover, "clock forward": self._forward,
            "clock back": self._back, "scripts forgotten": self._forget,
            "provider down": self._provider, "store away": self._away,
        }  # fmt: skip
        mine = [name for name in events if name in story.faults]
        while mine:
            await asyncio.sleep(luck.expovariate(1 / story.plot.between))
            name = luck.choice(mine)
            story.told.faults[name] += 1
            story.upheavals += 1
            await events[name]()
            story.upheavals += 1

    async def _partition(self) -> None:
        way = self._luck.choice(self._story.ways)
        way.cut = True
        await asyncio.sleep(self._luck.uniform(0.2, 3.0))
        way.cut = False

    async def _crash(self) -> None:
        """A replica forgets all that it had in memory, and those whom it held are let go."""
        at = self._luck.randrange(REPLICAS)
        self._story.end_replica(at)
        await asyncio.sleep(self._luck.uniform(0.1, 1.0))
        self._story.start_replica(at)

    async def _failover(self) -> None:
        """The primary dies; what the replica had not got yet is lost."""
        story, luck = self._story, self._luck
        kept, dumps = story.store.photograph()
        await asyncio.sleep(luck.uniform(0.0, 1.0))
        story.store.up = False
        story.lose(kept)
        try:
            await asyncio.sleep(luck.uniform(0.1, 2.0))
        finally:  # who checks has been told what is lost, so it is, though the story ends now
            story.store.restore(dumps)
            story.store.forget_scripts()
        if luck.random() < 0.5 and not story.plot.alone:
            self._step(luck.uniform(-2.0, 2.0))
        story.store.up = True

    async def _away(self) -> None:
        """The store is away for everybody, now and then after a time in which nobody has called:
        then every replica has seen all that was taken.
        """
        story, luck = self._story, self._luck
        if luck.random() < 0.6:
            story.quiet_until = asyncio.get_running_loop().time() + 1.9
            await asyncio.sleep(1.8)
        story.store.up = False
        # Where replicas may be apart, some need not notice.
        least = 0.05 if story.faults & APART else 1.5
        await asyncio.sleep(luck.uniform(least, 8.0))
        story.store.up = True

    def _step(self, seconds: float) -> None:
        story = self._story
        story.look()
        story.store.ahead += seconds
        story.ledger.step(seconds, story.store.now())
        story.loans.step(seconds)

    async def _forward(self) -> None:
        self._step(self._luck.choice([0.1, 1.0, 30.0]))

    async def _back(self) -> None:
        self._step(-self._luck.choice([0.1, 1.0, 30.0]))

    async def _forget(self) -> None:
        self._story.store.forget_scripts()

    async def _provider(self) -> None:
        self._story.down = True
        await asyncio.sleep(self._luck.uniform(0.5, 4.0))
        self._story.down = False
