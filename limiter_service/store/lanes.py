"""Calls on their way to one place: those of a loop tick travel together, a few trips at once.

One pipeline per tick costs the service a third of a pool with a connection per call, and
the server half: many sockets become one read (docs/decisions/0003). More calls than the trips
can take wait here, before they take a connection. What can go as one does (store/parcels).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from limiter_service.store.deadlines import Deadlines
from limiter_service.store.errors import StoreNotReplicated
from limiter_service.store.faults import is_unknown_script, knows_no_flags
from limiter_service.store.fuse import Fuse
from limiter_service.store.parcels import Call, Parcel, parcels

_MOST_IN_A_TRIP = 256
_MOST_TRIPS = 4
_MARKED_FOR = 60_000

Send = Callable[[Sequence[tuple[Any, ...]]], Awaitable[list[Any]]]


class Lane:
    """The way to one place, with its fuse."""

    def __init__(self, send: Send, patience: float = 0.1, silence: float = 0.5) -> None:
        """*patience* is how long a replica may take to acknowledge, in seconds, *silence* how long
        a store that is there may say nothing.
        """
        self._send, self._patience = send, patience
        self.fuse = Fuse()
        self.trips: set[asyncio.Task[None]] = set()
        self._waiting: deque[Call] = deque()
        self._deadlines = Deadlines(silence)
        self._scheduled = False
        self._plain = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self.trips and not self._waiting

    def take(self, call: Call, deadline: float) -> None:
        """Send *call* with the next trip; it fails with Overdue at *deadline*, in loop time."""
        self._waiting.append(call)
        self._schedule()
        self._deadlines.add(call.answer, deadline)

    def _schedule(self) -> None:
        if not self._scheduled and len(self.trips) < _MOST_TRIPS:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._depart)

    def _depart(self) -> None:
        self._scheduled = False
        calls = [call for call in self._next() if not call.answer.done()]
        if calls:
            trip = asyncio.get_running_loop().create_task(self._travel(calls))
            self.trips.add(trip)
            trip.add_done_callback(self._return)
        if self._waiting:
            self._schedule()

    def _next(self) -> Iterator[Call]:
        """Calls for one trip: those that wait for a replica do not hold up the others."""
        marked = self._waiting[0].mark is not None if self._waiting else False
        for _ in range(min(len(self._waiting), _MOST_IN_A_TRIP)):
            if (self._waiting[0].mark is not None) != marked:
                return
            yield self._waiting.popleft()

    def _return(self, trip: asyncio.Task[None]) -> None:
        self.trips.discard(trip)
        if self._waiting:
            self._schedule()

    async def _travel(self, calls: list[Call]) -> None:
        now = asyncio.get_running_loop().time()
        try:
            await self._deliver(parcels(calls, now))
        except Exception as error:  # noqa: BLE001  # a mistake of ours: callers must not hang
            for call in calls:
                call.take(error, now)

    async def _deliver(self, parcels: Sequence[Parcel]) -> None:
        """Ask, and hand the replies over; then for what groups have left over."""
        replies, now = await self._ask(parcels), asyncio.get_running_loop().time()
        if not all(isinstance(reply, Exception) for reply in replies):
            self._deadlines.heard(now)
        left = [
            call
            for parcel, reply in zip(parcels, replies, strict=True)
            for call in parcel.take(reply, now)
        ]
        if left:
            await self._deliver(left)

    async def _ask(self, parcels: Sequence[Parcel]) -> list[Any]:
        replies = await self._say(parcels, [each.by_digest(plain=self._plain) for each in parcels])
        unknown = [i for i, reply in enumerate(replies) if is_unknown_script(reply)]
        if unknown:  # not run at all, so these go again with their text, which also loads it
            again = await self._introduce([parcels[i] for i in unknown])
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        return replies

    async def _introduce(self, parcels: Sequence[Parcel]) -> list[Any]:
        replies = await self._say(parcels, _introduction(parcels, plain=self._plain))
        if not self._plain and any(map(knows_no_flags, replies)):
            self._plain = True  # not compiled, so not run
            replies = await self._say(parcels, _introduction(parcels, plain=True))
        apart = [i for i, reply in enumerate(replies) if is_unknown_script(reply)]
        if apart:  # the text went to another node, or came later
            left = [parcels[i] for i in apart]
            again = await self._say(left, [each.by_text(plain=self._plain) for each in left])
            for i, reply in zip(apart, again, strict=True):
                replies[i] = reply
        return replies

    async def _say(self, parcels: Sequence[Parcel], commands: list[tuple[Any, ...]]) -> list[Any]:
        """The replies to *commands*; where a replica is waited for, in the same pipeline.

        WAIT is about the last write of its connection. A repeat of what was done already writes
        nothing, so a mark is written for it.
        """
        mark = parcels[0].mark
        if mark is None:
            return await self._send(commands)
        written = ("SET", mark, "1", "PX", _MARKED_FOR)
        *replies, _, replicas = await self._send(
            [*commands, written, ("WAIT", 1, int(self._patience * 1000))]
        )
        if isinstance(replicas, int) and replicas >= 1:
            return replies
        return [r if isinstance(r, BaseException) else StoreNotReplicated(r) for r in replies]


def _introduction(parcels: Sequence[Parcel], *, plain: bool) -> list[tuple[Any, ...]]:
    """Each text once, in front of those that go by its digest: a text has up to 80 kB, and a crowd
    may be the first to call.
    """
    told: set[str] = set()
    commands = []
    for each in parcels:
        command = each.by_digest(plain=plain)
        if command[1] not in told:
            told.add(command[1])
            command = each.by_text(plain=plain)
        commands.append(command)
    return commands
