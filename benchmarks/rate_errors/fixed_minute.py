"""A fixed-minute window in a shared store, as many limiters have it: the second contestant.

It knows the provider's limits and what each call is charged when it comes, and counts both
exactly. Its minutes begin where the store's clock says, not where the provider's do.
"""

import asyncio
from collections.abc import Mapping

import redis.asyncio

from rate_errors.providers import MINUTE

# KEYS[1] prefix; ARGV[1] microseconds of a minute, then limit and amount per meter.
# Returns the microseconds until the next minute, or 0 when all of it was counted.
_TAKE = """
local now = redis.call("TIME")
local at, width = now[1] * 1000000 + now[2], tonumber(ARGV[1])
local minute = math.floor(at / width)
local key = KEYS[1] .. minute
for i = 2, #ARGV, 2 do
  local used = tonumber(redis.call("HGET", key, i) or 0)
  if used > 0 and used + ARGV[i + 1] > tonumber(ARGV[i]) then
    return (minute + 1) * width - at
  end
end
for i = 2, #ARGV, 2 do
  redis.call("HINCRBY", key, i, ARGV[i + 1])
end
redis.call("PEXPIRE", key, math.ceil(width / 500) + 1000)
return 0
"""


class FixedMinute:
    """Counts what all processes take, by the minute of the workload."""

    def __init__(self, socket: str, allowed: Mapping[str, int], speed: float) -> None:
        self._allowed, self._width = allowed, round(MINUTE / speed * 1_000_000)
        # All who wait wake in the moment when a minute begins: they take turns.
        kind = redis.asyncio.UnixDomainSocketConnection
        pool = redis.asyncio.BlockingConnectionPool(
            connection_class=kind, path=socket, max_connections=16, timeout=None
        )
        self._store = redis.asyncio.Redis.from_pool(pool)
        self._take = self._store.register_script(_TAKE)

    async def wait(self, charges: Mapping[str, float]) -> None:
        """Wait until *charges* fit into a minute, and count them."""
        numbers = [
            number
            for meter, limit in self._allowed.items()
            for number in (limit, round(charges.get(meter, 0)))
        ]
        while True:
            left = await self._take(keys=["fixed:"], args=[self._width, *numbers])
            if not left:
                return
            await asyncio.sleep(left / 1_000_000)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._store.aclose()
