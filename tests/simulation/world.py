"""A small world in virtual time: a store that fails, ways to it that lose, and a clock that steps.

The scripts are the real ones on a real server; the time that they read is the world's. What has
run on the store is written into a journal in the order in which it ran, whether or not anybody
got the reply.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import redis
from redis.connection import UnixDomainSocketConnection
from tests_support.ledger import Ran
from tests_support.scripts import CLOCK, START

from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import Script

US = 1_000_000
DEADLINE = 0.5
"""Seconds after which a caller of the store gives up."""


class Weather(msgspec.Struct):
    """How bad the way to the store is: shares of calls, and seconds."""

    lost: float = 0.0
    unheard: float = 0.0
    doubled: float = 0.0
    slow: float = 0.002


class Store:
    """The server, and the clock that its scripts read."""

    def __init__(self, client: redis.Redis, names: dict[str, str]) -> None:
        self._client, self._names = client, names
        path = client.get_connection_kwargs()["path"]
        self._wire = UnixDomainSocketConnection(path=path)
        self._wire.connect()
        self._loop = asyncio.get_running_loop()
        self.journal: list[Ran] = []
        self.ahead = 0.0
        self.up = True

    def close(self) -> None:
        """Close the connection."""
        self._wire.disconnect()

    def now(self) -> float:
        """Seconds since the world began."""
        return self._loop.time()

    def wall_us(self) -> int:
        """What the store takes for the time."""
        return START + round((self.now() + self.ahead) * US)

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script now."""
        if not self.up:
            raise StoreUnavailable("nobody answers")
        call = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        answers = self._send(("SET", CLOCK, self.wall_us(), "EX", 3600), call)
        if isinstance(answers[1], redis.exceptions.NoScriptError):
            (answers[1],) = self._send(("EVAL", script.text, *call[2:]))
        reply = answers[1]
        if isinstance(reply, Exception):
            raise reply
        name = self._names[script.sha]
        if name in {"acquire", "settle", "renew"}:
            self.journal.append(Ran(self.now(), name, keys[-2], arguments[-1], reply))
        return reply

    def forget_scripts(self) -> None:
        """As a promoted replica, which knows none."""
        self._send(("SCRIPT", "FLUSH"))

    def photograph(self) -> tuple[int, list[tuple[bytes, bytes, int]]]:
        """Everything that is stored, and how much of the journal it contains."""
        keys = sorted(self._client.scan_iter(count=10_000))
        dumps = [(key, self._client.dump(key), self._client.pttl(key)) for key in keys]
        return len(self.journal), dumps

    def restore(self, dumps: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Go on from a photograph: what was written since is lost."""
        commands: list[tuple[Any, ...]] = [("FLUSHDB",)]
        commands += [("RESTORE", key, max(0, life), dump) for key, dump, life in dumps]
        self._send(*commands)

    def _send(self, *commands: tuple[Any, ...]) -> list[Any]:
        wire = self._wire
        wire.send_packed_command(wire.pack_commands(commands))
        answers: list[Any] = []
        for _ in commands:
            try:
                answers.append(wire.read_response())
            except redis.exceptions.ResponseError as error:
                answers.append(error)
        return answers


class Way:
    """One replica's way to the store."""

    sharded = False

    def __init__(self, store: Store, luck: Random, weather: Weather) -> None:
        self._store, self._luck, self._weather = store, luck, weather
        self.cut = False
        self._late: set[asyncio.Task[None]] = set()

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script, or not; hear its reply, or not. Raises StoreUnavailable."""
        weather, luck = self._weather, self._luck
        await asyncio.sleep(luck.uniform(0.0001, weather.slow))
        if self.cut or luck.random() < weather.lost:
            await asyncio.sleep(DEADLINE)
            raise StoreUnavailable("the request was lost")
        reply = self._store.run(script, keys, arguments)
        if luck.random() < weather.doubled:
            again = self._again(script, keys, arguments, luck.uniform(0, 2.0))
            task = asyncio.get_running_loop().create_task(again)
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        await asyncio.sleep(luck.uniform(0.0001, weather.slow))
        if self.cut or luck.random() < weather.unheard:
            await asyncio.sleep(DEADLINE)
            raise StoreUnavailable("the reply was lost")
        return reply

    async def _again(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], after: float
    ) -> None:
        await asyncio.sleep(after)
        with contextlib.suppress(StoreUnavailable):
            self._store.run(script, keys, arguments)

    async def quiet(self) -> None:
        """Calls are awaited."""
