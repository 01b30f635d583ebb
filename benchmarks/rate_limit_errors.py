"""How many 429s callers still see, and how much of their quota they use, by provider and load.

    python benchmarks/rate_limit_errors.py            everything: five providers, three loads
    python benchmarks/rate_limit_errors.py --brief    three providers at 150 %, about a minute

Calls of a recorded trace are replayed by worker processes against the provider simulator,
which counts as each provider does. A load of 115 % means that all calls together would be
charged 1.15 times the provider's headline limit of tokens, in the provider's own currency.
Requests per minute go with the tokens as in published ceilings, and are enforced by the second
where the provider's profile says so. Four ways to keep within the limits:

none              no limiter: the retries of the provider's official SDK alone, by its
                  documented policy (the SDKs themselves are not run)
fixed minute      counters per minute in a shared store, with the provider's charges
wrong accounting  Sluicegate without a provider: buckets of a minute, input + max_tokens held,
                  what is not used comes back, one limit of tokens; no circuit
sluicegate        a pool that names the provider, so that its preset shapes the limits

Time is compressed: at --speed 10 one real second is ten of the workload. All of it is
compressed alike: arrivals, the simulator's refill, windows, answers and hints of when to come
back, the SDK's pauses, and the periods of the limiter's limits. Limits are shaped for real minutes
first, and then each period is divided, so a second's burst stays a second's burst. What is not
compressed is the machine: 10 ms between a grant and the call count as 100 ms of the workload. A
lower speed is therefore truer, and a higher one is harder on every limiter.

first 429 %  calls whose first attempt was refused
429s         refusals of all attempts; those for tokens are not for requests
used %       tokens charged, of the limit of tokens that is used most, while the ideal schedule
             has calls waiting; over 100 where a bucket that was full is emptied
wait         from when a call was due until its last attempt left, of those that succeeded
x ideal      mean wait over that of the ideal schedule: every call in order of arrival, as early
             as no limit is broken, computed beforehand. Where a provider counts in windows with
             edges that nobody outside sees, it keeps to the limit in every period; with the
             edges known it could do better, which is shown as well.

Bars of sluicegate: at most 0.1 % of requests refused, at most 1 % of the refusals without a
limiter, at least 97 % used, mean, 99th percentile and longest wait at most 1.1 times the ideal
and one second, nobody given up. The status is 1 when one is missed.
"""

import argparse
import asyncio
import contextlib
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import Report, Store, options, say, services, sluicegate, store
from rate_errors import pools
from rate_errors.figures import (
    Figures,
    figures,
    ideal_row,
    ideal_waits,
    misses,
    row,
    saturated,
)
from rate_errors.ideal import schedule
from rate_errors.messages import Strategy
from rate_errors.providers import ALL, PROVIDERS
from rate_errors.run import WORKER, Say, run, simulator_words
from rate_errors.worker import main as work

from limiter_service.demo.workload import Call, generate, read_trace, within

_TRACES = Path(__file__).parents[1].parent / "shared" / "data" / "traces"
TRACE = _TRACES / "AzureLLMInferenceTrace_conv.csv"
BRIEF = {"providers": "azure,anthropic,bedrock", "loads": "150", "seconds": 100.0, "speed": 20.0}
FULL = {"providers": ",".join(ALL), "loads": "80,115,150", "seconds": 600.0, "speed": 10.0}


class Bench:
    """What all cases have in common."""

    def __init__(self, given: argparse.Namespace, calls: Sequence[Call], where: Store) -> None:
        self.given, self.calls, self.store = given, calls, where
        self.report = Report(given.json)
        self.missed: list[str] = []

    def case(self, name: str, load: float, strategies: Sequence[Strategy]) -> None:
        """One provider under one load, by every strategy."""
        provider = PROVIDERS[name]
        given, title = self.given, f"{provider.title} at {load:.0%}"
        limits = provider.limits(self.calls, load)
        options = provider.simulated(limits, speed=given.speed, seed=given.seed)
        demands = provider.demands(self.calls, options)
        starts = schedule(demands, provider.windows(limits, False))
        ideal, span = ideal_waits(demands, starts), saturated(demands, starts)
        known = ideal_waits(demands, schedule(demands, provider.windows(limits, True)))
        found: dict[Strategy, Figures] = {}
        with sluicegate("provider-sim", *simulator_words(options)) as simulator:
            for strategy in strategies:
                with self._services(provider, strategy, limits) as urls:
                    finished = asyncio.run(
                        run(
                            self.calls,
                            provider=name,
                            strategy=strategy,
                            workers=given.workers,
                            simulator=simulator.url,
                            services=urls,
                            store=self.store.url.removeprefix("unix://"),
                            allowed={"requests": limits.rpm, **provider.per_minute(limits)},
                            speed=given.speed,
                            seed=given.seed,
                            say=Say(f"{title}, {strategy}", say),
                        )
                    )
                found[strategy] = figures(
                    strategy,
                    demands,
                    finished,
                    per_minute=provider.per_minute(limits),
                    span=span if load > 1 else None,
                )
                for problem in found[strategy].problems:
                    say(f"{title}, {strategy}: {problem}")
        rows = [row(each, ideal) for each in found.values()]
        rows.append(ideal_row("ideal", ideal))
        if known != ideal:
            rows.append(ideal_row("ideal, edges known", known))
        figures_of = ", ".join(f"{m} {n:,}" for m, n in limits.tokens.items())
        self.report.table(f"{title} ({limits.rpm:,} requests, {figures_of} per minute)", rows)
        if native := found.get(Strategy.NATIVE):
            missed = misses(native, found.get(Strategy.NONE), ideal)
            self.missed += [f"{title}: {each}" for each in missed]

    @contextlib.contextmanager
    def _services(self, provider, strategy, limits):
        """The URLs of fresh services where *strategy* needs them."""
        self.store.redis.flushall()
        make = {Strategy.NATIVE: pools.native, Strategy.NAIVE: pools.naive}.get(strategy)
        if make is None:
            yield []
            return
        config = make(provider, limits, self.given.speed)
        with services(self.store.url, config, self.given.services) as them:
            yield [each.url for each in them]


def workload(given: argparse.Namespace) -> tuple[str, list[Call]]:
    """The calls, and whose they are."""
    chance = random.Random(given.seed)
    minutes = given.seconds / 60
    trace = given.trace or (TRACE if TRACE.exists() else None)
    if trace is None:
        return "a chat service (drawn: no trace at hand)", generate(minutes, chance)
    return trace.name, within(read_trace(trace, chance), minutes)


def wishes() -> argparse.Namespace:
    """The options."""
    parser = options(__doc__)
    parser.add_argument("--brief", action="store_true", help="a minute's worth, see above")
    parser.add_argument(
        "--providers", help=f"of {', '.join(PROVIDERS)}; default: {FULL['providers']}"
    )
    parser.add_argument("--loads", help=f"percent of the limit; default: {FULL['loads']}")
    parser.add_argument("--strategies", help="default: all; with --brief none and sluicegate")
    parser.add_argument("--seconds", type=float, help="of the trace; default: 600")
    parser.add_argument("--speed", type=float, help="default: 10")
    parser.add_argument("--workers", type=int, default=4, help="processes; default: 4")
    parser.add_argument("--services", type=int, default=1, help="replicas; default: 1")
    parser.add_argument("--trace", type=Path, help=f"default: {TRACE.name} beside the checkout")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for name, value in (BRIEF if given.brief else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    for name in given.providers.split(","):
        if name not in PROVIDERS:
            parser.error(f"--providers: {name!r} is not one of {', '.join(PROVIDERS)}")
    if given.strategies is None:
        given.strategies = "none,sluicegate" if given.brief else ",".join(Strategy)
    return given


def main() -> None:
    """Start a store and compare."""
    given = wishes()
    source, calls = workload(given)
    strategies = [Strategy(name) for name in given.strategies.split(",")]
    loads = [float(load) / 100 for load in given.loads.split(",")]
    names = given.providers.split(",")
    with store(given.server) as where:
        bench = Bench(given, calls, where)
        print(
            f"{len(calls):,} calls of {source} in {given.seconds:g} s, {given.workers} workers,"
            f" {given.services} services, {given.speed:g} times faster, {where.name}"
        )
        for name in names:
            for load in loads:
                say(f"{name} at {load:.0%}")
                bench.case(name, load, strategies)
        bench.report.close()
    if Strategy.NATIVE in strategies:
        print("\nBars missed:" if bench.missed else "\nNo bar is missed.")
        for text in bench.missed:
            print(f"  {text}")
    sys.exit(1 if bench.missed else 0)


if __name__ == "__main__":
    work() if sys.argv[1:] == [WORKER] else main()
