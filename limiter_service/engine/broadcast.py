"""What happens, and how things stand every second, computed once for all who watch here.

Nothing runs while nobody watches. A slow watcher misses moments and no event that is kept: what
is kept for it is nothing.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import structlog

from limiter_service.engine.feed import Cursor
from limiter_service.engine.timeline import Step, Timeline
from limiter_wire import Event, Live, Past

_KEPT = 300

_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode


class Message(msgspec.Struct, frozen=True):
    """One message to a watcher: what it is about, what it says, and that as JSON."""

    about: str
    value: Live | Past | Event
    data: bytes
    shared: dict[str, bytes] = {}
    """What readers make of it that is the same for all of them, made once."""


def message(about: str, value: Live | Past | Event) -> Message:
    """A message that says *value*."""
    return Message(about, value, _encode(value))


class Events(Protocol):
    """Where events come from: the feed."""

    def after(self, cursor: Cursor) -> AsyncIterator[Event]:
        """Events after *cursor* that there are by now, which moves along."""


class Broadcast:
    """One look a second for any number of watchers."""

    def __init__(
        self,
        look: Callable[[], Awaitable[Live]],
        before: Callable[[], Awaitable[Sequence[Step]]],
        feed: Events,
        timeline: Timeline,
        every: float = 1.0,
    ) -> None:
        self._look, self._before, self._feed, self._timeline = look, before, feed, timeline
        self._every = every
        self._happened: deque[tuple[int, Message]] = deque(maxlen=_KEPT)
        self._told = 0
        self._cursor: Cursor = {}
        self._moment: Message | None = None
        self._looks = 0
        self._looked = asyncio.Event()
        self._watchers = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody watches, so that nobody looks."""
        return self._watching is None

    async def follow(self, patience: float) -> AsyncGenerator[Message | None]:
        """The past, recent events, then moments and events as they come; None when nothing came
        for *patience* seconds.
        """
        async with self._watched():
            seen, told = self._looks, 0
            past = None
            while True:
                if not await self._after(seen, patience):
                    yield None
                    continue
                seen, moment = self._looks, self._moment
                if past is None:
                    yield (past := message("past", self._timeline.past()))
                for number, happened in list(self._happened):
                    if number > told:
                        told = number
                        yield happened
                yield moment

    async def _after(self, seen: int, patience: float) -> bool:
        """Whether there was a look after number *seen* within *patience* seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._looks == seen:
                    await self._looked.wait()
                return True
        return False

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        self._watchers += 1
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            self._watchers -= 1
            if self._watchers == 0:
                self._watching.cancel()
                self._watching = None

    async def _watch(self) -> None:
        loop, known = asyncio.get_running_loop(), False
        while True:
            began = loop.time()
            try:
                if not known:
                    self._timeline.fill(await self._before())
                    known = True
                await self._take()
            except Exception:  # noqa: BLE001  # whatever it is: the next look may succeed
                _log.exception("a look for the dashboard failed")
            await asyncio.sleep(max(self._every / 4, began + self._every - loop.time()))

    async def _take(self) -> None:
        moment = await self._look()
        if moment.store is None:
            self._timeline.note(moment)
        events = [each async for each in self._feed.after(self._cursor)]
        for event in sorted(events, key=lambda each: each.time):
            self._told += 1
            self._happened.append((self._told, message("happened", event)))
        self._moment, self._looks = message("live", moment), self._looks + 1
        self._looked.set()
        self._looked = asyncio.Event()
