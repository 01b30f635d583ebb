"""A replica in virtual time: the real engine and the real scripts, and a clock that jumps.

The way to the store takes DELAY each way, and the store's clock is that of the loop, so the
machine, and what else it does, changes nothing that happens.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import redis

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.circuits import Circuits
from limiter_service.engine.policy import Policies
from limiter_service.engine.statistics import Observer
from limiter_service.store.breaker_commands import BreakerCommands
from limiter_service.store.commands import Commands
from limiter_service.store.scripts import Script
from tests_support.scripts import CLOCK, FAKE_CLOCK, START, scripts

DELAY = 0.0005


class Store:
    """The scripts on a real server, by the clock of the loop; counts how often each has run."""

    sharded = False

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.calls: Counter[str] = Counter()
        self._names = {script.sha: name for name, script in scripts().items()}

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The reply of a script."""
        await asyncio.sleep(DELAY)
        self.calls[self._names.get(script.sha, "")] += 1
        now = START + int(asyncio.get_running_loop().time() * 1e6)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(CLOCK, now, ex=3600)
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        try:
            reply = pipeline.execute()[1]
        except redis.exceptions.NoScriptError:
            reply = self._client.eval(script.text, len(keys), *keys, *arguments)
        await asyncio.sleep(DELAY)
        return reply

    async def quiet(self) -> None:
        """Nothing is on its way: calls are awaited."""


class _NoHints:
    def listen(self, channel: str, listener: Callable[[bytes], None]) -> None:
        """One replica hears of everything by its own passes."""

    def ignore(self, channel: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""


class Replica:
    """An engine for the pool POOL, over a server that is empty."""

    def __init__(
        self, client: redis.Redis, config: str, observe: Observer = lambda _: None
    ) -> None:
        self.store, loop = Store(client), asyncio.get_running_loop()
        commands = Commands(self.store)  # type: ignore[arg-type]  # the methods that it needs
        commands._scripts = scripts()
        self.engine = Engine(
            commands,
            Policies(parse(config, ".yaml"), "sg:"),
            lambda: START + loop.time() * 1e6,
            "sg:",
            hints=_NoHints(),  # type: ignore[arg-type]  # likewise
            observe=observe,
            hold_limit=1e9,
        )
        breakers = BreakerCommands(
            self.store,  # type: ignore[arg-type]  # likewise
            {"lib/clock": FAKE_CLOCK},
        )
        self.circuits = Circuits(breakers, lambda: self.engine.policies, "sg:")
