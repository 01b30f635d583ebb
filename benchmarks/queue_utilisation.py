"""How much of a limit is granted at 150 % load, and whether a provider would ever refuse.

    python benchmarks/queue_utilisation.py [--seconds 45] [--load 1.5] [--services 2]

Service processes over one store, SDK callers that wait up to 10 s, and the provider simulator
with a matching limit. Calls reserve input and max output, use about two thirds of it, and
settle what they used: the rest comes back while others wait.

granted    charges less what came back, over what the limit refills, from the moment that
           the first burst is used. From the books: every lease as the store keeps it, by the
           store's own clock. Bar: 98 %.
overshoot  the most tokens over capacity + refill that were out in any span of time, from
           the same books. Bar: none.
429s       refusals by the simulator, which counts the real usage of a call when it comes
           in, by rules of its own. Bar: none.
"""

import argparse
import asyncio
import contextlib
import math
import random
import struct
import time
from collections import Counter
from collections.abc import Sequence
from typing import cast

import httpx
import msgspec
from harness import Report, Store, options, say, services, sluicegate, store

from client_sdk import Limiter, LimiterOptions, SluicegateError

SPEED = 10  # the provider's minutes last 6 s
TPM = 90_000
RATE = TPM / 60 * SPEED
# Calls may come to the provider closer together than they were granted (demo/plan).
CAPACITY = TPM - 0.05 * RATE
MAX_OUTPUT = 600
WAIT = 10.0
MICRO = 1_000_000
CONFIG = f"""
pools:
  bench:
    remember: 10m
    models:
      m:
        limits:
          - {{meter: tokens, limit: {TPM}, per: {60 / SPEED:g}s, burst: {CAPACITY:.0f},
              reserve: "sum(input, max_output)"}}
    queue: {{max_waiters: 100000}}
"""


class Call(msgspec.Struct, frozen=True):
    """What a call sends and what comes back."""

    input: int
    output: int


def draw(chance: random.Random) -> Call:
    """Sizes as of a chat service, cut where the simulator would."""
    size = round(min(4000, chance.lognormvariate(6.2, 0.7)))
    return Call(max(1, size), round(min(MAX_OUTPUT, 1 + chance.expovariate(1 / 230))))


MEAN = sum(each.input + each.output for each in map(draw, [random.Random(0)] * 5000)) / 5000


class Entry(msgspec.Struct, frozen=True):
    """One change of the bucket in the books: microseconds and tokens; negative comes back."""

    at: float
    tokens: float


def books(where: Store) -> list[Entry]:
    """Every grant and settle in order, from the leases (docs/data-model)."""
    entries = []
    for key in where.redis.scan_iter(match="sg:{bench}:l:*", count=1000):
        text = cast("bytes", where.redis.get(key))
        numbers = struct.unpack(f"<{len(text) // 8}d", text)
        settled, charge, granted, skew = numbers[5], numbers[9], numbers[12], numbers[13]
        entries.append(Entry(granted - skew, charge))
        if settled:
            entries.append(Entry(settled, numbers[-1]))
    return sorted(entries, key=lambda entry: entry.at)


def overshoot(entries: Sequence[Entry]) -> float:
    """The most that any span of time took beyond capacity and refill, at least 0."""
    out, lowest, most = 0.0, math.inf, 0.0
    for entry in entries:
        refilled = RATE * (entry.at - entries[0].at) / MICRO
        lowest = min(lowest, out - refilled)
        out += entry.tokens
        most = max(most, out - refilled - lowest)
    return max(0.0, round(most - CAPACITY, 3))


async def call(limiter: Limiter, provider: httpx.AsyncClient, what: Call) -> str:
    """Acquire, call, settle; how it ended."""
    try:
        async with limiter.acquire(
            "bench/m", input_tokens=what.input, max_output_tokens=MAX_OUTPUT, max_wait=WAIT
        ) as lease:
            answer = await provider.post(
                "/v1/chat/completions",
                json={
                    "model": "m",
                    "messages": [{"role": "user", "content": "Say something."}],
                    "max_tokens": MAX_OUTPUT,
                },
                headers={
                    "x-sim-input-tokens": str(what.input),
                    "x-sim-output-tokens": str(what.output),
                },
            )
            lease.used(input_tokens=what.input, output_tokens=what.output)
            return str(answer.status_code)
    except SluicegateError as error:
        return type(error).__name__


async def offer(urls: Sequence[str], provider: str, load: float, seconds: float) -> Counter[str]:
    """Make calls at random times, as many as are *load* times the limit; how they ended."""
    chance = random.Random(1)
    async with contextlib.AsyncExitStack() as stack:
        patient = LimiterOptions(timeout=20.0, connect_timeout=10.0)
        limiters = [await stack.enter_async_context(Limiter(u, options=patient)) for u in urls]
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=provider, timeout=30))
        calls: list[asyncio.Task[str]] = []
        due = began = time.monotonic()
        while due < began + seconds:
            what = draw(chance)
            calls.append(asyncio.create_task(call(limiters[len(calls) % len(urls)], http, what)))
            due += chance.expovariate(load * RATE / MEAN)
            await asyncio.sleep(due - time.monotonic())
            if len(calls) % 200 == 0:
                say(f"{len(calls)} calls, {sum(not each.done() for each in calls)} under way")
        return Counter(await asyncio.gather(*calls))


def measure(where: Store, report: Report, given: argparse.Namespace) -> None:
    """Offer the load, then read the books."""
    account = ["--tpm", str(TPM), "--rpm", "1000000", "--charge", "actual"]
    with (
        services(where.url, CONFIG, given.services) as them,
        sluicegate("provider-sim", *account, "--speed", str(SPEED)) as sim,
    ):
        # A worker of its own at each service, and again: callers are many processes.
        urls = [each.url for each in them] * 2
        warm = CAPACITY / (RATE * (given.load - 1)) + WAIT
        say(f"{given.load:.0%} load for {warm + given.seconds:.0f} s")
        endings = asyncio.run(offer(urls, sim.url, given.load, warm + given.seconds))
        stats = httpx.get(f"{sim.url}/sim/stats").json()
    entries = books(where)
    began = entries[0].at + warm * MICRO
    span = [e for e in entries if began <= e.at < began + given.seconds * MICRO]
    report.table(
        f"utilisation at {given.load:.0%} load",
        [
            {
                "seconds": given.seconds,
                "granted / limit": sum(e.tokens for e in span) / (RATE * given.seconds),
                "bar": 0.98,
                "came back": -sum(e.tokens for e in span if e.tokens < 0)
                / sum(e.tokens for e in span if e.tokens > 0),
                "overshoot tokens": overshoot(entries),
                "429s": stats["refused"],
            }
        ],
    )
    report.table("how calls ended", [{"": name, "calls": n} for name, n in endings.most_common()])


def main() -> None:
    """Start a store and measure."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="measured, after the burst")
    parser.add_argument("--load", type=float, default=1.5)
    parser.add_argument("--services", type=int, default=2)
    given = parser.parse_args()
    report = Report(given.json)
    with store(given.server) as where:
        say(f"{where.name}, {given.services} services")
        measure(where, report, given)
    report.close()


if __name__ == "__main__":
    main()
