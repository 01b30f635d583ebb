"""Calls on their way to one place: those of a loop tick travel together, a few trips at once.

One pipeline per tick costs the service a third of a pool with a connection per call, and
the server half: many sockets become one read (docs/decisions/0003). More calls than the trips
can take wait here, before they take a connection. What can go as one does (store/groups).

A trip over a connection that is idle is no task: it is written, and its replies are handed over
where they are read (store/exchange). What takes more than that goes on as one.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from limiter_service.store.deadlines import Deadlines
from limiter_service.store.errors import StoreNotReplicated
from limiter_service.store.exchange import Command, Then
from limiter_service.store.faults import is_unknown_script, knows_no_flags
from limiter_service.store.fuse import Fuse
from limiter_service.store.groups import Parcel, parcels
from limiter_service.store.parcels import Call

_MOST_IN_A_TRIP = 256
_MOST_TRIPS = 4
_MARKED_FOR = 60_000

Send = Callable[[Sequence[Command]], Awaitable[list[Any]]]
Post = Callable[[Sequence[Command], Then], bool]
"""Sends at once and returns True, or has no connection for that and returns False."""

Hear = Callable[[Mapping[tuple[str, float], int], float], None]
"""Hears what was answered at a moment: how many calls, by script and by when they began."""


class Trip:
    """Calls that travel together, until each has its answer, or nobody will give it one."""

    __slots__ = ("_ended", "calls", "task")

    def __init__(self, calls: list[Call]) -> None:
        self.calls = calls
        self.task: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    def ended(self) -> "asyncio.Future[None]":
        """Done when it has ended: of a trip under way."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        return self._ended

    def end(self) -> None:
        """It has."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class Lane:
    """The way to one place, with its fuse."""

    def __init__(
        self,
        send: Send,
        patience: float = 0.1,
        post: Post | None = None,
        silence: float = 0.5,
        hear: Hear | None = None,
    ) -> None:
        """*patience* is how long a replica may take to acknowledge, in seconds, *silence* how long
        a store that is there may say nothing; *hear* is told of calls that nobody awaits.
        """
        self._send, self._patience, self._post = send, patience, post
        self.loop = asyncio.get_running_loop()
        self.fuse = Fuse()
        self.trips: set[Trip] = set()
        self._waiting: deque[Call] = deque()
        self._deadlines = Deadlines(silence)
        self._scheduled = False
        self._plain = False
        self._hear, self._answered = hear, defaultdict[tuple[str, float], int](int)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self.trips and not self._waiting

    def take(self, call: Call, deadline: float) -> None:
        """Send *call* with the next trip; it fails with Overdue at *deadline*, in loop time."""
        self._waiting.append(call)
        if not self._scheduled:
            self._schedule()
        self._deadlines.add(call, deadline)

    def note(self, script: str, began: float) -> None:
        """A call that nobody awaits was answered."""
        self._answered[script, began] += 1

    def _schedule(self) -> None:
        if not self._scheduled and len(self.trips) < _MOST_TRIPS:
            self._scheduled = True
            self.loop.call_soon(self._depart)

    def _depart(self) -> None:
        self._scheduled = False
        if calls := self._next():
            trip = Trip(calls)
            self.trips.add(trip)
            try:
                self._set_out(trip, parcels(calls, self.loop.time()))
            except Exception as error:  # noqa: BLE001  # a mistake of ours: callers must not hang
                self._fail(trip, error)
        if self._waiting:
            self._schedule()

    def _next(self) -> list[Call]:
        """Calls for one trip: those that wait for a replica do not hold up the others."""
        waiting, calls = self._waiting, list[Call]()
        marked = waiting[0].mark is not None if waiting else False
        for _ in range(min(len(waiting), _MOST_IN_A_TRIP)):
            if (waiting[0].mark is not None) != marked:
                break
            call = waiting.popleft()
            if not call.done():
                calls.append(call)
        return calls

    def _set_out(self, trip: Trip, parcels: Sequence[Parcel]) -> None:
        """Without a task, where a connection is idle and no replica is waited for."""
        if self._post is not None and parcels[0].mark is None:
            commands = [each.packed(plain=self._plain) for each in parcels]
            if self._post(commands, partial(self._heard, trip, parcels)):
                return
        self._go(trip, self._deliver(parcels))

    def _heard(self, trip: Trip, parcels: Sequence[Parcel], replies: list[Any]) -> None:
        """Hand the replies over, in the loop's turn in which they were read."""
        try:
            if any(map(is_unknown_script, replies)):
                self._go(trip, self._deliver(parcels, replies))
            elif left := self._hand_over(parcels, replies):
                self._set_out(trip, left)
            else:
                self._end(trip)
        except Exception as error:  # noqa: BLE001  # a mistake of ours: callers must not hang
            self._fail(trip, error)

    def _go(self, trip: Trip, work: Coroutine[Any, Any, None]) -> None:
        """Take the time that it takes."""
        trip.task = self.loop.create_task(self._travel(trip, work))

    async def _travel(self, trip: Trip, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  # a mistake of ours: callers must not hang
            self._fail(trip, error)
        finally:
            self._end(trip)

    def _fail(self, trip: Trip, error: Exception) -> None:
        now = self.loop.time()
        try:
            for call in trip.calls:
                call.take(error, now)
        finally:
            self._end(trip)

    def _end(self, trip: Trip) -> None:
        self.trips.discard(trip)
        trip.end()
        if self._waiting:
            self._schedule()

    async def _deliver(self, parcels: Sequence[Parcel], replies: list[Any] | None = None) -> None:
        """Ask, and hand the *replies* over, if there are none yet; then for what groups have left
        over.
        """
        if replies is None:
            commands = [each.by_digest(plain=self._plain) for each in parcels]
            replies = await self._say(parcels, commands)
        unknown = [i for i, reply in enumerate(replies) if is_unknown_script(reply)]
        if unknown:  # not run at all, so these go again with their text, which also loads it
            again = await self._introduce([parcels[i] for i in unknown])
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        if left := self._hand_over(parcels, replies):
            await self._deliver(left)

    def _hand_over(self, parcels: Sequence[Parcel], replies: Sequence[Any]) -> list[Call]:
        """Give everybody the answer; returns the calls that groups have left over."""
        now = self.loop.time()
        if not isinstance(replies[0], Exception):
            self._deadlines.heard(now)
        left = [
            call
            for parcel, reply in zip(parcels, replies, strict=True)
            for call in parcel.take(reply, now)
        ]
        if self._answered:
            self._tell(now)
        return left

    def _tell(self, now: float) -> None:
        """The store is there, and this is what it has answered."""
        self.fuse.succeeded()
        if self._hear is not None:
            self._hear(self._answered, now)
        self._answered.clear()

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
