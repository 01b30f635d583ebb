"""One caller process of the demo: replays its share of the calls at their times.

Run as `python -m limiter_service.demo.worker`. Reads a Job and then a Start from stdin,
writes one message per line to stdout.
"""

import asyncio
import contextlib
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
                async with self._budget(call) as lease:
                    attempts, sent = attempts + 1, self._now()
                    answer = await self._ask(call, lease)
                if answer.status_code != _TOO_MANY:
                    answer.raise_for_status()
                    ending = Ending.SUCCEEDED
                    break
                refusals += 1
                if attempts <= _RETRIES:
                    await asyncio.sleep(self._backoff(answer, attempts))
        except RateLimited:
            pass
        except (httpx.HTTPError, SluicegateError) as error:
            ending, problem = Ending.FAILED, f"{type(error).__name__}: {error}"
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

    async def _ask(self, call: Call, lease: Lease | None) -> httpx.Response:
        answer = await self._http.post(
            "/v1/chat/completions",
            content=self._body,
            headers={
                "x-sim-input-tokens": str(call.input_tokens),
                "x-sim-output-tokens": str(call.output_tokens),
            },
        )
        if lease is not None and answer.is_success:
            usage = _completion.decode(answer.content).usage
            lease.used(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
        return answer

    @contextlib.asynccontextmanager
    async def _budget(self, call: Call) -> AsyncIterator[Lease | None]:
        """Wait for the shared budget, where there is one."""
        if self._limiter is None:
            yield None
            return
        async with contextlib.AsyncExitStack() as stack:
            # One call at a time asks for this process: the others would only be told to
            # come back at the same moment, and overtake whoever waits longest.
            async with self._turnstile:
                lease = await self._admitted(self._limiter, call, stack)
            yield lease

    async def _admitted(
        self, limiter: Limiter, call: Call, stack: contextlib.AsyncExitStack
    ) -> Lease:
        """Ask until granted, or until the patience of the call is over: RateLimited."""
        while True:
            left = (call.at + self._job.patience - self._now()) / self._job.speed
            acquire = limiter.acquire(
                self._job.resource,
                input_tokens=call.input_tokens,
                max_output_tokens=self._job.max_output,
                max_wait=max(0.0, left),
            )
            try:
                return await stack.enter_async_context(acquire)
            except RateLimited as refused:
                wait = (refused.retry_after or 0.0) * (1 + 0.05 * self._random.random())
                if wait > left:
                    raise
                await asyncio.sleep(wait)

    def _backoff(self, answer: httpx.Response, attempt: int) -> float:
        """How long the official SDK sleeps after this answer, in real seconds."""
        if "retry-after-ms" in answer.headers:
            return float(answer.headers["retry-after-ms"]) / 1000
        if "retry-after" in answer.headers:
            return float(answer.headers["retry-after"])
        longest = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** (attempt - 1))
        return longest * (1 - _BACKOFF_JITTER * self._random.random()) / self._job.speed

    def _now(self) -> float:
        return (time.monotonic() - self._start) * self._job.speed

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, (at - self._now()) / self._job.speed))


def _say(message: Message) -> None:
    sys.stdout.buffer.write(_encoder.encode(message) + b"\n")
    sys.stdout.buffer.flush()


async def _work(job: Job, start: Start) -> None:
    async with contextlib.AsyncExitStack() as stack:
        client = httpx.AsyncClient(base_url=job.provider, limits=_CONNECTIONS, timeout=None)
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
    asyncio.run(_work(job, start))


if __name__ == "__main__":
    main()
