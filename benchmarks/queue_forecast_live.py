"""The forecast of the queue on recorded traffic in compressed time, through a real service.

    python benchmarks/queue_forecast_live.py [--loads 0.8,1.15,2] [--seconds 45] [--weights 1,1,2]

As `queue_forecast.py`, which explains the columns, with two differences: the calls come through
the SDK to a real service, --speed times faster than they were recorded; and so the figures are
also those of the machine.
"""

import argparse
import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from harness import Report, options, say, services, store
from queue_forecast import MAX_OUTPUT, Outcome, config, duration, row, traces

from client_sdk import Limiter, LimiterOptions, Progress, SluicegateError, WaitTimeout, WaitTooLong
from limiter_service.demo.workload import Call


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
                await asyncio.sleep(duration(call) / self._speed)
                lease.used(input_tokens=call.input_tokens, output_tokens=call.output_tokens)
                return outcome("granted", lease.granted.waited)
        except WaitTimeout:
            return outcome("wait_timeout", self._max_wait)
        except WaitTooLong:
            return outcome("wait_too_long", self._max_wait)
        except SluicegateError as error:
            return outcome(type(error).__name__, self._max_wait)


def calls_of(given: argparse.Namespace) -> list[Call]:
    """The first part of the trace."""
    return next(
        iter(traces((given.seconds + given.max_wait) * given.speed / 60, given.trace).values())
    )


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
    parser.add_argument("--trace", type=Path, help="default: the conversation trace")
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
