"""What happened in the fleet lately, from the counts in the store."""

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from limiter_service.engine import ids
from limiter_service.engine.counting import Counting
from limiter_service.engine.figures import Figures, figures, ring_for, together
from limiter_service.engine.series import series
from limiter_service.store.count_commands import CountCommands
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Keys


class History:
    """Reads the counts of every pool that is configured."""

    def __init__(
        self,
        commands: CountCommands,
        counting: Counting,
        pools: Callable[[], list[str]],
        prefix: str,
    ) -> None:
        self._commands, self._counting, self._pools = commands, counting, pools
        self._prefix = prefix

    async def of(self, seconds: float, *, apart: bool = False) -> Figures | None:
        """The figures of the last *seconds*, a day at most, with what this replica has counted
        up to now; None when the store does not answer. *apart* also those of each slot.
        """
        ring, slots = ring_for(seconds)
        pools = sorted(self._pools())
        if not await self._counting.flush():
            return None
        try:
            found = await asyncio.gather(
                *(
                    self._commands.counts(
                        Keys(pool, self._prefix).counts(),
                        ids.new_nonce(),
                        ring,
                        slots,
                        apart=apart,
                    )
                    for pool in pools
                )
            )
        except StoreError:
            return None
        whole = together([figures(pool, each) for pool, each in zip(pools, found, strict=True)])
        if not (apart and found):
            return whole
        times, steps = series([*zip(pools, found, strict=True)])
        return replace(whole, step=found[0].width, times=times, series=steps)
