"""What happens to circuits in the whole fleet, counted from the pools' event streams.

Scripts write each transition once, whichever replica called them, so these counts are the
fleet's, and every replica that looks comes to the same ones from the moment it began.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

from limiter_service.engine import ids
from limiter_service.store.breaker_commands import NEWEST, BreakerCommands
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Keys


class Witness:
    """Reads what has happened since it last looked; streams keep about a thousand events."""

    def __init__(
        self,
        commands: BreakerCommands,
        pools: Callable[[], list[str]],
        prefix: str,
        names: Callable[[str], str],
    ) -> None:
        self._commands, self._pools, self._prefix, self._name = commands, pools, prefix, names
        self.transitions: Counter[tuple[str, str, str, str]] = Counter()
        self.lost: Counter[str] = Counter()
        self.would_open: Counter[tuple[str, str]] = Counter()
        self._cursor: dict[str, str] = {}
        self._looking = asyncio.Lock()

    async def look(self) -> bool:
        """Take in what is new; the first look at a pool is where its counts begin. Whether the
        store has answered.
        """
        async with self._looking:
            try:
                await asyncio.gather(*(self._look_at(pool) for pool in self._pools()))
            except StoreError:
                return False
        return True

    async def _look_at(self, pool: str) -> None:
        keys = Keys(pool, self._prefix)
        if pool not in self._cursor:
            self._cursor[pool], _ = await self._commands.events(keys, NEWEST, ids.new_nonce())
            return
        while True:
            after = self._cursor[pool]
            last, events = await self._commands.events(keys, after, ids.new_nonce())
            for _, fields in events:
                self._count(f"{pool}/{fields['model']}", fields)
            self._cursor[pool] = last
            if not events:
                return

    def _count(self, resource: str, fields: dict[str, str]) -> None:
        name = self._name(resource)
        match fields["type"]:
            case "breaker":
                self.transitions[name, fields["from"], fields["to"], fields["reason"]] += 1
            case "probe_lost":
                self.lost[name] += int(fields["count"])
            case "would_open":
                self.would_open[name, fields["reason"]] += 1
            case _:
                pass
