"""Runs scripts at the store, with the discipline that its failures ask for.

The client library repeats nothing. A call has one deadline, repeats included, and carries what
makes them harmless: its request id or its lease. What each failure calls for is in
store/faults.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from redis import exceptions

from limiter_service.store.address import Login, Tls, parse
from limiter_service.store.connecting import connect
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.faults import FAILURES, Advice, advice, of_one_slot, reason
from limiter_service.store.lanes import Lane
from limiter_service.store.links import Link
from limiter_service.store.parcels import Argument, Call, Kin
from limiter_service.store.scripts import Script

STORE_ERRORS = FAILURES
_MOST_ATTEMPTS = 3
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 0.05
_MOST_LANES = 64
_ACKNOWLEDGED = 0.1  # seconds that a replica of the store may take
_SILENCE = 5.0

Watch = Callable[[str, float, bool], None]
"""Hears of every call of a script: its name, seconds, and whether there was an answer."""


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
        together: Script | None = None,
        kin: Kin | None = None,
    ) -> Any:  # bytes, or lists of them
        """As `_run`; `watch` hears how long that took."""
        run = partial(self._run, always=always, together=together, kin=kin)
        if self.watch is None:
            return await run(script, keys, arguments, mark)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answer = await run(script, keys, arguments, mark)
        except Exception:  # whoever is cancelled has learned nothing of the store
            self.watch(script.name, clock() - began, False)
            raise
        self.watch(script.name, clock() - began, True)
        return answer

    async def _run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        mark: str | None,
        *,
        always: bool,
        together: Script | None,
        kin: Kin | None,
    ) -> Any:  # bytes, or lists of them
        """Run *script* and return its answer. With a *mark*, a key of ours, it counts once a
        replica of the store has it; else StoreNotReplicated is raised, which carries the answer.
        *always* asks a store too that is asked less often since it does not answer. Calls of one
        *kin* that meet on the way may be run as one, by the script *together*.

        Every script of ours is safe to run twice (its request id, its lease), so a lost
        answer is asked for again within the deadline.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        why = ""
        for attempt in itertools.count(1):
            lane = self._lane(self._link.place(keys[0] if keys else ""))
            if not (always or lane.fuse.admits(loop.time())):
                await asyncio.sleep(0)  # whoever asks again at once lets others have their turn
                raise StoreUnavailable(f"it is asked less often, since {lane.fuse.reason}")
            answer = loop.create_future()
            call = Call(script, keys, arguments, answer, mark, together=together, kin=kin)
            lane.take(call)
            # A timer of the loop costs a third of what asyncio.timeout_at does.
            timer = loop.call_at(deadline, _overdue, answer)
            try:
                reply = await answer
            except TimeoutError as error:
                message = f"no answer within {self._timeout:g} s{why}"
                lane.fuse.failed(loop.time(), message)
                await self._link.doubt()
                raise StoreUnavailable(message) from error
            except FAILURES as error:
                advised = advice(error)
                if advised is Advice.GIVE_UP:
                    lane.fuse.succeeded()  # the server is there
                    raise StoreUnavailable(reason(error)) from error
                if advised is not Advice.WAIT:
                    await self._link.doubt()
                pause = self._random.uniform(_SHORTEST_PAUSE, _LONGEST_PAUSE)
                tired = advised is Advice.UNKNOWN and attempt == _MOST_ATTEMPTS
                if tired or loop.time() + pause >= deadline:
                    if not of_one_slot(error):
                        lane.fuse.failed(loop.time(), reason(error))
                    raise StoreUnavailable(reason(error)) from error
                why = f", after: {reason(error)}"
                await asyncio.sleep(pause)
            else:
                lane.fuse.succeeded()
                return reply
            finally:
                timer.cancel()
        raise AssertionError("unreachable")

    async def quiet(self) -> None:
        """Return when the calls under way now have been made, whether their callers stay or not."""
        trips = [trip for lane in self._lanes.values() for trip in lane.trips]
        if trips:
            await asyncio.wait(trips)

    async def ping(self) -> None:
        """Return when the store answers; raise StoreUnavailable when it does not."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._link.ping()
        except (TimeoutError, *FAILURES) as error:
            raise StoreUnavailable(reason(error)) from error

    async def info(self, section: str) -> dict[str, Any]:
        """The server's own report."""
        try:
            async with asyncio.timeout(self._timeout):
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
                partial(self._link.send, place), min(_ACKNOWLEDGED, self._timeout / 2)
            )
        return lane


def _overdue(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


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
