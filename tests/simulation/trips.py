"""A replica's way to the store by the client's own lanes, groups, repeats and fuse.

Only the wire is simulated: a pipeline may be lost, arrive in part, be answered in part or not at
all, and arrive again when everybody has given it up.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from random import Random
from typing import Any

from redis import exceptions
from world import DEADLINE, Sent, Store, Weather

from limiter_service.store.client import Client
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.links import Command

_UNKNOWN = "NOSCRIPT"
_CUT = "the connection is lost"


class Wire:
    """In the place of a link to one server."""

    sharded = False

    def __init__(self, store: Store, luck: Random, weather: Weather) -> None:
        self._store, self._luck, self._weather = store, luck, weather
        self.cut = False
        self._late: set[asyncio.Task[None]] = set()

    def place(self, key: str) -> str:  # noqa: ARG002  # there is one
        """Always the same."""
        return ""

    async def send(self, place: str, commands: Sequence[Command]) -> list[Any]:  # noqa: ARG002
        """A reply or an error for each."""
        weather, luck = self._weather, self._luck
        await asyncio.sleep(luck.uniform(0.0001, weather.slow))
        if self.cut or luck.random() < weather.lost:
            # Broken off anywhere, what has arrived runs; silence is worse than a broken wire.
            arrived = 0 if self.cut else luck.randrange(len(commands) + 1)
            self._post(commands[:arrived])
            return await self._nothing(len(commands))
        sent = self._post(commands)
        if luck.random() < weather.doubled:
            task = asyncio.get_running_loop().create_task(self._again(commands))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        await asyncio.sleep(luck.uniform(0.0001, weather.slow))
        if self.cut or luck.random() < weather.unheard:
            heard = 0 if self.cut else luck.randrange(len(sent) + 1)
            replies = [self._answer(each) for each in sent[:heard]]
            return replies + await self._nothing(len(commands) - heard)
        replies = [self._answer(each) for each in sent]
        return replies + [exceptions.ConnectionError(_CUT)] * (len(commands) - len(sent))

    def _post(self, commands: Sequence[Command]) -> list[Sent]:
        """Those that have arrived at a store that is there."""
        sent: list[Sent] = []
        with contextlib.suppress(StoreUnavailable):
            sent.extend(map(self._store.post, commands))
        return sent

    def _answer(self, sent: Sent) -> Any:
        try:
            return self._store.answer(sent)
        except Exception as error:  # noqa: BLE001  # the server's own, whatever they are
            text = str(error)
            kind = exceptions.ResponseError
            return (exceptions.NoScriptError if text.startswith(_UNKNOWN) else kind)(text)

    async def _nothing(self, count: int) -> list[Any]:
        if self._luck.random() < 0.5:  # as often as not
            return [exceptions.ConnectionError(_CUT)] * count
        await asyncio.sleep(DEADLINE)
        return [exceptions.TimeoutError("nothing is heard")] * count

    async def _again(self, commands: Sequence[Command]) -> None:
        await asyncio.sleep(self._luck.uniform(0, 2.0))
        self._post(commands)

    async def doubt(self) -> None:
        """There is no other server."""


class GatheringWay(Client):
    """The store's client over such a wire."""

    def __init__(self, store: Store, luck: Random, weather: Weather) -> None:
        self.wire = Wire(store, luck, weather)
        super().__init__(
            "unix:///simulated",
            connect_timeout=DEADLINE,
            command_timeout=DEADLINE,
            link=self.wire,  # type: ignore[arg-type]  # what it needs of one
            luck=luck,
        )

    @property
    def cut(self) -> bool:
        """Whether nothing gets through."""
        return self.wire.cut

    @cut.setter
    def cut(self, value: bool) -> None:
        self.wire.cut = value
