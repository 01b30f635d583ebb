"""One worker process: makes its calls when they are due, and reports each."""

import asyncio
import contextlib
import random
import sys
import time
from typing import Any

import httpx
import msgspec

from client_sdk import BreakerOpen, Limiter, LimiterOptions, RateLimited, SluicegateError
from limiter_service.demo.workload import Call
from limiter_service.provider_sim import SimOptions
from rate_errors.fixed_minute import FixedMinute
from rate_errors.messages import Ending, Finished, Job, Message, Ready, Start, Strategy
from rate_errors.providers import PROVIDERS, most_output

POOL = "bench"
PATIENCE = 3600.0
"""Real seconds that a call waits for budget: none gives up on its limiter."""

_TOO_MANY = 429
_TIMEOUT = 120.0
_CONNECTIONS = httpx.Limits(max_connections=200, max_keepalive_connections=200)
# The machine is busy with both sides: a slow answer is no lost service.
_OPTIONS = LimiterOptions(timeout=20.0, connect_timeout=10.0)

_encode = msgspec.json.Encoder().encode


class _Progress:
    """What happened to one call so far."""

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.attempts = self.refusals = self.for_tokens = 0
        self.first_refused = False


class _Caller:
    def __init__(
        self,
        job: Job,
        start: float,
        http: httpx.AsyncClient,
        limiter: Limiter | None,
        minutes: FixedMinute | None,
    ) -> None:
        self._job, self._start, self._http = job, start, http
        self._limiter, self._minutes = limiter, minutes
        self._provider = PROVIDERS[job.provider]
        self._resource = f"{POOL}/{self._provider.model}"
        self._random = random.Random(job.seed * 1000 + job.worker)

    async def replay(self) -> None:
        """Make every call at its time, whatever became of the earlier ones."""
        async with asyncio.TaskGroup() as tasks:
            for due in self._job.calls:
                await self._sleep(due.call.at - self._now())
                tasks.create_task(self._make(due.number, due.call))

    async def _make(self, number: int, call: Call) -> None:
        seen, ending, problem = _Progress(call.at), Ending.SUCCEEDED, ""
        try:
            match self._job.strategy:
                case Strategy.NATIVE:
                    await self._leased_attempts(call, seen)
                case Strategy.NAIVE:
                    async with self._lease(call, 1) as lease:
                        lease.used(**await self._sdk(call, seen))
                case Strategy.FIXED:
                    assert self._minutes is not None
                    (demand,) = self._provider.demands([call], SimOptions())
                    await self._minutes.wait(demand.charges)
                    await self._sdk(call, seen)
                case Strategy.NONE:
                    await self._sdk(call, seen)
        except RateLimited:
            ending = Ending.GIVEN_UP
        except httpx.HTTPStatusError as error:
            refused = error.response.status_code == _TOO_MANY
            ending = Ending.GIVEN_UP if refused else Ending.FAILED
            problem = "" if refused else str(error)
        except (httpx.HTTPError, SluicegateError) as error:
            ending, problem = Ending.FAILED, f"{type(error).__name__}: {error.args[:1]}"
        _say(
            Finished(
                number=number,
                sent=seen.sent,
                ending=ending,
                attempts=seen.attempts,
                refusals=seen.refusals,
                for_tokens=seen.for_tokens,
                first_refused=seen.first_refused,
                problem=problem,
            )
        )

    async def _leased_attempts(self, call: Call, seen: _Progress) -> None:
        """A lease for every attempt: the SDK's own retries are off, as documented."""
        while True:
            try:
                async with self._lease(call, seen.attempts + 1) as lease:
                    lease.used(**await self._ask(call, seen))
            except BreakerOpen as error:  # the provider has told everybody to pause
                await asyncio.sleep(error.retry_after or 0.01)
            except httpx.HTTPStatusError as error:
                await self._pause(error, seen)
            else:
                return

    async def _sdk(self, call: Call, seen: _Progress) -> dict[str, int]:
        """A call with the retries of the official SDK, of which no limiter knows."""
        while True:
            try:
                return await self._ask(call, seen)
            except httpx.HTTPStatusError as error:
                await self._pause(error, seen)

    async def _pause(self, error: httpx.HTTPStatusError, seen: _Progress) -> None:
        """Wait as the SDK does before the next attempt. Raises *error* when there is none."""
        policy = self._provider.retries
        if error.response.status_code != _TOO_MANY or seen.attempts > policy.retries:
            raise error
        told = _told(error.response)
        told = None if told is None else told * self._job.speed
        await self._sleep(policy.pause(seen.attempts, told, self._random))

    async def _ask(self, call: Call, seen: _Progress) -> dict[str, int]:
        """One attempt; what it used. Raises HTTPError."""
        question = self._provider.question
        seen.sent, seen.attempts = self._now(), seen.attempts + 1
        answer = await self._http.post(
            question.path,
            content=_encode(question.with_most(most_output(call))),
            headers={
                "x-sim-input-tokens": str(call.input_tokens),
                "x-sim-output-tokens": str(call.output_tokens),
            },
        )
        if answer.status_code == _TOO_MANY:
            seen.refusals += 1
            seen.for_tokens += b"token" in answer.content.lower()
            seen.first_refused |= seen.attempts == 1
        answer.raise_for_status()
        used = question.used(msgspec.json.decode(answer.content))
        return {"input_tokens": used[0], "output_tokens": used[1]}

    def _lease(self, call: Call, attempt: int) -> Any:
        assert self._limiter is not None
        return self._limiter.acquire(
            self._resource,
            input_tokens=call.input_tokens,
            max_output_tokens=most_output(call),
            max_wait=PATIENCE,
            attempt=attempt,
            # Who was refused has waited already.
            priority=5 if attempt == 1 else 0,
        )

    def _now(self) -> float:
        return (time.monotonic() - self._start) * self._job.speed

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds / self._job.speed))


def _told(answer: httpx.Response) -> float | None:
    """The wait that an answer names, in real seconds."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        if name in answer.headers:
            return float(answer.headers[name]) / unit
    return None


def _say(message: Message) -> None:
    assert sys.__stdout__ is not None
    sys.__stdout__.buffer.write(_encode(message) + b"\n")
    sys.__stdout__.flush()


async def _work(job: Job, start: Start) -> None:
    async with contextlib.AsyncExitStack() as stack:
        client = httpx.AsyncClient(
            base_url=job.simulator, limits=_CONNECTIONS, timeout=_TIMEOUT, trust_env=False
        )
        http = await stack.enter_async_context(client)
        limiter = minutes = None
        if job.service:
            limiter = await stack.enter_async_context(Limiter(job.service, options=_OPTIONS))
        if job.store:
            minutes = FixedMinute(job.store, job.allowed, job.speed)
            stack.push_async_callback(minutes.aclose)
        await _Caller(job, start.at, http, limiter, minutes).replay()


def main() -> None:
    """Take the job, say so, begin when told."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    _say(Ready())
    start = msgspec.json.decode(sys.stdin.buffer.readline(), type=Start)
    # The pipe belongs to the messages: what a library prints goes where errors go.
    with contextlib.redirect_stdout(sys.stderr):
        asyncio.run(_work(job, start))
