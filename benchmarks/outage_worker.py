"""One worker process of `outage.py`: makes its share of the calls, and says what became of them.

It runs where the peer library is installed, hence it imports nothing of the service. A piece
of work is tried up to three times, with the pauses of a provider's SDK; whoever refuses an
attempt (a breaker, a limit) costs a try, as a failed call does.
"""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator

import httpx
import msgspec

from client_sdk import CallFailed, Lease, Limiter, LimiterOptions, Refused, SluicegateError
from client_sdk.streaming import StreamAccumulator, StreamTimeouts
from limiter_wire import Settle

TRIES = 3
RETRY_PAUSE = 0.5


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to do; times in seconds, `start` of the clock that all processes of a host share.

    `mode` is none, library or sluicegate. A first token that takes `slow` is no good any
    more, one that takes `patience` is given up.
    """

    mode: str
    name: str
    provider: str
    service: str
    resource: str
    start: float
    seconds: float
    rate: float
    slow: float
    patience: float
    open: float
    scale: float
    stream: bool


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """One call that was sent: when, when it had ended, whether well and in time."""

    at: float
    end: float
    good: bool


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at the end: calls that were sent; the work, by when it came, and whether it
    was done in the end; refusals.
    """

    sent: list[Sent]
    work: list[tuple[float, bool]]
    refused: int


class NotNow(Exception):
    """The attempt was refused before anything was sent."""


class Caller:
    """Makes calls in one of the three ways."""

    def __init__(self, job: Job, http: httpx.AsyncClient, limiter: Limiter | None) -> None:
        self._job, self._http, self._limiter = job, http, limiter
        self._chance = random.Random(job.name)
        self._sent: list[Sent] = []
        self._work: list[tuple[float, bool]] = []
        self._refused = 0
        if job.mode == "library":
            from purgatory import AsyncCircuitBreakerFactory  # noqa: PLC0415  # a peer's

            self._factory = AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=job.open)

    async def run(self) -> Done:
        """Work comes at random times, whether or not the earlier is done."""
        job = self._job
        at = job.start + self._chance.expovariate(job.rate)
        async with asyncio.TaskGroup() as group:
            while at < job.start + job.seconds:
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                group.create_task(self._piece(at))
                at += self._chance.expovariate(job.rate)
        return Done(sent=self._sent, work=self._work, refused=self._refused)

    async def _piece(self, came: float) -> None:
        good = False
        for attempt in range(1, TRIES + 1):
            try:
                good = await self._attempt(attempt)
            except NotNow:
                self._refused += 1
            if good or attempt == TRIES:
                break
            pause = RETRY_PAUSE * 2 ** (attempt - 1) * self._job.scale
            await asyncio.sleep(pause * self._chance.uniform(0.75, 1))
        self._work.append((came, good))

    async def _attempt(self, attempt: int) -> bool:
        at = time.monotonic()
        first: float | None = None
        try:
            async with self._let_through(attempt) as lease:
                at = time.monotonic()
                first = await self._call(lease)
        except (httpx.HTTPError, CallFailed):
            pass
        end = time.monotonic()
        good = first is not None and first < self._job.slow
        self._sent.append(Sent(at, end, good))
        return good

    @contextlib.asynccontextmanager
    async def _let_through(self, attempt: int) -> AsyncIterator[Lease | None]:
        """Raise NotNow, or let the call be made, and tell the breaker how it ended."""
        job = self._job
        if job.mode == "library":
            from purgatory.domain.model import OpenedState  # noqa: PLC0415

            breaker = await self._factory.get_breaker(job.resource)
            try:
                await breaker.__aenter__()
            except OpenedState:
                raise NotNow from None
            try:
                yield None
            except BaseException as error:
                await breaker.__aexit__(type(error), error, None)
                raise
            else:
                await breaker.__aexit__(None, None, None)
        elif self._limiter is not None:
            # Who is in the way of a short opening waits it out, as far as its patience goes.
            asked = self._limiter.acquire(
                job.resource,
                tokens=10,
                worker=job.name,
                attempt=attempt,
                max_wait=RETRY_PAUSE * job.scale,
            )
            try:
                lease = await asked
            except Refused:
                raise NotNow from None
            async with lease:
                yield lease
        else:
            yield None

    async def _call(self, lease: Lease | None) -> float:
        """Call the provider: seconds to the first token. Raises HTTPError, CallFailed."""
        job, began = self._job, time.monotonic()
        body = {
            "model": job.resource.partition("/")[2],
            "messages": [{"role": "user", "content": "How high is the water?"}],
            "stream": job.stream,
        }
        headers = {"x-sim-output-tokens": "6", "x-sim-input-tokens": "4"}
        request = self._http.build_request(
            "POST", "/v1/chat/completions", json=body, headers=headers
        )
        if not job.stream:
            answer = await self._http.send(request)
            answer.raise_for_status()
            return time.monotonic() - began
        return await self._stream(request, began, lease)

    async def _stream(self, request: httpx.Request, began: float, lease: Lease | None) -> float:
        stream, first = StreamAccumulator("openai-chat", timeouts=StreamTimeouts()), None
        stream.start(began)
        response = await self._http.send(request, stream=True)
        try:
            if response.is_error:
                await response.aread()
                response.raise_for_status()
            try:
                async for data in response.aiter_raw():
                    for chunk in stream.feed(data, time.monotonic()):
                        if chunk.content and first is None:
                            first = time.monotonic() - began
                            await self._early(lease, first)
                    if stream.done:
                        break
                else:
                    stream.finish(time.monotonic())
            except httpx.TransportError:
                stream.interrupt(time.monotonic())
        finally:
            await response.aclose()
        if first is None or stream.outcome is None or not stream.outcome.whole:
            raise stream.error(resource=self._job.resource)
        return first

    async def _early(self, lease: Lease | None, first: float) -> None:
        if lease is not None and self._limiter is not None:
            report = Settle(lease=lease.id, phase="first_token", ttft=first)
            with contextlib.suppress(SluicegateError):
                await self._limiter.settle(report)


async def work(job: Job) -> Done:
    """One run."""
    patience = httpx.Timeout(job.patience, connect=5.0)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    async with contextlib.AsyncExitStack() as stack:
        client = httpx.AsyncClient(base_url=job.provider, timeout=patience, limits=limits)
        http = await stack.enter_async_context(client)
        limiter = None
        if job.mode == "sluicegate":
            options = LimiterOptions(timeout=10.0, connect_timeout=10.0)
            limiter = await stack.enter_async_context(Limiter(job.service, options=options))
        return await Caller(job, http, limiter).run()


def main() -> None:
    """Say that everything is imported, take the job, say how it went."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    job = msgspec.json.decode(sys.stdin.readline(), type=Job)
    sys.stdout.write(msgspec.json.encode(asyncio.run(work(job))).decode())


if __name__ == "__main__":
    main()
