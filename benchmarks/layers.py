"""What one acquire costs in each layer, with the layers below answering at once.

    python benchmarks/layers.py [--rounds 7] [--json FILE]

Nothing here crosses a socket: what a layer costs is Python, and what is left over in
benchmarks/peers.py is sockets, wake-ups and the store: the way to it gives recorded answers of a
real one. Layers run by turns; the figure is the least of the rounds, since other work of the
machine only adds, and the median stands beside it.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import uvicorn
import uvloop
from harness import Replica, Report, Store, Value, options, store
from uvicorn.server import ServerState

from client_sdk import Limiter, _answers, _codec
from client_sdk._roster import Roster
from limiter_service import frames, http
from limiter_service.connection import Protocol
from limiter_service.door import CALLER, Door
from limiter_service.engine.callers import ANYBODY
from limiter_service.engine.keyring import Keyring
from limiter_service.front import Bounds, Front
from limiter_service.guests import GUESTS, Guests
from limiter_service.hatch import HATCH, Hatch
from limiter_service.http import Message
from limiter_service.line import LINE, Hear
from limiter_service.routes.acquire import acquire
from limiter_service.routes.channel import Channels
from limiter_service.store.exchange import Then, packed
from limiter_service.store.links import Direct
from limiter_wire import Acquire, Granted, Operation

AT_ONCE = 64
CONFIG = """
pools:
  bench:
    models:
      "*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}
"""
ASKED = Acquire(resource="bench/m1", tokens=100, request_id="a" * 32, worker="w" * 12)
US = 1e6

Layer = Callable[[int], Awaitable[None]]
"""Does its work so many times."""


class Recorded(Direct):
    """A way to a store that has heard it all: the last answer to each script, to every call."""

    def __init__(self, real: Any) -> None:
        self._real, self.recording = real, True
        self._answers: dict[tuple[str, int], bytes] = {}
        self._lists: dict[tuple[str, int, int], list[bytes]] = {}
        self._shortest: dict[str, int] = {}
        """By script, what a single call asks: many of them ask more."""

    def post(self, place: str, commands: Any, then: Then) -> bool:  # noqa: ARG002  # there is one
        """The answers come with the next turn of the loop."""
        told = [*map(self._told, commands)]
        if self.recording or None in told:
            return False
        packed(commands)
        asyncio.get_running_loop().call_soon(then, told)
        return True

    async def send(self, place: str, commands: Any) -> list[Any]:
        """The answers, of the store where it is not known what it says."""
        told = [*map(self._told, commands)]
        if not self.recording and None not in told:
            packed(commands)
            return told
        found: list[Any] = await self._real.send(place, commands)
        for each, reply in zip(commands, found, strict=True):
            if each[0] == "EVALSHA" and isinstance(reply, bytes):
                script, size = each[1], len(each[-1])
                self._answers[script, size] = reply
                self._shortest[script] = min(size, self._shortest.get(script, size))
            elif each[0] == "EVALSHA" and isinstance(reply, list):
                self._lists[each[1], len(each), len(each[-1])] = reply
        return found

    def _told(self, command: Any) -> bytes | list[bytes] | None:
        """The tag of a call stands in front of its request, and of its answer; of a call about
        several chains in front of what each asks, which are the last words.
        """
        if isinstance(command, bytes):  # a single call, as it travels
            at = command.index(b"$40\r\n") + 5
            script = command[at : at + 40].decode()
            size = self._shortest.get(script, 0)
            tag = command[-2 - size :][:8]
        else:
            script, size, tag = command[1], len(command[-1]), command[-1][:8]
            parts = self._lists.get((script, len(command), size))
            if parts is not None:
                asked = command[-len(parts) :]
                return [own[:8] + part[8:] for own, part in zip(asked, parts, strict=True)]
        answer = self._answers.get((script, size))
        return None if answer is None else tag + answer[8:]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def waking(times: int) -> None:
    """A task for each, which waits for a future: the least that anything concurrent costs."""
    loop = asyncio.get_running_loop()
    for _ in range(times // AT_ONCE):
        futures = [loop.create_future() for _ in range(AT_ONCE)]
        tasks = [loop.create_task(_waits(future)) for future in futures]
        await asyncio.sleep(0)
        for future in futures:
            future.set_result(None)
        for task in tasks:
            await task


async def _waits(future: "asyncio.Future[None]") -> None:
    await future


class Way:
    """A way to the service that encodes, decodes, and takes no time."""

    def __init__(self, granted: Granted) -> None:
        settled = {"settled": True, "refunded": {"tokens": 20.0}, "breaker": "closed"}
        told = {Operation.ACQUIRE: _plain(granted), Operation.SETTLE: settled}
        self._messages = {
            operation: http.encode([{"id": 1, "status": 200, **fields}], http.MSGPACK)
            for operation, fields in told.items()
        }

    async def send(self, op: _codec.Op) -> Any:
        """The answer."""
        op.frame(1)
        (frame,) = _answers.frames(self._messages[op.operation])
        return frame.usual(op.operation)

    begin = send


def sdk(granted: Granted) -> Layer:
    """`Limiter.acquire`, awaited."""
    limiter = Limiter("http://nowhere")
    limiter._asking.exchange = Way(granted)  # type: ignore[assignment]  # noqa: SLF001  # below

    async def layer(times: int) -> None:
        for n in range(times):
            await limiter.acquire(f"bench/m{n % 100}", tokens=100)

    return layer


def sdk_settled(granted: Granted) -> Layer:
    """`async with limiter.acquire(...)`, which settles."""
    limiter = Limiter("http://nowhere")
    limiter._asking.exchange = Way(granted)  # type: ignore[assignment]  # noqa: SLF001  # below

    async def layer(times: int) -> None:
        for n in range(times):
            async with limiter.acquire(f"bench/m{n % 100}", tokens=100) as lease:
                lease.used(input_tokens=60, output_tokens=20)

    return layer


def roster(granted: Granted) -> Layer:
    """What a channel of the SDK does with 64 operations: frames out, answers in."""
    fields = {**_plain(granted), "status": 200}

    async def layer(times: int) -> None:
        loop, them = asyncio.get_running_loop(), Roster()
        for _ in range(times // AT_ONCE):
            names = [them.add(_op(), loop.create_future()) for _ in range(AT_ONCE)]
            list(them.take(0.0))
            answers = [{"id": name, **fields} for name in names]
            them.hear(http.encode(answers, http.MSGPACK))

    return layer


def _op() -> _codec.Op:
    return _codec.op(Operation.ACQUIRE, ASKED)


def _plain(granted: Granted) -> dict[str, object]:
    return json.loads(http.encode(granted, http.JSON))


def channel(replica: Replica) -> Layer:
    """The service's end of a channel, with its engine: messages of 64 frames in, over as many
    budgets, and one message out for each.
    """
    messages = (_codec.message(asked) for asked in _asked())

    async def layer(times: int) -> None:
        wire = Wire(messages, times // AT_ONCE)
        scope = {CALLER: ANYBODY, "headers": [], "query_string": b"limits=brief"}
        scope["extensions"] = {LINE: wire}
        await Channels(replica.engine, 2**20)(scope, wire.receive, wire.send)

    return layer


class Wire:
    """A line over which the next message comes when the last is answered."""

    def __init__(self, messages: Iterator[bytes], left: int) -> None:
        self._messages, self._left, self._owed = messages, left, 0
        self._hear: Hear | None = None
        self._over = asyncio.Event()

    def listen(self, hear: Hear) -> None:
        """Begin to send, when the reader is there."""
        self._hear = hear
        asyncio.get_running_loop().call_soon(self._next)

    def say(self, messages: Iterable[Message]) -> bool:
        """Count what is answered."""
        for message in messages:
            self._owed -= _frames_in(message["bytes"])
        if self._owed == 0:
            asyncio.get_running_loop().call_soon(self._next)
        return True

    def _next(self) -> None:
        assert self._hear is not None
        if self._left == 0:
            self._over.set()
            return
        self._left, self._owed = self._left - 1, AT_ONCE
        assert self._hear(next(self._messages))

    async def receive(self) -> Message:
        """The end, when all are answered."""
        await self._over.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: Message) -> None:
        """The handshake; everything else is said over the line."""
        assert message["type"] == "websocket.accept"


def _asked() -> Iterator[list[bytes]]:
    """Frames of acquires, each with an id of its own."""
    names = itertools.count()
    while True:
        yield [
            _codec.op(
                Operation.ACQUIRE,
                Acquire(resource=f"bench/m{n}", tokens=100, request_id=f"{name:032x}", worker="w"),
            ).frame(name)
            for n, name in zip(range(AT_ONCE), names, strict=False)
        ]


def _frames_in(message: bytes) -> int:
    """How many a msgpack array holds, by its head."""
    return int.from_bytes(message[1:3], "big") if message[0] == 0xDC else message[0] & 15


async def asking(times: int) -> None:
    """Making the messages that the layer above reads: to be taken off."""
    messages = (_codec.message(asked) for asked in _asked())
    for _ in range(times // AT_ONCE):
        next(messages)


def reading() -> Layer:
    """Frames of a message apart."""
    message = _codec.message([_op().frame(n) for n in range(AT_ONCE)])

    async def layer(times: int) -> None:
        for _ in range(times // AT_ONCE):
            frames.read(message)

    return layer


def front(replica: Replica) -> Layer:
    """One request over HTTP through the front door and the engine, parsed and answered."""

    class Opened:
        async def admit(self, scope: Any) -> Any:
            scope[CALLER] = ANYBODY
            return ANYBODY

    bounds = Bounds(body=65536, head=16384, body_timeout=10.0)
    routes = {"/v1/acquire": partial(acquire, replica.engine)}
    app = Front(_nobody, routes, bounds, {}, Opened())  # type: ignore[arg-type]  # as far as they are used
    body = http.encode({"resource": "bench/m1", "tokens": 100}, http.JSON)
    headers = [
        (b"host", b"127.0.0.1:8080"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_message: Message) -> None:
        return

    async def layer(times: int) -> None:
        for _ in range(times):
            scope = {"type": "http", "path": "/v1/acquire", "method": "POST"}
            scope |= {"headers": headers, "query_string": b"", "raw_path": b"/v1/acquire"}
            await app(scope, receive, send)

    return layer


class Caught(asyncio.Transport):
    """A network that takes every answer."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.answers = 0

    def write(self, data: Any) -> None:
        """Count it."""
        assert data.startswith(b"HTTP/1.1 200"), data
        self.answers += 1

    def is_closing(self) -> bool:
        """Never."""
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who reads."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The same."""
        return self._protocol


def hatch(replica: Replica) -> Layer:
    """Requests over HTTP as they come from the network, one on each of 64 connections at once."""
    keyring = Keyring(None, list, grace=1.0)  # type: ignore[arg-type]  # nobody looks
    door = Door(keyring, anonymous=True, local=True, metrics_open=False)
    bounds = Bounds(body=65536, head=16384, body_timeout=10.0)
    state = {GUESTS: Guests(), HATCH: Hatch(replica.engine, door, bounds)}
    options = {"lifespan": "off", "log_config": None, "access_log": False, "interface": "asgi3"}
    config, served = uvicorn.Config(_nobody, **options), ServerState()  # type: ignore[arg-type]
    requests = [
        b"POST /v1/acquire HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in [b'{"resource": "bench/m%d", "tokens": 100}' % n for n in range(AT_ONCE)]
    ]

    async def layer(times: int) -> None:
        lines = []
        for _ in range(AT_ONCE):
            protocol, transport = Protocol(config, served, state), Caught()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            lines.append((protocol, transport))
        for n in range(times // AT_ONCE):
            for (protocol, _), request in zip(lines, requests, strict=True):
                protocol.data_received(request)
            while any(transport.answers == n for _, transport in lines):  # noqa: ASYNC110  # a tick
                await asyncio.sleep(0)
        for protocol, _ in lines:
            protocol.connection_lost(ConnectionResetError())

    return layer


async def _nobody(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("every request here is for a hot route")


def engine(replica: Replica) -> Layer:
    """The engine, with recorded answers of the store."""

    async def layer(times: int) -> None:
        for n in range(times):
            request = Acquire(resource=f"bench/m{n % 100}", tokens=100, request_id=f"{n:032x}")
            await replica.engine.acquire(request)

    return layer


async def in_store(over: Store, replica: Replica, rounds: int, times: int) -> dict[str, Value]:
    """What an acquire costs the store, and how much of that is the script itself."""
    found: list[tuple[float, float]] = []
    numbers = itertools.count()

    async def loop(left: Iterator[int]) -> None:
        for n in left:
            name = f"{next(numbers):031x}s"
            await replica.engine.acquire(
                Acquire(resource=f"bench/m{n % 100}", tokens=100, request_id=name)
            )

    for _ in range(rounds):
        over.redis.config_resetstat()
        before, left = over.cpu(), iter(range(times))
        await asyncio.gather(*(loop(left) for _ in range(AT_ONCE)))
        spent = over.cpu() - before
        script = over.redis.info("commandstats")["cmdstat_evalsha"]["usec"]
        found.append((spent / times * US, script / times))
    every, script = ([each[i] for each in found] for i in (0, 1))
    return {"": f"{AT_ONCE} at once", "CPU us": min(every), "of it in scripts, us": min(script)}


async def measure(over: Store, rounds: int, times: int, report: Report) -> None:
    """Print the tables."""
    replica = Replica(over.url, CONFIG)
    row = await in_store(over, replica, rounds, times)
    report.table(f"{over.name}: one acquire in the store", [row])
    recorded = replica.client._link = Recorded(replica.client._link)  # type: ignore[assignment]  # noqa: SLF001
    replica.client._lanes.clear()  # noqa: SLF001  # they know the way
    granted = await replica.engine.acquire(ASKED)
    assert isinstance(granted, Granted)
    for n in range(100):
        await replica.engine.acquire(Acquire(resource=f"bench/m{n}", tokens=1))
    recorded.recording = False
    layers: dict[str, Layer] = {
        "a task that waits for a future": waking,
        "SDK: acquire": sdk(granted),
        "SDK: acquire and settle": sdk_settled(granted),
        "SDK: roster of a channel, 64 at once": roster(granted),
        "frames made by the SDK": asking,
        "service: frames of a message read": reading(),
        "service: channel and engine, with the frames made": channel(replica),
        "service: front door and engine, one request": front(replica),
        "service: hatch and engine, 64 requests at once": hatch(replica),
        "service: engine, one acquire awaited": engine(replica),
    }
    found: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(rounds):
        for name, layer in layers.items():
            began = time.process_time()
            await layer(times)
            found[name].append((time.process_time() - began) / times * US)
    report.table(
        "CPU of one acquire, in us",
        [
            {"": name, "least": min(values), "median": statistics.median(values)}
            for name, values in found.items()
        ],
    )
    await replica.engine.passes.aclose()
    await replica.client.aclose()


def main() -> None:
    """Measure."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=6400, help="acquires in each round")
    asked = parser.parse_args()
    report = Report(asked.json)
    with store(asked.server) as over:
        uvloop.run(measure(over, asked.rounds, asked.times, report))
    report.close()


if __name__ == "__main__":
    main()
