"""How often a provider refuses what grows too fast, with and without a ramp.

    python benchmarks/ramps.py [--seconds 240] [--only NAME ...]

The simulated provider allows 1,200 requests a minute, and in any 10 s at most twice those of
the 10 s before, or 20. Callers want 18 a second out of nothing, pause for a minute, and want
them again; a call takes about 0.7 s and up to 0.1 s on its way. Time is virtual: the engine
and its scripts are the real ones, and the machine changes nothing.

429s      refusals per 1,000 calls sent
refused   calls that were refused at least once, and calls that nobody served
served    calls served over those of a schedule that grows as fast as the provider allows
wait      seconds from a call's wish to its last attempt: mean and 99th percentile

`alone` retries with exponential backoff and full jitter, as SDKs do. The others acquire
first; a refused call is told, and acquires again. `breaker off` ignores the pause that the
provider asks for.
"""

import asyncio
import random
import statistics
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import redis
from harness import Report, Value, options, store

from limiter_service.engine.admission import Engine
from limiter_service.engine.refusals import Refusal
from limiter_service.provider_sim import SimOptions
from limiter_service.provider_sim.levels import Growth
from limiter_service.provider_sim.limits import Admitted, Refused
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.provider import Ask
from limiter_service.provider_sim.provider import Provider as Simulated
from limiter_wire import Acquire, Granted, Outcome, Settle

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from tests_support.replica import Replica
from tests_support.scripts import POOL

from limiter_service.simulation.virtual_time import run

RPM, START, FACTOR, SPAN = 1200, 20, 2.0, 10.0
RATE, PAUSE, ON_THE_WAY, TRIES, PATIENCE = 18.0, 60.0, 0.1, 8, 120.0
ACCOUNT = SimOptions(
    rpm=RPM,
    tpm=10**9,
    rules=Rules.OPENAI,
    acceleration=FACTOR,
    acceleration_start=START,
    acceleration_seconds=SPAN,
    latency=0.7,
    smoothing=0.0,
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What callers know of the provider; without `limit` each is alone."""

    name: str
    limit: bool = True
    ramp: str = ""
    breaker: bool = True


ROWS = (
    Row(name="alone", limit=False),
    Row(name="limit"),
    Row(name="limit, breaker off", breaker=False),
    Row(name="limit, ramp as the provider's", ramp="{start: 20, factor: 2, period: 10s}"),
    Row(name="limit, ramp with a margin", ramp="{start: 16, factor: 1.5, period: 10s}"),
)


class Fate(msgspec.Struct, frozen=True):
    """What became of one call: how often it was refused, when it was served, if ever."""

    wished: float
    refusals: int
    sent: float
    served: bool


class Replay:
    """The calls of one row."""

    def __init__(self, row: Row, engine: Engine, seed: int = 1) -> None:
        self._row, self._engine = row, engine
        self._provider, self._chance = Simulated(ACCOUNT), random.Random(seed)

    async def run(self, times: Sequence[float]) -> list[Fate]:
        """Every call at its time."""
        fates = await asyncio.gather(*(self._call(n, at) for n, at in enumerate(times)))
        await self._engine.passes.aclose()
        return list(fates)

    async def _call(self, number: int, at: float) -> Fate:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(at)
        sent = at
        for attempt in range(1, TRIES + 1):
            sent = loop.time()
            if self._row.limit:
                try:
                    served, sent = await self._shared(number, attempt)
                except Refusal:
                    return Fate(at, attempt - 1, sent, served=False)
            else:
                served = (await self._send())[0]
            if served:
                return Fate(at, attempt - 1, sent, served=True)
            if not self._row.limit:
                await asyncio.sleep(self._chance.uniform(0, min(20.0, 0.5 * 2.0**attempt)))
        return Fate(at, TRIES, sent, served=False)

    async def _shared(self, number: int, attempt: int) -> tuple[bool, float]:
        request = Acquire(
            resource=f"{POOL}/m",
            tokens=1,
            max_wait=PATIENCE,
            attempt=min(attempt, 2),
            request_id=f"{number}-{attempt}",
        )
        granted = await self._engine.acquire(request)
        assert isinstance(granted, Granted)
        sent = asyncio.get_running_loop().time()
        served, pause = await self._send()
        outcome = Outcome.SUCCESS if served else Outcome.RATE_LIMITED
        await self._engine.settle(Settle(lease=granted.lease, outcome=outcome, retry_after=pause))
        return served, sent

    async def _send(self) -> tuple[bool, float | None]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._chance.uniform(0, ON_THE_WAY))
        ask = Ask(input_tokens=1, max_output=1, output_tokens=1, rules=Rules.OPENAI)
        reply = self._provider.answer(ask, loop.time())
        if isinstance(reply.decision, Refused):
            await asyncio.sleep(self._chance.uniform(0, ON_THE_WAY))
            return False, reply.decision.retry_after
        assert isinstance(reply.decision, Admitted)
        running = self._provider.begin(reply, ask)
        await asyncio.sleep(reply.duration)
        self._provider.end(running, loop.time())
        return True, None


def wishes(seconds: float) -> list[float]:
    """When callers want a call: in two halves, with a pause between them."""
    chance, half, at = random.Random(7), (seconds - PAUSE) / 2, 0.0
    times: list[float] = []
    while (at := at + chance.expovariate(RATE)) < 2 * half:
        times.append(at if at < half else at + PAUSE)
    return times


def ideal(times: Sequence[float], seconds: float) -> int:
    """How many calls can be served by then, whoever orders them."""
    growth, waiting, served, now = Growth(START, FACTOR, SPAN), deque(times), 0, 0.0
    while waiting:
        now = max(now + 1 / (RPM / 60), waiting[0])
        now += growth.wait(1, now)
        if now >= seconds:
            break
        growth.take(1, now)
        waiting.popleft()
        served += 1
    return served


def config(row: Row) -> str:
    """The file of a row."""
    ramp = f", ramp: {row.ramp}" if row.ramp else ""
    limit = f"{{name: rpm, meter: requests, limit: {RPM}, per: minute, burst: 20{ramp}}}"
    return f"""
pools:
  {POOL}:
    models:
      m: {{limits: [{limit}]}}
    breaker: {{enabled: {str(row.breaker).lower()}}}
    queue: {{max_wait: {PATIENCE:.0f}s}}
"""


def replayed(client: redis.Redis, row: Row, seconds: float) -> dict[str, Value]:
    """The figures of one row."""
    client.flushall()
    times = wishes(seconds)

    async def story() -> list[Fate]:
        return await Replay(row, Replica(client, config(row)).engine).run(times)

    fates: list[Fate] = run(story())
    served = [fate for fate in fates if fate.served and fate.sent < seconds]
    refusals = sum(fate.refusals for fate in fates)
    waits = sorted(fate.sent - fate.wished for fate in served)
    return {
        "": row.name,
        "429s per 1,000": 1000 * refusals / (refusals + sum(fate.served for fate in fates)),
        "refused": sum(fate.refusals > 0 for fate in fates),
        "not served": sum(not fate.served for fate in fates),
        "served": len(served) / ideal(times, seconds),
        "mean wait": statistics.fmean(waits),
        "p99 wait": waits[int(0.99 * len(waits))],
    }


def main() -> None:
    """Run the rows one after the other."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=240.0, help="of virtual time, each row")
    parser.add_argument("--only", nargs="*", default=[], help="rows whose name contains this")
    given = parser.parse_args()
    report = Report(given.json)
    rows = [row for row in ROWS if not given.only or any(part in row.name for part in given.only)]
    with store(given.server) as where:
        found = [replayed(where.redis, row, given.seconds) for row in rows]
    report.table("refusals of growth", found)
    report.close()


if __name__ == "__main__":
    main()
