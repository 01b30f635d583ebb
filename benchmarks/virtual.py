"""Replicas in virtual time: the real engine and the real scripts, and a clock that jumps.

Hours pass in minutes, and the figures are those of the algorithm: the machine, and what else it
does, changes none of them. Only the way to the store is imitated: it takes DELAY each way.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.engine.statistics import Observer
from limiter_service.store.commands import Commands
from limiter_service.store.scripts import Script

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from tests_support.scripts import CLOCK, POOL, START, scripts
from tests_support.virtual import run

__all__ = ["POOL", "replica", "run"]

DELAY = 0.0005


class _Store:
    """The scripts on a real server, by the clock of the loop."""

    sharded = False

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The reply of a script."""
        await asyncio.sleep(DELAY)
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


class _Hints:
    """Messages arrive at once, at every replica of this process."""

    def __init__(self) -> None:
        self._listeners: dict[str, Callable[[bytes], None]] = {}

    def listen(self, channel: str, listener: Callable[[bytes], None]) -> None:
        """Nothing arrives: one replica hears of all by its own passes."""

    def ignore(self, channel: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""


def replica(client: redis.Redis, config: str, observe: Observer = lambda _: None) -> Engine:
    """An engine over a server that is empty, for the pool POOL."""
    commands = Commands(_Store(client))  # type: ignore[arg-type]  # the methods that it needs
    commands._scripts = scripts()  # noqa: SLF001  # with the clock of the loop
    loop = asyncio.get_running_loop()
    return Engine(
        commands,
        Policies(parse(config, ".yaml"), "sg:"),
        lambda: START + loop.time() * 1e6,
        "sg:",
        hints=_Hints(),  # type: ignore[arg-type]  # likewise
        observe=observe,
        hold_limit=1e9,
    )
