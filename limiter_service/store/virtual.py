"""A store in virtual time: the scripts on a real server, by the clock of the loop."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import redis

from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import Script

CLOCK = "simulated-clock"
"""The key that simulation/clock.lua reads."""

_KEPT = 3600


class VirtualStore:
    """Runs scripts one at a time; the way there and back takes *delay* seconds each.

    In the place of `Client`, for a server that nobody else uses: while a script runs, the loop
    stands still.
    """

    sharded = False

    def __init__(self, url: str, start_us: int, delay: float) -> None:
        self._redis = redis.Redis.from_url(url)
        self._start, self._delay = start_us, delay

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The reply of a script. Raises StoreUnavailable."""
        await asyncio.sleep(self._delay)
        now = self._start + int(asyncio.get_running_loop().time() * 1e6)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(CLOCK, now, ex=_KEPT)
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        try:
            reply = pipeline.execute()[1]
        except redis.exceptions.NoScriptError:
            reply = self._redis.eval(script.text, len(keys), *keys, *arguments)
        except redis.RedisError as error:
            raise StoreUnavailable(str(error)) from error
        await asyncio.sleep(self._delay)
        return reply

    async def quiet(self) -> None:
        """Nothing is on its way: calls are awaited."""

    def empty(self) -> None:
        """Forget everything. The server must be the simulation's own."""
        self._redis.flushall()

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


class NoHints:
    """In the place of `Hints`: the one replica hears of everything by its own passes."""

    def listen(self, channel: str, listener: Callable[[bytes], None]) -> None:
        """Nobody else publishes."""

    def ignore(self, channel: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""
