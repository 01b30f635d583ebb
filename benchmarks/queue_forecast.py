"""How good the forecast of the queue is, on recorded traffic in compressed time.

    python benchmarks/queue_forecast.py [--loads 0.8,1.15,2] [--seconds 45] [--weights 1,1,2]

Calls of a trace (the conversation trace of the Azure inference dataset where it is at hand,
else calls drawn like it) come to a real service at their times, --speed times faster, for
one tenant per weight. They reserve input and 1,024 tokens of output, run as long as an answer
of that size takes, and settle what they used. The limit is the load of the trace, in tokens
used, over each of --loads. Callers wait up to --max-wait. Calls go on coming for that long
after the last one that is counted. Nothing is known at the beginning of a load.

Compared is what the first answer predicts with what the store says that the wait was; a wait
that ended in `wait_timeout` counts with the time that it had. The columns:

error      |p50 - wait| over the wait, or over 0.5 s where it was shorter: the median. Bar: 10 %,
           which is 50 ms for a short wait.
of wait    the same over the wait, however short
ms         |p50 - wait|, the median
p90 holds  the part of waits that were not longer than the p90. Bar: 88 to 92 %.
"""

import argparse
import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from harness import Report, Value, options, quantile, say, services, store

from client_sdk import Limiter, LimiterOptions, Progress, SluicegateError, WaitTimeout, WaitTooLong
from limiter_service.demo.workload import Call, generate, read_trace, within

TRACE = Path(__file__).parents[2] / "shared/data/traces/AzureLLMInferenceTrace_conv.csv"
MAX_OUTPUT = 1024
FIRST_TOKEN, TOKENS_PER_SECOND = 0.5, 80.0  # of the provider, in the time of the trace
SHORT = 0.5  # seconds: a tenth of it is 50 ms


class Outcome(msgspec.Struct, frozen=True):
    """How one call fared; seconds. `p50` is None when it was granted at once."""

    ended: str
    tenant: str
    at: float
    wait: float = 0.0
    p50: float | None = None
    p90: float = 0.0


def config(tokens_per_second: float, capacity: float, weights: Sequence[float]) -> str:
    """A pool with this limit, and a tenant of each weight: t0, t1, and so on."""
    tenants = ", ".join(f"t{n}: {{weight: {weight:g}}}" for n, weight in enumerate(weights))
    return f"""
pools:
  bench:
    models:
      m:
        limits:
          - {{meter: tokens, limit: {tokens_per_second:.3f}, per: second, burst: {capacity:.0f},
              reserve: "sum(input, max_output)"}}
    tenants: {{{tenants}}}
    queue: {{max_waiters: 100000}}
"""


class Replay:
    """The calls of a trace against a service."""

    def __init__(
        self, limiters: Sequence[Limiter], tenants: int, speed: float, max_wait: float
    ) -> None:
        self._limiters, self._tenants = limiters, tenants
        self._speed, self._max_wait = speed, max_wait
        self._chance = random.Random(1)
        self.began = 0.0

    async def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Make every call at its time, whatever became of the earlier ones."""
        self.began = time.monotonic()
        running: list[asyncio.Task[Outcome]] = []
        for number, call in enumerate(calls):
            due = self.began + (call.at - calls[0].at) / self._speed
            await asyncio.sleep(due - time.monotonic())
            tenant = f"t{self._chance.randrange(self._tenants)}"
            limiter = self._limiters[number % len(self._limiters)]
            running.append(asyncio.create_task(self._one(limiter, call, tenant)))
        return list(await asyncio.gather(*running))

    async def _one(self, limiter: Limiter, call: Call, tenant: str) -> Outcome:
        seen: list[Progress] = []
        at = time.monotonic() - self.began

        def note(progress: Progress) -> None:
            if not seen:
                seen.append(progress)

        def outcome(ended: str, wait: float) -> Outcome:
            if not seen:
                return Outcome(ended, tenant, at)
            first = seen[0]
            return Outcome(ended, tenant, at, wait, first.predicted_wait, first.predicted_wait_p90)

        try:
            async with limiter.acquire(
                "bench/m",
                input_tokens=call.input_tokens,
                max_output_tokens=MAX_OUTPUT,
                tenant=tenant,
                max_wait=self._max_wait,
                on_wait=note,
            ) as lease:
                await asyncio.sleep(
                    (FIRST_TOKEN + call.output_tokens / TOKENS_PER_SECOND) / self._speed
                )
                lease.used(input_tokens=call.input_tokens, output_tokens=call.output_tokens)
                return outcome("granted", lease.granted.waited)
        except WaitTimeout:
            return outcome("wait_timeout", self._max_wait)
        except WaitTooLong:
            return outcome("wait_too_long", self._max_wait)
        except SluicegateError as error:
            return outcome(type(error).__name__, self._max_wait)


def row(load: float, outcomes: Sequence[Outcome]) -> dict[str, Value]:
    """One line of the table."""
    waits = [o for o in outcomes if o.p50 is not None and o.ended in {"granted", "wait_timeout"}]
    pairs = [(o.p50 or 0.0, max(o.wait, 1e-3)) for o in waits]
    errors = [abs(p50 - wait) for p50, wait in pairs]
    found: dict[str, Value] = {"load": f"{load:.0%}", "calls": len(outcomes), "waited": len(waits)}
    found["wait p50 s"] = quantile([o.wait for o in waits], 0.5)
    found["wait p90 s"] = quantile([o.wait for o in waits], 0.9)
    allowed = [e / max(wait, SHORT) for e, (_, wait) in zip(errors, pairs, strict=True)]
    found["error"] = f"{quantile(allowed, 0.5):.1%}"
    of_wait = [e / wait for e, (_, wait) in zip(errors, pairs, strict=True)]
    found["of wait"] = f"{quantile(of_wait, 0.5):.1%}"
    found["ms"] = round(quantile(errors, 0.5) * 1000)
    found["p90 holds"] = f"{sum(o.wait <= o.p90 for o in waits) / max(1, len(waits)):.1%}"
    for ended in ("wait_too_long", "wait_timeout"):
        found[ended] = sum(o.ended == ended for o in outcomes)
    return found


def calls_of(given: argparse.Namespace) -> list[Call]:
    """The first part of the trace."""
    chance, minutes = random.Random(0), (given.seconds + given.max_wait) * given.speed / 60
    if given.trace.exists():
        say(f"calls of {given.trace.name}")
        return within(read_trace(given.trace, chance), minutes)
    say("no trace: calls drawn like those of the conversation trace")
    return generate(minutes, chance)


async def measure(
    urls: Sequence[str], calls: Sequence[Call], tenants: int, given: argparse.Namespace
) -> list[Outcome]:
    """Replay through an SDK client for each service; what counts."""
    async with contextlib.AsyncExitStack() as stack:
        patient = LimiterOptions(timeout=20.0, connect_timeout=10.0)
        limiters = [await stack.enter_async_context(Limiter(u, options=patient)) for u in urls]
        replay = Replay(limiters, tenants, given.speed, given.max_wait)
        return [o for o in await replay.run(calls) if o.at < given.seconds]


def main() -> None:
    """Start a store and measure every load."""
    parser = options(__doc__)
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--loads", default="0.8,1.15,2")
    parser.add_argument("--weights", default="1,1,2", help="of the tenants; 1 is a single line")
    parser.add_argument("--seconds", type=float, default=45.0, help="of each load")
    parser.add_argument("--speed", type=float, default=5.0)
    parser.add_argument("--burst", type=float, default=0.4, help="seconds of refill")
    parser.add_argument("--max-wait", type=float, default=10.0)
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--outcomes", type=Path, help="write every outcome there, as JSON")
    given = parser.parse_args()
    report = Report(given.json)
    weights = [float(text) for text in given.weights.split(",")]
    calls = calls_of(given)
    counted = [call for call in calls if call.at < given.seconds * given.speed]
    used = sum(call.input_tokens + call.output_tokens for call in counted) / given.seconds
    largest = max(call.input_tokens for call in calls) + MAX_OUTPUT
    rows, everything = [], {}
    for load in map(float, given.loads.split(",")):
        say(f"{load:.0%} load: {len(calls)} calls in {given.seconds + given.max_wait:g} s")
        rate = used / load
        pools = config(rate, max(largest, rate * given.burst), weights)
        with store(given.server) as where, services(where.url, pools, given.services) as them:
            urls = [each.url for each in them]
            outcomes = asyncio.run(measure(urls, calls, len(weights), given))
        everything[f"{load:g}"] = outcomes
        rows.append(row(load, outcomes))
    report.table("the first forecast of a wait against the wait", rows)
    if given.outcomes:
        given.outcomes.write_bytes(msgspec.json.encode(everything))
    report.close()


if __name__ == "__main__":
    main()
