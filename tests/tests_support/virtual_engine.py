"""A real engine over the real scripts in virtual time: the store's clock is the loop's."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis

from limiter_service.config import Config
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.store.commands import Commands
from limiter_service.store.scripts import Script
from tests_support.scripts import CLOCK, START, scripts


class Link:
    """The way to the store, which takes no time."""

    sharded = False

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script at the time of the loop."""
        now = START + int(asyncio.get_running_loop().time() * 1e6)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(CLOCK, now, ex=36_000)
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        try:
            return pipeline.execute()[1]
        except redis.exceptions.NoScriptError:
            return self._client.eval(script.text, len(keys), *keys, *arguments)


class NoHints:
    """There are no other replicas to hear from."""

    def listen(self, channel: str, listener: Any) -> None:
        """Nobody speaks."""

    def ignore(self, channel: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""


def engine(client: redis.Redis, config: Config) -> Engine:
    """The only replica of pool `p` in the running loop."""
    commands = Commands(Link(client))  # type: ignore[arg-type]  # the methods that it needs
    commands._scripts = scripts()
    loop = asyncio.get_running_loop()
    return Engine(
        commands,
        Policies(config, "sg:"),
        lambda: START + loop.time() * 1e6,
        "sg:",
        hints=NoHints(),  # type: ignore[arg-type]  # likewise
        observe=lambda _: None,
        hold_limit=36_000.0,
    )
