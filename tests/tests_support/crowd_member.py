"""One worker process of a crowd, and the process that all of them are forked from.

`python -m tests_support.crowd_member` has everything imported; each line on its stdin makes it
fork workers, which takes milliseconds where a new interpreter takes half a second. A worker
takes orders over a socket of the test's, carries them out side by side, and says what came
of them. It ends when the socket does.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

import anyio._backends._asyncio
import httpx
import msgspec
import websockets.asyncio.client

import limiter_wire.providers
from client_sdk import Lease, Limiter, LimiterOptions, SluicegateError
from client_sdk.streaming import StreamAccumulator, StreamTimeouts
from limiter_wire import Outcome, Settle

# What the SDK imports when it first needs it: once here, not once in every worker.
LATER = (anyio._backends._asyncio, websockets.asyncio.client, limiter_wire.providers)

LONGEST_PAUSE = 0.2
"""Seconds that a worker pauses at most before it asks again: refusals are what tests count."""


class Birth(msgspec.Struct, frozen=True):
    """Workers to fork: their names, where they take orders, and whom they call."""

    names: list[str]
    socket: str
    services: list[str]
    provider: str


class Hello(msgspec.Struct, frozen=True):
    """What a worker says first."""

    name: str
    pid: int


class Take(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Acquire, and keep the lease."""

    resource: str
    tokens: int = 1
    ttl: float | None = None
    request_id: str | None = None


class End(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Settle a lease of whichever worker, without a call."""

    lease: str
    outcome: Outcome = Outcome.SUCCESS
    phase: str | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Acquire (or use a lease that was taken), call the provider, settle.

    `patience` is for the first byte, the first token and each next one. With `again` it goes
    on until it is told to stop. `leave` is after how many pieces the caller hangs up.
    """

    resource: str
    lease: str | None = None
    fault: str = ""
    provider: str | None = None
    stream: bool = False
    patience: float = 30.0
    again: bool = False
    leave: int | None = None
    slow: bool = False


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End what an order has begun: no further call, or at once."""

    order: int
    at_once: bool = False


Order = Take | End | Call | Stop


class Ordered(msgspec.Struct, frozen=True):
    """An order with its number."""

    number: int
    order: Order


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order: `granted`, `refused`, `settled`, `failed` (the settle, or the
    call's own way), and in the end `done`.
    """

    number: int
    what: str
    lease: str = ""
    probe: bool = False
    code: str | None = None
    retry_after: float | None = None
    outcome: str | None = None
    breaker: str = ""
    again: bool = False
    text: str = ""


class Worker:
    """A caller that uses the SDK as any program does."""

    def __init__(self, birth: Birth, name: str, tell: Callable[[Said], None]) -> None:
        nth = birth.names.index(name)
        options = LimiterOptions(timeout=20.0, connect_timeout=20.0)
        self._limiter = Limiter(birth.services[nth % len(birth.services)], options=options)
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(base_url=birth.provider, timeout=60, limits=limits)
        self._name, self._tell = name, tell
        self._leases: dict[str, Lease] = {}
        self._stops: dict[int, asyncio.Event] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def begin(self, ordered: Ordered) -> None:
        """Carry out an order in a task of its own."""
        match ordered.order:
            case Stop(order, at_once):
                self._stops[order].set()
                if at_once:
                    self._tasks[order].cancel()
                self._tell(Said(number=ordered.number, what="done"))
            case order:
                self._stops[ordered.number] = asyncio.Event()
                task = asyncio.create_task(self._run(ordered.number, order))
                self._tasks[ordered.number] = task

    async def _run(self, number: int, order: Order) -> None:
        try:
            match order:
                case Take():
                    await self._take(number, order)
                case End():
                    await self._end(number, order)
                case Call(again=True):
                    while not self._stops[number].is_set():
                        await self._call(number, order)
                case Call():
                    await self._call(number, order)
        except asyncio.CancelledError:
            self._tell(Said(number=number, what="cancelled"))
        except Exception as error:  # noqa: BLE001  # the test has to hear of it
            self._tell(Said(number=number, what="broken", text=repr(error)))
        self._tell(Said(number=number, what="done"))

    async def _take(self, number: int, order: Take) -> None:
        lease = await self._acquired(number, order)
        if lease is not None:
            self._leases[lease.id] = lease

    async def _acquired(self, number: int, order: Take) -> Lease | None:
        try:
            lease = await self._limiter.acquire(
                order.resource,
                tokens=order.tokens,
                ttl=order.ttl,
                worker=self._name,
                request_id=order.request_id,
            )
        except SluicegateError as error:
            self._tell(
                Said(number=number, what="refused", code=error.code, retry_after=error.retry_after)
            )
            return None
        granted = lease.granted
        self._tell(
            Said(
                number=number,
                what="granted",
                lease=lease.id,
                probe=granted.probe,
                breaker=granted.breaker,
            )
        )
        return lease

    async def _end(self, number: int, order: End) -> None:
        phase = "first_token" if order.phase else None
        try:
            settled = await self._limiter.settle(
                Settle(lease=order.lease, outcome=order.outcome, phase=phase)
            )
        except SluicegateError as error:
            self._tell(Said(number=number, what="failed", code=error.code))
        else:
            said = Said(
                number=number,
                what="settled",
                again=settled.already_settled,
                breaker=settled.breaker,
                outcome=order.outcome,
            )
            self._tell(said)

    async def _call(self, number: int, order: Call) -> None:
        if order.lease is not None:
            lease = self._leases.pop(order.lease)
        else:
            taken = await self._acquired(number, Take(resource=order.resource))
            if taken is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stops[number].wait(), LONGEST_PAUSE)
                return
            lease = taken
        outcome = "success"
        try:
            async with lease:
                await (self._stream if order.stream else self._ask)(order, lease)
        except (httpx.HTTPError, SluicegateError) as error:
            outcome = type(error).__name__
        breaker = lease.settled.breaker if lease.settled else ""
        self._tell(Said(number=number, what="settled", outcome=outcome, breaker=breaker))

    def _request(self, order: Call) -> httpx.Request:
        model = order.resource.partition("/")[2]
        body = {"model": model, "messages": [{"role": "user", "content": "How high is it?"}]}
        headers = {"x-sim-output-tokens": "6", "x-sim-input-tokens": "4"}
        if order.fault:
            headers["x-sim-fault"] = order.fault
        url = f"{order.provider or ''}/v1/chat/completions"
        return self._http.build_request(
            "POST", url, json=body | {"stream": order.stream}, headers=headers,
            timeout=order.patience,
        )  # fmt: skip

    async def _ask(self, order: Call, lease: Lease) -> None:
        answer = await self._http.send(self._request(order))
        answer.raise_for_status()
        lease.used(input_tokens=4, output_tokens=6)

    async def _stream(self, order: Call, lease: Lease) -> None:
        """Read a stream to its end; its first token is reported when it comes."""
        wait = order.patience
        limits = StreamTimeouts(first_byte=wait, first_token=wait, idle_bytes=wait,
                                idle_content=wait)  # fmt: skip
        stream = StreamAccumulator("openai-chat", timeouts=limits)
        began = time.monotonic()
        stream.start(began)
        response = await self._http.send(self._request(order), stream=True)
        try:
            if response.is_error:
                await response.aread()
                response.raise_for_status()
            pieces, chunks = 0, response.aiter_raw()
            while not stream.done:
                deadline = stream.deadline()
                assert deadline is not None
                try:
                    left = max(0.0, deadline - time.monotonic())
                    data = await asyncio.wait_for(anext(chunks, b""), left)
                except TimeoutError:
                    stream.stall(max(deadline, time.monotonic()))
                    continue
                except httpx.TransportError:
                    stream.interrupt(time.monotonic())
                    continue
                now = time.monotonic()
                if not data:
                    stream.finish(now)
                    continue
                for chunk in stream.feed(data, now):
                    pieces += bool(chunk.content)
                    if pieces == 1 and chunk.content:
                        took = 1e6 if order.slow else now - began
                        await self._limiter.settle(
                            Settle(lease=lease.id, phase="first_token", ttft=took)
                        )
                if order.leave is not None and pieces >= order.leave:
                    stream.cancel(now)
        finally:
            await response.aclose()
        if stream.outcome is not None and not stream.outcome.whole:
            raise stream.error(resource=order.resource)


async def _work(birth: Birth, name: str) -> None:
    reader, writer = await asyncio.open_unix_connection(birth.socket)

    def tell(what: msgspec.Struct) -> None:
        writer.write(msgspec.json.encode(what) + b"\n")

    tell(Hello(name, os.getpid()))
    worker = Worker(birth, name, tell)
    decoder = msgspec.json.Decoder(Ordered)
    while line := await reader.readline():
        await worker.begin(decoder.decode(line))
    os._exit(0)  # the test is over: no last words to anybody


def _fork(birth: Birth, name: str) -> None:
    if os.fork():
        return
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asyncio.run(_work(birth, name))
    finally:
        os._exit(1)  # nothing of the parent's is this process's to clean up


def main() -> None:
    """Fork on demand; whoever ends is forgotten at once."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        birth = msgspec.json.decode(line, type=Birth)
        for name in birth.names:
            _fork(birth, name)


if __name__ == "__main__":
    main()
