"""Whether who could be served is served: looks at the queue now and then, past every way."""

import asyncio
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from order import waiter
from plots import APART
from tests_support.ledger import Broken
from world import Store

from limiter_service.store.scripts import Script

if TYPE_CHECKING:
    from story import Story

_PROMPT, _BEATS = 0.6, 3.0
"""Seconds within which a pass comes: for a reason, or since one comes every second."""

_HOLDER = 32  # where a ticket says which replica holds its caller
_LINE, _DIGEST = 17, 16


class Spy:
    """A way to the store that takes no time."""

    sharded = False

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        _mark: str | None = None,
    ) -> Any:
        """The reply of a script."""
        return self._store.answer(self._store.send(script, keys, arguments))


class Wakes:
    """A waiter who comes first and whose budget is free is granted before long."""

    def __init__(self, story: "Story") -> None:
        self._story, self._commands = story, story.commands(Spy(story.store))
        late = story.faults & (APART | {"lost messages"})
        self._patience = _BEATS if late else _PROMPT
        self.looks = 0

    async def run(self) -> None:
        """Look now and then, and once more when a pass should have come."""
        story = self._story
        while True:
            await asyncio.sleep(story.luck.expovariate(1.5))
            first = await self._could_be_served()
            if first is None:
                continue
            self.looks += 1
            story.look()
            upheavals, served = story.upheavals, story.ledger.waited
            await asyncio.sleep(self._patience)
            then = await self._could_be_served()
            story.look()
            if upheavals == story.upheavals and served == story.ledger.waited and first == then:
                raise Broken(
                    f"nobody is served at {story.store.now():.3f}, though all who come next fit"
                )

    async def _could_be_served(self) -> list[bytes] | None:
        """Those who come next on every model, and the first of lines that sleep; None unless all
        of them fit, together, and are held by replicas that live.
        """
        story = self._story
        if not story.store.up or any(way.cut for way in story.ways):
            return None
        tickets = dict(story.store.waiting())
        if not tickets:
            return None
        front, asleep = story.store.fronts()
        models: dict[bytes, bytes] = {}
        for seat in front:
            models.setdefault(seat[:8], seat[:8] + seat[18:])
        heads: dict[bytes, tuple[float, bytes, bytes]] = {}
        for digest, text in tickets.items():
            (place,) = struct.unpack_from("<d", text, 40)
            (limits,) = struct.unpack_from("<d", text, 8 * 13)
            start = 8 * (14 + 9 + int(limits))
            line = text[start : start + _LINE]
            heads[line] = min(heads.get(line, (place, digest, text)), (place, digest, text))
        chosen = [heads[line] for line in [*models.values(), *asleep] if line in heads]
        living = {engine.passes.replica for engine in story.engines}
        pooled = 0.0
        for _, _, text in chosen:
            (holder,) = struct.unpack_from("<d", text, _HOLDER)
            if holder not in living:
                return None
            resource, tenant, amounts = waiter(text)
            policy = story.policies.policy(resource, tenant)
            shared = len(policy._scopes[0].limits)
            pooled += amounts[0]
            asked = [pooled if i < shared else amount for i, amount in enumerate(amounts)]
            reply = await self._commands.check(policy.chain(story.store.wall_us()), 1.0, 1, asked)
            if reply.numbers[0] != 0 or reply.numbers[2] != 0:
                return None
        return [digest for _, digest, _ in chosen] or None
