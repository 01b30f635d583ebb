"""Runs scripts at the store, with the discipline that its failures ask for.

The client library repeats nothing. A call has one deadline, repeats included, and carries what
makes them harmless: its request id or its lease. What each failure calls for is in
store/faults.
"""

import asyncio
import contextlib
import itertools
import random
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from redis import exceptions

from limiter_service.store.address import Login, Tls, parse
from limiter_service.store.connecting import connect
from limiter_service.store.deadlines import Overdue, within
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.faults import FAILURES, Advice, advice, of_one_slot, reason
from limiter_service.store.lanes import Lane
from limiter_service.store.links import Direct, Link
from limiter_service.store.parcels import Argument, Awaited, Call, Kin, Together
from limiter_service.store.scripts import Script

STORE_ERRORS = FAILURES
_JUDGED = (TimeoutError, *FAILURES)
_MOST_ATTEMPTS = 3
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.05
_MOST_LANES = 64
_ACKNOWLEDGED = 0.1  # seconds that a replica of the store may take
_SILENCE = 5.0

Watch = Callable[[str, float, bool, int], None]
"""Hears of every call of a script: its name, seconds, whether there was an answer, and how many
calls of it took the same time.
"""


class Client:
    """Runs scripts. Raises StoreUnavailable when the store does not answer in time, and
    BadAddress at once for a URL that names no store.
    """

    gathers = True

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float,
        command_timeout: float,
        tls: Tls | None = None,
        sentinels: Login | None = None,
        link: Link | None = None,
        luck: random.Random | None = None,
    ) -> None:
        """*link* is the way to the store, where the URL does not say it; *luck* spreads repeats."""
        self._timeout = command_timeout
        self.watch: Watch | None = None
        self.address = parse(url)
        self._link = link or connect(
            self.address,
            connect_timeout=connect_timeout,
            command_timeout=command_timeout,
            tls=tls or Tls(),
            sentinels=sentinels or Login(),
        )
        self.sharded = self._link.sharded
        self._lanes: dict[str, Lane] = {}
        self._random = luck or random.Random()  # noqa: S311  # keeps no secret

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        mark: str | None = None,
        *,
        always: bool = False,
        own: Sequence[str] = (),
        asked: bytes | None = None,
        together: Together | None = None,
        kin: Kin | None = None,
    ) -> Any:  # bytes, or lists of them
        """Run *script* and return its answer; `watch` hears how long that took.

        With a *mark*, a key of ours, it counts once a replica of the store has it; else
        StoreNotReplicated is raised, which carries the answer. *always* asks a store too that is
        asked less often since it does not answer. Calls of one *kin*, which differ in their *own*
        keys and in what is *asked*, may be run as one by what is *together* if they meet.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()

        call = Awaited(loop.create_future())
        call.aim(script, keys, arguments, mark, own=own, asked=asked, together=together, kin=kin)
        work = self._insist(call, began + self._timeout, always=always)
        return await self._watched(script, began, work)

    def post(self, call: "Posted") -> bool:
        """Make *call* once, and tell it what came of it: nobody awaits that. False where the store
        is not asked at present. After a failure `insist` goes on.
        """
        place = self._link.place(call.place) if self.sharded else ""
        lane = self._lanes.get(place) or self._lane(place)
        now = lane.loop.time()
        if not lane.fuse.admits(now):
            return False
        call.client, call.lane, call.began = self, lane, now
        lane.take(call, now + self._timeout)
        return True

    async def insist(self, call: "Posted", error: Exception) -> Any:  # bytes, or lists of them
        """The answer to a call that was posted and failed with *error*, by the same deadline. What
        is no failure of the store, and so a mistake of ours, is raised as it is.
        """
        if not isinstance(error, _JUDGED):
            raise error
        work = self._insist(call, call.began + self._timeout, call.lane, error)
        return await self._watched(call.script, call.began, work)

    async def _watched(self, script: Script, began: float, work: Awaitable[Any]) -> Any:
        try:
            answer = await work
        except Exception:  # whoever is cancelled has learned nothing of the store
            self.note(script, began, good=False)
            raise
        self.note(script, began, good=True)
        return answer

    def note(self, script: Script, began: float, *, good: bool) -> None:
        """A call that began then has come to an end."""
        if self.watch is not None:
            self.watch(script.name, asyncio.get_running_loop().time() - began, good, 1)

    def _heard(self, answered: Mapping[tuple[str, float], int], now: float) -> None:
        """Calls of a trip were answered: how many by script, and by when they began."""
        if self.watch is not None:
            for (name, began), calls in answered.items():
                self.watch(name, now - began, True, calls)

    async def _insist(
        self,
        call: Call,
        deadline: float,
        lane: Lane | None = None,
        failure: Exception | None = None,
        *,
        always: bool = False,
    ) -> Any:  # bytes, or lists of them
        """The answer to a call, which is made until then as often as it has to be; the first
        attempt may have come to its *failure* on a *lane* already.

        Every script of ours is safe to run twice (its request id, its lease), so a lost
        answer is asked for again within the deadline.
        """
        loop = asyncio.get_running_loop()
        why = ""
        for attempt in itertools.count(1):
            if failure is None or lane is None:
                lane = self._lane(self._link.place(call.place))
                if not (always or lane.fuse.admits(loop.time())):
                    await asyncio.sleep(0)  # whoever asks again at once lets others have their turn
                    raise StoreUnavailable(f"it is asked less often, since {lane.fuse.reason}")
                answer: asyncio.Future[Any] = loop.create_future()
                lane.take(call.awaited(answer), deadline)
                try:
                    reply = await answer
                except _JUDGED as error:
                    failure = error
                else:
                    lane.fuse.succeeded()
                    return reply
            why = await self._judge(lane, failure, attempt, deadline, why)
            failure = None
        raise AssertionError("unreachable")

    async def _judge(
        self, lane: Lane, failure: Exception, attempt: int, deadline: float, why: str
    ) -> str:
        """Wait before the next attempt, and say what was wrong with the last one. Raises
        StoreUnavailable when there is to be none.
        """
        loop = asyncio.get_running_loop()
        if isinstance(failure, Overdue):
            message = f"no answer within {self._timeout:g} s{why}"
            lane.fuse.failed(loop.time(), message)
            await self._link.doubt()
            raise StoreUnavailable(message) from failure
        advised = advice(failure)
        if advised is Advice.GIVE_UP:
            lane.fuse.succeeded()  # the server is there
            raise StoreUnavailable(reason(failure)) from failure
        if advised is not Advice.WAIT:
            await self._link.doubt()
        pause = self._random.uniform(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        tired = advised is Advice.UNKNOWN and attempt == _MOST_ATTEMPTS
        if tired or loop.time() + pause >= deadline:
            if not of_one_slot(failure):
                lane.fuse.failed(loop.time(), reason(failure))
            raise StoreUnavailable(reason(failure)) from failure
        await asyncio.sleep(pause)
        return f", after: {reason(failure)}"

    async def quiet(self) -> None:
        """Return when the calls under way now have been made, whether their callers stay or not."""
        trips = [trip.ended() for lane in self._lanes.values() for trip in lane.trips]
        if trips:
            await asyncio.wait(trips)

    async def ping(self) -> None:
        """Return when the store answers; raise StoreUnavailable when it does not."""
        try:
            async with within(self._timeout):
                await self._link.ping()
        except (TimeoutError, *FAILURES) as error:
            raise StoreUnavailable(reason(error)) from error

    async def info(self, section: str) -> dict[str, Any]:
        """The server's own report."""
        try:
            async with within(self._timeout):
                return await self._link.info(section)
        except (TimeoutError, *FAILURES) as error:
            raise StoreUnavailable(reason(error)) from error

    async def ask(self, *words: Argument | int) -> Any:  # what the library makes of it
        """What one server answers to a command that is no script. Raises what the client
        library raises, for whoever has to tell refusals apart.
        """
        return await self._link.ask(words)

    async def sentinels(self) -> list[Any]:
        """What each sentinel of the URL says, or why it says nothing."""
        return await self._link.sentinels()

    @contextlib.asynccontextmanager
    async def subscription(self) -> AsyncIterator["Subscription"]:
        """A connection of its own for messages; on a cluster, for each node that has some."""
        pubsub = await self._link.pubsub()
        try:
            yield Subscription(pubsub, sharded=self.sharded)
        finally:
            with contextlib.suppress(*FAILURES):
                await pubsub.aclose()

    async def aclose(self) -> None:
        """Let what is under way end, then close every connection."""
        while any(not lane.idle for lane in self._lanes.values()):
            await self.quiet()
            await asyncio.sleep(0)
        await self._link.aclose()

    def _lane(self, place: str) -> Lane:
        lane = self._lanes.get(place)
        if lane is None:
            if len(self._lanes) >= _MOST_LANES:  # of nodes that have been
                self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.idle}
            lane = self._lanes[place] = Lane(
                partial(self._link.send, place),
                min(_ACKNOWLEDGED, self._timeout / 2),
                partial(self._link.post, place) if isinstance(self._link, Direct) else None,
                self._timeout,
                self._heard,
            )
        return lane


class Posted(Call):
    """A call that nobody awaits. Whoever posts it says what is done then.

    `began` and `heard`, when it came to an end, are in the loop's time.
    """

    __slots__ = ("_done", "began", "client", "heard", "lane")

    client: Client
    lane: Lane
    began: float
    heard: float

    def __init__(self) -> None:  # what it calls is said by `aim`
        self._done = False

    @abstractmethod
    def came(self, reply: Any) -> None:
        """The store has answered."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """It has not: `Client.insist` goes on."""

    def done(self) -> bool:
        """Whether it has come to an end."""
        return self._done

    def take(self, reply: Any, now: float) -> Sequence[Call]:
        """As of any call."""
        if self.done():
            return ()
        self._done, self.heard = True, now
        if isinstance(reply, Exception):
            self.failed(reply)
        else:
            self.lane.note(self.script.name, self.began)
            self.came(reply)
        return ()

    def set_result(self, reply: Any, /) -> None:
        """The store has answered."""
        self.take(reply, self.lane.loop.time())

    def set_exception(self, error: Exception, /) -> None:
        """It has not. Nothing is judged yet: `insist` does."""
        self.take(error, self.lane.loop.time())


class Subscription:
    """Channels that are listened to. Errors are those of the client library."""

    def __init__(self, pubsub: Any, *, sharded: bool) -> None:
        self._pubsub, self._sharded = pubsub, sharded
        self._heard_at = asyncio.get_running_loop().time()
        self._asked = False

    async def subscribe(self, *channels: str) -> None:
        """Listen to more channels."""
        await (self._pubsub.ssubscribe if self._sharded else self._pubsub.subscribe)(*channels)

    async def unsubscribe(self, *channels: str) -> None:
        """Listen to fewer."""
        await (self._pubsub.sunsubscribe if self._sharded else self._pubsub.unsubscribe)(*channels)

    async def message(self, timeout: float) -> tuple[str, bytes] | None:
        """Channel and payload of the next message, None when there is none within *timeout*."""
        if self._sharded:  # node after node, each for a part of the time
            nodes = max(1, len(self._pubsub.node_pubsub_mapping))
            found = await self._pubsub.get_sharded_message(timeout=timeout / nodes)
        else:
            found = await self._pubsub.get_message(timeout=timeout)
            await self._be_sure(heard=found is not None)
        if found is None or found["type"] not in {"message", "smessage"}:
            return None
        return found["channel"].decode(), found["data"]

    async def _be_sure(self, *, heard: bool) -> None:
        """A primary that is gone without a word leaves a connection that is silent for ever."""
        now = asyncio.get_running_loop().time()
        if heard:
            self._heard_at, self._asked = now, False
        elif now - self._heard_at > 2 * _SILENCE:
            raise exceptions.ConnectionError("nothing is heard on the connection for messages")
        elif now - self._heard_at > _SILENCE and not self._asked:
            self._asked = True
            await self._pubsub.ping()
