"""What happens in every pool, for those who listen at this replica.

Scripts write events into one stream per pool; whichever replica looks finds all of them. A
listener has a cursor, the last id that it has seen of each pool, and reads at its own pace:
nothing is kept for it here, so a slow one costs nobody memory.

What happens to the store itself no store can tell: this replica keeps the last of these events,
and has a place of its own in the cursor.
"""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from limiter_service.engine import ids
from limiter_service.store.breaker_commands import NEWEST, BreakerCommands
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import FLEET, Keys
from limiter_wire import Event

Cursor = dict[str, str]

_MICRO = 1_000_000
_EVERY = 0.25
_BEGINNING = "0-0"
_ID = re.compile(r"([A-Za-z0-9._-]{1,64}|\*|~\d{1,20})=(\d{1,20}-\d{1,20})")
_KEPT_HERE = 100


def cursor_of(text: str | None) -> Cursor | None:
    """The cursor behind a Last-Event-ID; `0` is the beginning, None and nonsense are now."""
    if text == "0":
        return {}
    parts = [_ID.fullmatch(part) for part in (text or "").split(";")]
    return {m[1]: m[2] for m in parts if m} if all(parts) else None


def text_of(cursor: Cursor) -> str:
    """A cursor as an event's id."""
    return ";".join(f"{pool}={last}" for pool, last in sorted(cursor.items())) or "0"


Among = Callable[[str], bool]


def _every(_pool: str) -> bool:
    return True


class Feed:
    """Watches the pools while anybody listens."""

    def __init__(
        self, commands: BreakerCommands, pools: Callable[[], list[str]], prefix: str
    ) -> None:
        self._commands, self._pools, self._prefix = commands, pools, prefix
        self._newest: Cursor = {}
        self._changed = asyncio.Event()
        self._here = f"~{ids.new_nonce()}"  # no pool is called so, and no other process
        self._happened: deque[tuple[int, str, Event]] = deque(maxlen=_KEPT_HERE)
        self._told_here = 0
        self._listeners = 0
        self._watching: asyncio.Task[None] | None = None

    def happened(self, pool: str, event: Event) -> None:
        """Tell those who listen at this replica what the store of *pool* cannot tell."""
        self._told_here += 1
        self._happened.append((self._told_here, pool, event))
        self._wake()

    async def now(self, among: Among = _every) -> Cursor:
        """A cursor behind everything that has happened in pools *among* some. Raises StoreError."""
        return {self._here: f"{self._told_here}-0"} | await self._newest_of_all(among)

    async def _newest_of_all(self, among: Among) -> Cursor:
        pools = [pool for pool in self._pools() if among(pool)]
        lasts = await asyncio.gather(*(self._newest_of(pool) for pool in pools))
        return dict(zip(pools, lasts, strict=True))

    async def after(self, cursor: Cursor, among: Among = _every) -> AsyncIterator[Event]:
        """Events after *cursor* that there are by now, of pools *among* some; it moves along."""
        for event in self._after_here(cursor, among):
            yield event
        for pool in filter(among, self._pools()):
            async for event in self._after(pool, cursor):
                yield event

    async def follow(
        self, cursor: Cursor, heartbeat: float, among: Among = _every
    ) -> AsyncIterator[Event | None]:
        """Events after *cursor*, which moves along, of pools *among* some; None when nothing
        came for *heartbeat* seconds.
        """
        async with self._listening():
            while True:
                told = False
                async for event in self.after(cursor, among):
                    told = True
                    yield event
                if not told and not await self._wait(cursor, heartbeat, among):
                    yield None

    def _after_here(self, cursor: Cursor, among: Among) -> Iterator[Event]:
        """What happened at this replica. Who comes from another has heard nothing of it, and hears
        what comes from now on.
        """
        since = _place(cursor.get(self._here))[0] if self._is_at_home(cursor) else self._told_here
        for number, pool, event in list(self._happened):
            if number > since and among(pool):
                cursor[self._here] = f"{number}-0"
                yield event
        cursor[self._here] = f"{self._told_here}-0"

    def _is_at_home(self, cursor: Cursor) -> bool:
        return self._here in cursor or not cursor

    async def _after(self, pool: str, cursor: Cursor) -> AsyncIterator[Event]:
        """Page by page what *pool* has after *cursor*; nothing when the store is away."""
        keys = Keys(pool, self._prefix)
        while True:
            after = cursor.get(pool, _BEGINNING)
            if pool in self._newest and not self._ahead(pool, cursor):
                return
            try:
                _, entries = await self._commands.events(keys, after, ids.new_nonce())
            except StoreError:
                return
            for name, fields in entries:
                cursor[pool] = name
                yield _event(pool, fields)
            if not entries:
                return

    async def _wait(self, cursor: Cursor, heartbeat: float, among: Among) -> bool:
        """Whether something happened after *cursor* within *heartbeat* seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(heartbeat):
                while self._told_here == _place(cursor.get(self._here))[0] and not any(
                    self._ahead(p, cursor) for p in self._pools() if among(p)
                ):
                    await self._changed.wait()
                return True
        return False

    def _ahead(self, pool: str, cursor: Cursor) -> bool:
        """Whether *pool* is known to have events after *cursor*."""
        return _place(self._newest.get(pool)) > _place(cursor.get(pool))

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        self._listeners += 1
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            self._listeners -= 1
            if self._listeners == 0:
                self._watching.cancel()
                self._watching, self._newest = None, {}

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                newest = await self._newest_of_all(_every)
                if newest != self._newest:
                    self._newest = newest
                    self._wake()
            await asyncio.sleep(_EVERY)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _newest_of(self, pool: str) -> str:
        keys = Keys(pool, self._prefix)
        return (await self._commands.events(keys, NEWEST, ids.new_nonce()))[0]


def _place(name: str | None) -> tuple[int, int]:
    milliseconds, _, nth = (name or _BEGINNING).partition("-")
    return int(milliseconds), int(nth)


def _event(pool: str, fields: dict[str, str]) -> Event:
    def number(name: str) -> int | None:
        return int(fields[name]) if name in fields else None

    lasts = number("lasts")
    return Event(
        time=int(fields["time"]) / _MICRO,
        type=fields["type"],
        resource=None if pool == FLEET else f"{pool}/{fields['model']}",
        actor=fields.get("actor"),
        reason=fields.get("reason"),
        from_=fields.get("from"),
        to=fields.get("to"),
        generation=number("generation"),
        lasts=None if lasts is None else lasts / _MICRO,
        count=number("count"),
        limit=fields.get("limit"),
        key=fields.get("key"),
        replica=fields.get("replica"),
        detail=fields.get("detail"),
    )
