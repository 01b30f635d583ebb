"""Whether `sluicegate simulate` says what happens: against the same calls in real time.

    python benchmarks/simulate_agrees.py [--provider azure] [--load 150] [--seconds 300]

The real-time side is that of rate_limit_errors.py: worker processes make the calls of a trace
through the SDK and a real service against the provider simulator, in compressed time. The other
side is the same pools file in full time, replayed in virtual time as the command does it.

Compared are the mean wait, its 99th percentile, and the share of the limit that is used while
more is asked for than it allows. Bar: 2 % of difference in the mean wait and the share.

Real time has what virtual time has not: the machine. At --speed 10 a call that takes 10 ms from
the grant to the provider is 100 ms late in the figures, so the waits have to be long against
that, and the machine idle otherwise.
"""

import asyncio
import random
import sys

from harness import Report, options, say, services, sluicegate, store
from rate_errors import pools
from rate_errors.figures import Figures, figures, ideal_waits, saturated
from rate_errors.ideal import schedule
from rate_errors.messages import Ending, Finished, Strategy
from rate_errors.providers import MAX_OUTPUT, PROVIDERS
from rate_errors.run import Say, run, simulator_words
from rate_errors.worker import PATIENCE, POOL
from rate_limit_errors import TRACE

from limiter_service.config import parse
from limiter_service.demo.workload import generate, read_trace, within
from limiter_service.simulation.replay import Scene, replay
from limiter_service.simulation.trace import Call

BAR = 0.02


def main() -> None:
    """Run both sides and print the difference."""
    parser = options(__doc__)
    parser.add_argument("--provider", default="azure", help=f"of {', '.join(PROVIDERS)}")
    parser.add_argument("--load", type=float, default=150.0, help="percent of the limit")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the trace")
    parser.add_argument("--speed", type=float, default=10.0, help="of the real-time side")
    parser.add_argument("--workers", type=int, default=4, help="processes")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    report, chance = Report(given.json), random.Random(given.seed)
    recorded = read_trace(TRACE, chance) if TRACE.exists() else generate(20, chance)
    calls = within(recorded, given.seconds / 60)
    provider, load = PROVIDERS[given.provider], given.load / 100
    limits = provider.limits(calls, load)
    simulated = provider.simulated(limits, speed=given.speed, seed=given.seed)
    demands = provider.demands(calls, simulated)
    starts = schedule(demands, provider.windows(limits, False))
    span = saturated(demands, starts) if load > 1 else None

    def told(finished: list[Finished]) -> Figures:
        return figures(
            Strategy.NATIVE,
            demands,
            finished,
            per_minute=provider.per_minute(limits),
            span=span,
        )

    with store(given.server) as where:
        say(f"{len(calls)} calls in virtual time")
        config = parse(pools.native(provider, limits, 1), ".yaml")
        scene = Scene(
            calls=[
                Call(at=c.at, input_tokens=c.input_tokens, output_tokens=c.output_tokens)
                for c in calls
            ],
            resource=f"{POOL}/{provider.model}",
            max_wait=PATIENCE,
            max_output=MAX_OUTPUT,
        )
        ended = replay(where.url, config, None, scene, lambda _done: None)
        virtual = told([_finished(each.number, each.sent) for each in ended])
        where.redis.flushall()
        say("and in real time")
        text = pools.native(provider, limits, given.speed)
        with (
            sluicegate("provider-sim", *simulator_words(simulated)) as simulator,
            services(where.url, text, 1) as them,
        ):
            real = told(
                asyncio.run(
                    run(
                        calls,
                        provider=given.provider,
                        strategy=Strategy.NATIVE,
                        workers=given.workers,
                        simulator=simulator.url,
                        services=[each.url for each in them],
                        store=where.url.removeprefix("unix://"),
                        allowed={},
                        speed=given.speed,
                        seed=given.seed,
                        say=Say("real time", say),
                    )
                )
            )
    rows = [_row("virtual time", virtual), _row("real time", real)]
    rows.append({"": "ideal schedule", "mean wait s": f"{ideal_waits(demands, starts).mean:.2f}"})
    title = f"{provider.title} at {load:.0%}, {len(calls):,} calls in {given.seconds:g} s"
    report.table(title, [{**dict.fromkeys(rows[0], ""), **row} for row in rows])
    report.close()
    apart = {
        "mean wait": _apart(virtual.waits.mean, real.waits.mean),
        "used": _apart(virtual.used or 0.0, real.used or 0.0),
    }
    for name, share in apart.items():
        print(f"{name}: {share:.2%} apart, at most {BAR:.0%}")
    sys.exit(1 if max(apart.values()) > BAR else 0)


def _finished(number: int, sent: float | None) -> Finished:
    return Finished(
        number=number,
        sent=sent or 0.0,
        ending=Ending.SUCCEEDED if sent is not None else Ending.GIVEN_UP,
        attempts=1,
        refusals=0,
        for_tokens=0,
        first_refused=False,
    )


def _row(name: str, found: Figures) -> dict[str, str]:
    used = "-" if found.used is None else f"{found.used:.2%}"
    waits = found.waits
    return {
        "": name,
        "mean wait s": f"{waits.mean:.2f}",
        "p99 s": f"{waits.p99:.2f}",
        "longest s": f"{waits.longest:.2f}",
        "used": used,
        "429s": str(found.refused),
        "given up": str(found.given_up),
    }


def _apart(one: float, other: float) -> float:
    return abs(one - other) / max(abs(other), 1e-9)


if __name__ == "__main__":
    main()
