"""A small world in virtual time: a store that fails, ways to it that lose, and a clock that steps.

The scripts are the real ones on a real server; the time that they read is the world's. What has
run on the store is written into a journal in the order in which it ran, whether or not anybody
got the reply.

Nobody needs a reply before it has travelled back. So scripts go to the server in the order of
their times, and several at once: all that were sent before the first of them is to be answered.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import hiredis
import msgspec
import redis
from tests_support.ledger import Broken, Ran
from tests_support.scripts import CLOCK, POOL, START

from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError, StoreUnavailable
from limiter_service.store.keys import Keys
from limiter_service.store.ordinary import READERS
from limiter_service.store.packing import unpack
from limiter_service.store.scripts import Script

US = 1_000_000
DEADLINE = 0.5
"""Seconds after which a caller of the store gives up."""

_KEYS = Keys(POOL)
LEASES = _KEYS.lease("", "")[:-32]
"""How the key of a lease begins; the digest of its request follows."""
_TICKETS = _KEYS.tickets()
_DIGEST, _NUMBERS = 16, 14  # of a ticket (lua/lib/waiting)
_LEASE_AT = {
    "acquire": -2, "settle": -2, "renew": -2, "enqueue": -8, "cancel": -8, "charge": -1,
    "lend": -3, "repay": -3,
}  # fmt: skip
"""Where the key of a lease stands among those of a script that is written down."""
_GROUPS = {"acquire_group": "acquire", "settle_group": "settle"}
_MIXED = {"acquire_mixed": "acquire_group", "settle_mixed": "settle_group"}
_ROWS = {"acquire_row": "acquire", "settle_row": "settle"}
_QUEUE = _KEYS.queue()
_PLACES = frozenset({"dispatch", "sweep"})
_RECEIVED = 65536


PLACE = struct.Struct("<16sd17s")
"""A waiter: the digest of its request, its place, its line."""


class Weather(msgspec.Struct):
    """How bad the way to the store is: shares of calls, and seconds."""

    lost: float = 0.0
    unheard: float = 0.0
    doubled: float = 0.0
    slow: float = 0.002
    deaf: float = 0.0


class Sent:
    """A script on its way. `reply` is there once the store was asked for it."""

    __slots__ = ("arguments", "at", "keys", "name", "reply")

    def __init__(self, at: float, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        self.at, self.name, self.keys, self.arguments = at, name, keys, arguments
        self.reply: Any = None


def names_of(scripts: Mapping[str, Script]) -> dict[str, str]:
    """Of each script, by its digest and by its text."""
    digests = {script.sha: name for name, script in scripts.items()}
    return digests | {script.text: name for name, script in scripts.items()}


class Store:
    """The server, and the clock that its scripts read."""

    def __init__(self, client: redis.Redis, names: dict[str, str]) -> None:
        self._names = names
        """Of scripts, by digest and by text."""
        self._wire = socket.socket(socket.AF_UNIX)
        self._wire.connect(client.get_connection_kwargs()["path"])
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self.written: list[Ran] = []
        self._known: set[str] = set()
        self._packed: list[bytes] = []
        self._sent: list[Sent | None] = []
        self._clock = -1
        self._granted: set[tuple[bytes, bytes]] = set()
        self._listeners: dict[str, list[Callable[[bytes], None]]] = {}
        self.ahead = 0.0
        self.up = True
        self.groups = self.grouped = self.mixed = self.rowed = 0
        self._nonsense: Broken | None = None
        self._ask(("HELLO", 3))

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    def now(self) -> float:
        """Seconds since the world began."""
        return self._loop.time()

    def wall_us(self) -> int:
        """What the store takes for the time."""
        return START + round((self.now() + self.ahead) * US)

    @property
    def journal(self) -> list[Ran]:
        """What has happened until now. Raises Broken where a group made no sense."""
        self._flush()
        if self._nonsense is not None:
            raise self._nonsense
        return self.written

    def write(self, name: str, key: str, request: bytes, reply: bytes) -> None:
        """Write down what happens now without the store."""
        self._flush()
        self.written.append(Ran(self.now(), name, key, request, reply))

    def send(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Sent:
        """Let a script run now. Raises StoreUnavailable."""
        if not self.up:
            raise StoreUnavailable("nobody answers")
        known = script.sha in self._known
        self._known.add(script.sha)
        how = ("EVALSHA", script.sha) if known else ("EVAL", script.text)
        sent = Sent(self.now(), self._names[script.sha], keys, arguments)
        return self._run(sent, (*how, len(keys), *keys, *arguments))

    def post(self, command: Sequence[Any]) -> Sent:
        """The same of an EVALSHA or an EVAL as it travels. Raises StoreUnavailable."""
        if not self.up:
            raise StoreUnavailable("nobody answers")
        _, script, count, *rest = command
        sent = Sent(self.now(), self._names[script], rest[:count], rest[count:])
        return self._run(sent, command)

    def _run(self, sent: Sent, command: Sequence[Any]) -> Sent:
        clock = self.wall_us()
        if clock != self._clock:
            self._clock = clock
            self._put(None, ("SET", CLOCK, clock, "EX", 3600))
        self._put(sent, command)
        if sent.name in _PLACES:
            # What it has published has arrived, and what it has granted is seen.
            self._put(Sent(sent.at, "tickets", (), ()), ("HGETALL", _TICKETS))
        return sent

    def answer(self, sent: Sent) -> Any:
        """The reply of a script."""
        if sent.reply is None:
            self._flush()
        if isinstance(sent.reply, Exception):
            raise sent.reply
        return sent.reply

    def listen(self, channel: str, listener: Callable[[bytes], None]) -> None:
        """Call *listener* with what is published on *channel*."""
        if channel not in self._listeners:
            self._listeners[channel] = []
            self._ask(("SUBSCRIBE", channel), replies=0)
        self._listeners[channel].append(listener)

    def ignore(self, channel: str, listener: Callable[[bytes], None]) -> None:
        """Call *listener* no more."""
        self._listeners[channel].remove(listener)

    def forget_scripts(self) -> None:
        """As a promoted replica, which knows none."""
        self._known.clear()
        self._ask(("SCRIPT", "FLUSH"))

    def stored(self) -> list[bytes]:
        """The names of all that is stored."""
        return sorted(self._ask(("KEYS", "*"))[0])

    def lives(self, keys: Sequence[bytes]) -> list[int]:
        """Milliseconds that each key has left."""
        return self._ask(*(("PTTL", key) for key in keys)) if keys else []

    def photograph(self) -> tuple[int, list[tuple[bytes, bytes, int]]]:
        """Everything that is stored, and how much of the journal it contains."""
        keys = self.stored()
        found = self._ask(*(command for key in keys for command in (("DUMP", key), ("PTTL", key))))
        dumps = zip(keys, found[::2], found[1::2], strict=True)
        return len(self.journal), [(key, dump, life) for key, dump, life in dumps if dump]

    def restore(self, dumps: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Go on from a photograph: what was written since is lost."""
        commands: list[tuple[Any, ...]] = [("FLUSHDB",)]
        commands += [("RESTORE", key, max(0, life), dump) for key, dump, life in dumps]
        self._ask(*commands)
        self._clock = -1
        self._see(self.now(), self._ask(("HGETALL", _TICKETS))[0], anew=True)

    def waiting(self) -> list[tuple[bytes, bytes]]:
        """The tickets of those who wait: digest and text."""
        found = self._ask(("HGETALL", _TICKETS))[0]
        return sorted(
            (d, text) for d, text in found.items() if struct.unpack("<d", text[:8])[0] == 0
        )

    def fronts(self) -> tuple[list[bytes], list[bytes]]:
        """The seats of the lines that can be served, in their order, and the lines that sleep."""
        front, asleep = self._ask(
            ("ZRANGE", _KEYS.front(), 0, -1), ("ZRANGE", _KEYS.asleep(), 0, -1)
        )
        return front, asleep

    def _put(self, sent: Sent | None, command: Sequence[Any]) -> None:
        self._packed.append(hiredis.pack_command(command))
        self._sent.append(sent)

    def _flush(self) -> None:
        if not self._sent:
            return
        sent, packed, self._sent, self._packed = self._sent, self._packed, [], []
        if any(each is not None and each.name == "tickets" for each in sent):
            packed.append(hiredis.pack_command(("PING",)))
            sent.append(None)
        self._wire.sendall(b"".join(packed))
        for each, reply in zip(sent, list(self._replies(len(sent))), strict=True):
            if each is None:
                if isinstance(reply, Exception):
                    raise reply
            elif each.name == "tickets":
                self._see(each.at, reply)
            else:
                each.reply = reply
                self._write(each, reply)

    def _ask(self, *commands: tuple[Any, ...], replies: int | None = None) -> list[Any]:
        self._flush()
        self._wire.sendall(b"".join(hiredis.pack_command(command) for command in commands))
        found = list(self._replies(len(commands) if replies is None else replies))
        for each in found:
            if isinstance(each, Exception):
                raise each
        return found

    def _replies(self, count: int) -> Iterator[Any]:
        """So many replies; messages between them are on their way."""
        reader = self._reader
        while count:
            reply = reader.gets()
            if reply is False:
                reader.feed(self._wire.recv(_RECEIVED))
            elif isinstance(reply, hiredis.PushNotification):
                if reply[0] == b"message":
                    for listener in list(self._listeners.get(reply[1].decode(), ())):
                        listener(reply[2])
            else:
                count -= 1
                yield reply

    def _write(self, sent: Sent, reply: Any) -> None:
        if sent.name in _GROUPS and isinstance(reply, bytes):
            keys = sent.keys[sent.keys.index(_QUEUE) + 1 : -1]
            self._write_all(sent, sent.name, keys, sent.arguments[-1], reply)
            return
        if sent.name in _MIXED and isinstance(reply, list):
            self._write_mixed(sent, reply)
            return
        if sent.name in _ROWS and isinstance(reply, list):
            self._write_row(sent, reply)
            return
        at = _LEASE_AT.get(sent.name)
        if at is not None and isinstance(reply, bytes):
            key, request = sent.keys[at], sent.arguments[-1]
            if sent.name == "enqueue":
                request = sent.arguments[-3]
            elif sent.name == "lend":
                request = sent.arguments[-2] + sent.arguments[-1]
            elif sent.name == "cancel":
                key, request = f"{LEASES}{request.hex()}", sent.arguments[-2]
            self.written.append(Ran(sent.at, sent.name, key, request, reply))

    def _write_row(self, sent: Sent, replies: Sequence[bytes]) -> None:
        """Of calls in a row (lua/lib/row) what each alone would have written."""
        keys, asked = sent.keys[-len(replies) :], sent.arguments[-len(replies) :]
        self.rowed += len(replies)
        for key, request, reply in zip(keys, asked, replies, strict=True):
            self.written.append(Ran(sent.at, _ROWS[sent.name], key, request, reply))

    def _write_mixed(self, sent: Sent, replies: Sequence[bytes]) -> None:
        """The same of each group (lua/lib/mixed)."""
        _, _, kinds, *plan = unpack(sent.arguments[0])
        told = sent.arguments[1 + int(kinds) :]
        first, at = sent.keys.index(_QUEUE) + 1, 0
        self.mixed += 1
        for asked, reply in zip(told, replies, strict=True):
            kind, count = int(plan[at]), int(plan[at + 1])
            scopes = int(unpack(sent.arguments[kind])[0])
            keys = sent.keys[first : first + count]
            self._write_all(sent, _MIXED[sent.name], keys, asked, reply)
            first, at = first + count, at + 3 + scopes

    def _write_all(
        self, sent: Sent, script: str, keys: Sequence[str], together: bytes, reply: bytes
    ) -> None:
        """Of a group, what the call alone would have written of each that it has decided."""
        name = _GROUPS[script]
        size = len(together) // len(keys)
        asked = [together[size * n : size * (n + 1)] for n in range(len(keys))]
        try:
            alone, read = READERS[script]
            answers = [alone(reply, asked[0])] if len(asked) == 1 else read(reply, asked)
        except (ValueError, LookupError, struct.error, StoreError) as error:
            # Whoever reads the reply now may take any error for the store's.
            self._nonsense = Broken(f"{sent.name} at {sent.at:.3f} makes no sense: {error}")
            return
        if len(keys) > 1 or sent.name in _MIXED:
            self.groups += 1
            self.grouped += len(keys) - answers.count(None)
        for key, request, answer in zip(keys, asked, answers, strict=True):
            if answer is not None:
                self.written.append(Ran(sent.at, name, key, request, answer))

    def _see(self, at: float, tickets: dict[bytes, bytes], *, anew: bool = False) -> None:
        """Write down whom a pass has granted, and who stands in the queue after it."""
        places, before, self._granted = [], self._granted, set()
        for digest, text in sorted(tickets.items()):
            state, _, names = struct.unpack_from("<ddd", text)
            if state == 1:
                lease = text[24 + int(names) :]
                self._granted.add((digest, lease[:8]))
                if not anew and (digest, lease[:8]) not in before:
                    reply = lease[:8] + b"G" + lease
                    self.written.append(Ran(at, "pass", f"{LEASES}{digest.hex()}", b"", reply))
            elif state == 0:
                (place,) = struct.unpack_from("<d", text, 40)
                (limits,) = struct.unpack_from("<d", text, 8 * (_NUMBERS - 1))
                end = 8 * (_NUMBERS + 9 + int(limits))
                places.append(PLACE.pack(digest, place, text[end : end + 17]))
        self.written.append(Ran(at, "places", "", b"", b"".join(places)))


class Way:
    """One replica's way to the store."""

    sharded = False

    def __init__(self, store: Store, luck: Random, weather: Weather) -> None:
        self._store, self._luck, self._weather = store, luck, weather
        self.cut = False
        self._late: set[asyncio.Task[None]] = set()

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Any],
        _mark: str | None = None,
        **_: Any,
    ) -> Any:
        """Run a script, or not; hear its reply, or not. Raises StoreUnavailable."""
        weather, luck = self._weather, self._luck
        await asyncio.sleep(luck.uniform(0.0001, weather.slow))
        if self.cut or luck.random() < weather.lost:
            await asyncio.sleep(DEADLINE)
            raise StoreUnavailable("the request was lost")
        sent = self._store.send(script, keys, arguments)
        if luck.random() < weather.doubled:
            again = self._again(script, keys, arguments, luck.uniform(0, 2.0))
            task = asyncio.get_running_loop().create_task(again)
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        await asyncio.sleep(luck.uniform(0.0001, weather.slow))
        if self.cut or luck.random() < weather.unheard:
            await asyncio.sleep(DEADLINE)
            raise StoreUnavailable("the reply was lost")
        return self._store.answer(sent)

    async def _again(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], after: float
    ) -> None:
        await asyncio.sleep(after)
        with contextlib.suppress(StoreUnavailable):
            self._store.send(script, keys, arguments)

    async def quiet(self) -> None:
        """Calls are awaited."""


class LoadedCommands(Commands):
    """Scripts that are loaded once for all."""

    def __init__(self, way: Any, loaded: Mapping[str, Script]) -> None:
        self._client = way
        self._know(loaded)
        self.gathers = getattr(way, "gathers", False)


class Hints:
    """What one replica hears of the others, if it is not lost: in the place of `store.hints`."""

    def __init__(self, store: Store, way: Any, luck: Random, weather: Weather) -> None:
        self._store, self._way, self._luck, self._weather = store, way, luck, weather
        self._listening: dict[str, Callable[[bytes], None]] = {}
        self._arrives: dict[str, Callable[[bytes], None]] = {}
        self.heard = self.missed = 0

    def listen(self, channel: str, listener: Callable[[bytes], None]) -> None:
        """Call *listener* with every message on *channel* that arrives."""
        self.ignore(channel)

        def arrives(message: bytes) -> None:
            if self._way.cut or self._luck.random() < self._weather.deaf:
                self.missed += 1
                return
            delay = self._luck.uniform(0.0001, self._weather.slow)
            asyncio.get_running_loop().call_later(delay, self._deliver, channel, message)

        self._listening[channel] = listener
        self._arrives[channel] = arrives
        self._store.listen(channel, arrives)

    def _deliver(self, channel: str, message: bytes) -> None:
        listener = self._listening.get(channel)
        if listener is not None:
            self.heard += 1
            listener(message)

    def ignore(self, channel: str) -> None:
        """Listen to *channel* no more."""
        if self._listening.pop(channel, None) is not None:
            self._store.ignore(channel, self._arrives.pop(channel))

    async def aclose(self) -> None:
        """Stop listening."""
        for channel in list(self._listening):
            self.ignore(channel)
