"""How often a provider refuses, by who knows its limit: nobody, each process, the fleet.

    python benchmarks/adaptive.py [--seconds 90] [--processes 4] [--only NAME ...]

The provider simulator allows 10 calls a second, counted in tokens, and has nothing saved up
when a row begins; callers in several processes want 1.4 times that, wait up to 30 s for their
turn, and send a refused call again up to five times. Every row runs against a service of its
own over a store of its own; what it knows is in its configuration.

429s     refusals per 1,000 calls sent, over the whole row and after its first minute
goodput  tokens that the provider served over what its limit allows in that time
sends    calls sent per call that was served

`alone` retries with exponential backoff and full jitter; `adaptive` has a cubic rate limiter
in each process (cut to 0.7 of the measured rate, at most twice that rate), as SDKs of cloud
providers do. `aimd` is the option of a limit, in rows that know no header.

Bars: at most 30 refusals per 1,000 with 90 % goodput for the right limit with
cooldown and for the wrong one with headers; below 25 after a minute with 90 % goodput
whatever limit was written, with what is on by default.
"""

import argparse
import asyncio
import contextlib
import math
import multiprocessing
import random
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier

import httpx
import msgspec
from harness import Report, Value, options, say, services, sluicegate, store

from client_sdk import Limiter, LimiterOptions, SluicegateError

RATE, SIZE = 10, 100  # calls per second, tokens of each
TPM = RATE * SIZE * 60
LOAD, WAIT, TRIES = 1.4, 30.0, 6
FIRST = 60.0
CONFIG = """
pools:
  bench:
    provider: openai
    learn: {learn}
    models:
      m: {{limits: [{{name: tpm, meter: tokens, limit: {tpm}, per: minute, burst: {tpm},
                     aimd: {aimd}}}]}}
    breaker: {{enabled: {breaker}}}
    queue: {{max_waiters: 100000}}
"""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the callers of a row know; `times` is the configured limit over the real one."""

    name: str
    how: str = "shared"
    times: float = 1.0
    cooldown: bool = False
    learn: bool = False
    aimd: bool = False


ROWS = (
    Row(name="no coordination", how="alone"),
    Row(name="adaptive in each process", how="adaptive"),
    Row(name="shared, right limit"),
    Row(name="shared, right limit, cooldown", cooldown=True),
    Row(name="limit 2x, no feedback", times=2),
    Row(name="limit 2x, aimd", times=2, aimd=True),
    Row(name="limit 2x, cooldown, aimd", times=2, cooldown=True, aimd=True),
    Row(name="limit 20x, cooldown, aimd", times=20, cooldown=True, aimd=True),
    Row(name="limit 2x, cooldown", times=2, cooldown=True),
    Row(name="limit 2x, headers", times=2, learn=True),
    Row(name="limit 2x, cooldown, headers", times=2, cooldown=True, learn=True),
    Row(name="limit 20x, cooldown, headers", times=20, cooldown=True, learn=True),
)


class Cubic:
    """The rate limiter that one process keeps for itself."""

    def __init__(self, now: float) -> None:
        self._rate, self._most, self._tokens = RATE / 2, RATE / 2, 0.0
        self._cut, self._at = now, now
        self._measured, self._second, self._count = RATE / 2, math.floor(now), 0
        self._limiting = False

    def wait(self, now: float) -> float:
        """Seconds until the next call may be sent; 0 takes it."""
        if not self._limiting:
            return 0.0
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def note(self, now: float, *, refused: bool) -> None:
        """Take in how a call ended."""
        self._count += 1
        if math.floor(now) > self._second:
            self._measured = 0.8 * self._count + 0.2 * self._measured
            self._second, self._count = math.floor(now), 0
        if refused:
            before = min(self._measured, self._rate) if self._limiting else self._measured
            self._most, self._rate, self._cut, self._at = before, 0.7 * before, now, now
            self._limiting, self._tokens = True, 0.0
        elif self._limiting:
            since = now - self._cut - (self._most * 0.3 / 0.4) ** (1 / 3)
            self._rate = max(0.5, min(0.4 * since**3 + self._most, 2 * self._measured))


class Caller:
    """One process: its calls at random times, its own share of the load."""

    def __init__(self, row: Row, service: str, provider: str, load: float, seed: int) -> None:
        self._row, self._load = row, load
        self._random = random.Random(seed)
        self._provider = provider
        self._service = service
        self._cubic = Cubic(time.monotonic())  # of this host: processes share its clock

    async def run(self, seconds: float) -> None:
        """Offer the load for so many seconds, then give up what waits."""
        patient = LimiterOptions(timeout=20.0, connect_timeout=10.0)
        limits = httpx.Limits(max_connections=None)
        async with (
            Limiter(self._service, options=patient) as limiter,
            httpx.AsyncClient(base_url=self._provider, timeout=60, limits=limits) as http,
        ):
            tasks: list[asyncio.Task[None]] = []
            due = began = time.monotonic()
            while due < began + seconds:
                tasks.append(asyncio.create_task(self._call(limiter, http)))
                due += self._random.expovariate(self._load)
                await asyncio.sleep(due - time.monotonic())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, limiter: Limiter, http: httpx.AsyncClient) -> None:
        for attempt in range(1, TRIES + 1):
            with contextlib.suppress(httpx.HTTPStatusError):
                if self._row.how == "shared":
                    await self._shared(limiter, http, attempt)
                else:
                    await self._alone(http)
                return
            if self._row.how == "alone":
                await asyncio.sleep(self._random.uniform(0, min(20.0, 0.5 * 2.0**attempt)))

    async def _shared(self, limiter: Limiter, http: httpx.AsyncClient, attempt: int) -> None:
        try:
            async with limiter.acquire(
                "bench/m", tokens=SIZE, max_wait=WAIT, attempt=attempt
            ) as lease:
                answer = await self._send(http)
                lease.observed(answer.headers)
                lease.used(input_tokens=SIZE - 20, output_tokens=20)
        except SluicegateError:
            return  # its turn would have come too late, or the fleet has retried enough

    async def _alone(self, http: httpx.AsyncClient) -> None:
        while (pause := self._pause()) > 0:  # noqa: ASYNC110  # rates change meanwhile
            await asyncio.sleep(pause)
        try:
            await self._send(http)
        except httpx.HTTPStatusError:
            self._cubic.note(time.monotonic(), refused=True)
            raise
        self._cubic.note(time.monotonic(), refused=False)

    def _pause(self) -> float:
        return self._cubic.wait(time.monotonic()) if self._row.how == "adaptive" else 0.0

    async def _send(self, http: httpx.AsyncClient) -> httpx.Response:
        sizes = {"x-sim-input-tokens": str(SIZE - 20), "x-sim-output-tokens": "20"}
        body = {"model": "m", "max_tokens": SIZE, "messages": [{"role": "user", "content": "-"}]}
        answer = await http.post("/v1/chat/completions", json=body, headers=sizes)
        return answer.raise_for_status()


def call_for(caller: Caller, seconds: float, ready: Barrier) -> None:
    """What a process runs, once all of them are there."""
    ready.wait()
    asyncio.run(caller.run(seconds))


class Seen(msgspec.Struct, frozen=True):
    """The provider's books at one moment."""

    granted: int
    refused: int


def books(provider: str) -> Seen:
    """What the provider has granted and refused so far."""
    stats = httpx.get(f"{provider}/sim/stats").json()
    return Seen(stats["granted"], stats["refused"])


def drain(service: str, provider: str) -> None:
    """Use up what service and provider had saved: one call for all of it."""
    (limit,) = httpx.get(f"{service}/v1/resources/bench/m").raise_for_status().json()["limits"]
    ask = {"resource": "bench/m", "tokens": int(limit["remaining"])}
    httpx.post(f"{service}/v1/acquire", json=ask).raise_for_status()
    body = {"model": "m", "max_tokens": TPM, "messages": [{"role": "user", "content": "-"}]}
    sizes = {"x-sim-input-tokens": "1", "x-sim-output-tokens": "1"}
    httpx.post(f"{provider}/v1/chat/completions", json=body, headers=sizes).raise_for_status()


def measure(row: Row, given: argparse.Namespace) -> dict[str, Value]:
    """Run one row."""
    config = CONFIG.format(
        learn="down" if row.learn else "never",
        tpm=round(TPM * row.times),
        breaker="true" if row.cooldown else "false",
        aimd="true" if row.aimd else "false",
    )
    account = ["--tpm", str(TPM), "--rpm", "1000000", "--latency", "0.7"]
    context = multiprocessing.get_context("spawn")
    with (
        store(given.server) as where,
        services(where.url, config, 1) as them,
        sluicegate("provider-sim", *account) as sim,
    ):
        load, ready = LOAD * RATE / given.processes, context.Barrier(given.processes + 1)
        callers = [Caller(row, them[0].url, sim.url, load, seed) for seed in range(given.processes)]
        workers = [
            context.Process(target=call_for, args=(caller, given.seconds, ready))
            for caller in callers
        ]
        for worker in workers:
            worker.start()
        while ready.n_waiting < given.processes:
            time.sleep(0.05)
        drain(them[0].url, sim.url)
        ready.wait()
        begin, began = books(sim.url), time.monotonic()
        time.sleep(min(FIRST, given.seconds))
        middle = books(sim.url)
        time.sleep(max(0.0, began + given.seconds - time.monotonic()))
        end, took = books(sim.url), time.monotonic() - began
        for worker in workers:
            worker.join()
    sent = end.granted - begin.granted + end.refused - begin.refused
    late = end.granted - middle.granted + end.refused - middle.refused
    served = end.granted - begin.granted
    say(f"{row.name}: {sent} sent, {served} served in {took:.0f} s")
    return {
        "": row.name,
        "429s per 1,000": 1000 * (end.refused - begin.refused) / max(1, sent),
        "after a minute": 1000 * (end.refused - middle.refused) / max(1, late),
        "goodput": served / (RATE * took),
        "sends per success": sent / max(1, served),
    }


def chosen(names: Sequence[str]) -> list[Row]:
    """Rows whose name contains one of *names*; all where there are none."""
    return [row for row in ROWS if not names or any(name in row.name for name in names)]


def main() -> None:
    """Run the rows one after the other."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=90.0, help="of each row")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=[], help="rows whose name contains this")
    given = parser.parse_args()
    report = Report(given.json)
    rows = [measure(row, given) for row in chosen(given.only)]
    report.table("refusals by who knows the limit", rows)
    report.close()


if __name__ == "__main__":
    main()
