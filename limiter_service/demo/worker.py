"""One caller process of the demo: replays its share of the calls at their times.

Run as `python -m limiter_service.demo.worker`. Reads a Job and then a Start from stdin,
writes one message per line to stdout.
"""

import asyncio
import contextlib
import math
import random
import sys
import time
from collections.abc import AsyncIterator

import httpx
import msgspec

from client_sdk import Lease, Limiter, RateLimited, SluicegateError
from limiter_service.demo.messages import Ending, Finished, Job, Message, Ready, Start
from limiter_service.demo.workload import Call

# The retries of the official OpenAI SDK: its defaults, in seconds.
_RETRIES = 2
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 8.0
_BACKOFF_JITTER = 0.25

_TOO_MANY = 429

# A handful of calls is in flight per process. The pool of httpx scans all its connections
# for every request, so it gets enough for a burst and no more.
_CONNECTIONS = httpx.Limits(max_connections=32, max_keepalive_connections=32)

# Real seconds: the simulator answers in fractions of one, and a demo must not hang.
_TIMEOUT = 60.0

_encoder = msgspec.json.Encoder()


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int


class _Completion(msgspec.Struct, frozen=True):
    usage: _Usage


_completion = msgspec.json.Decoder(_Completion)


class _Caller:
    """Makes calls and reports each of them."""

    def __init__(
        self, job: Job, start: float, http: httpx.AsyncClient, limiter: Limiter | None
    ) -> None:
        self._job = job
        self._start = start
        self._http = http
        self._limiter = limiter
        self._random = random.Random(job.seed + job.worker)  # noqa: S311 - jitter
        self._turnstile = asyncio.Lock()
        self._body = _encoder.encode(
            {
                "model": job.resource.partition("/")[2],
                "messages": [{"role": "user", "content": "Say something."}],
                "max_tokens": job.max_output,
            }
        )

    async def replay(self) -> None:
        """Make every call at its time, whatever became of the earlier ones."""
        async with asyncio.TaskGroup() as tasks:
            for call in self._job.calls:
                await self._until(call.at)
                tasks.create_task(self._make(call))

    async def _make(self, call: Call) -> None:
        attempts = refusals = 0
        sent, ending, problem = call.at, Ending.GIVEN_UP, ""
        try:
            while attempts <= _RETRIES:
                try:
                    async with self._budget(call) as lease:
                        attempts, sent = attempts + 1, self._now()
                        await self._ask(call, lease)
                    ending = Ending.SUCCEEDED
                    break
                except httpx.HTTPStatusError as error:
                    if error.response.status_code != _TOO_MANY:
                        raise
                    refusals += 1
                    if attempts <= _RETRIES:
                        await asyncio.sleep(self._backoff(error.response, attempts))
        except RateLimited:
            pass  # its patience is over
        except (httpx.HTTPError, SluicegateError) as error:
            # Only the message: the text of our errors also has the id of the request, and
            # equal problems are counted together.
            ending, problem = Ending.FAILED, f"{type(error).__name__}: {error.args[0]}"
        _say(
            Finished(
                at=self._now(),
                ending=ending,
                attempts=attempts,
                refusals=refusals,
                waited=max(0.0, sent - call.at),
                problem=problem,
            )
        )

    async def _ask(self, call: Call, lease: Lease | None) -> None:
        """Call the provider and tell the lease what it used. Raises HTTPError."""
        answer = await self._http.post(
            "/v1/chat/completions",
            content=self._body,
            headers={
                "x-sim-input-tokens": str(call.input_tokens),
                "x-sim-output-tokens": str(call.output_tokens),
            },
        )
        answer.raise_for_status()
        if lease is not None:
            usage = _completion.decode(answer.content).usage
            lease.used(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)

    @contextlib.asynccontextmanager
    async def _budget(self, call: Call) -> AsyncIterator[Lease | None]:
        """Wait for the shared budget, where there is one. Raises SluicegateError."""
        if self._limiter is None:
            yield None
            return
        async with contextlib.AsyncExitStack() as stack:
            yield await self._admitted(self._limiter, call, stack)

    async def _admitted(
        self, limiter: Limiter, call: Call, stack: contextlib.AsyncExitStack
    ) -> Lease:
        """The lease of `call`, which `stack` settles: at once, or in turn."""

        async def ask(max_wait: float) -> Lease:
            acquire = limiter.acquire(
                self._job.resource,
                input_tokens=call.input_tokens,
                max_output_tokens=self._job.max_output,
                max_wait=max_wait,
            )
            return await stack.enter_async_context(acquire)

        if not self._turnstile.locked():
            with contextlib.suppress(RateLimited):
                return await ask(0.0)
        # Of those who have to wait, one at a time asks for this process: the others would
        # only be told to come back at the same moment, and overtake the first.
        async with self._turnstile:
            patience = call.at + self._job.patience - self._now()
            return await ask(max(0.0, patience / self._job.speed))

    def _backoff(self, answer: httpx.Response, attempt: int) -> float:
        """How long the official SDK sleeps after this answer, in real seconds."""
        if "retry-after-ms" in answer.headers:
            return float(answer.headers["retry-after-ms"]) / 1000
        if "retry-after" in answer.headers:
            return float(answer.headers["retry-after"])
        pause = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * math.pow(2, attempt - 1))
        return pause * (1 - _BACKOFF_JITTER * self._random.random()) / self._job.speed

    def _now(self) -> float:
        return (time.monotonic() - self._start) * self._job.speed

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, (at - self._now()) / self._job.speed))


def _say(message: Message) -> None:
    assert sys.__stdout__ is not None
    sys.__stdout__.buffer.write(_encoder.encode(message) + b"\n")
    sys.__stdout__.flush()


async def _work(job: Job, start: Start) -> None:
    async with contextlib.AsyncExitStack() as stack:
        client = httpx.AsyncClient(base_url=job.provider, limits=_CONNECTIONS, timeout=_TIMEOUT)
        http = await stack.enter_async_context(client)
        limiter = None
        if job.limiter is not None:
            limiter = await stack.enter_async_context(Limiter(job.limiter))
        await _Caller(job, start.at, http, limiter).replay()


def main() -> None:
    """Take the job, say so, begin when told."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    _say(Ready())
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=Start)
    # The pipe belongs to the messages: what a library prints goes where errors go.
    with contextlib.redirect_stdout(sys.stderr):
        asyncio.run(_work(job, start))


if __name__ == "__main__":
    main()
