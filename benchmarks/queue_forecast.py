"""How good the forecast of the queue is, on recorded traffic in virtual time.

    python benchmarks/queue_forecast.py [--loads 0.8,1.15,2] [--seconds 1800] [--weights 1]

Calls of the traces (the conversation trace of the Azure inference dataset and the one of
Mooncake where they are at hand, else calls drawn like the former) come at their times to the
real engine over the real scripts, whose clock jumps from event to event: what else the machine
does changes no figure, and a second run prints the same. `queue_forecast_live.py` replays the
same through a real service and the SDK.

Calls come for one tenant per weight, each for one by chance. They reserve input and the most
that a model writes, run as long as an answer of that size takes, and settle what they used.
The limit is the load of the trace, in tokens used, over each of --loads. Callers wait up to
--max-wait, and calls go on for that long after the last one that is counted. Nothing is known
at the beginning of a load.

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
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import redis
from harness import Report, Value, options, quantile, say, store

from limiter_service.demo.workload import Call, generate, read_trace, within
from limiter_service.engine.refusals import Refusal
from limiter_service.simulation.virtual_time import run
from limiter_wire import Acquire, ErrorCode, Granted, Settle, Usage, Waiting

sys.path.append(str(Path(__file__).parents[1] / "tests"))

TRACES = Path(__file__).parents[2] / "shared/data/traces"
NAMES = {
    "conversation": "AzureLLMInferenceTrace_conv.csv",
    "mooncake": "mooncake_synthetic_trace.jsonl",
}
MAX_OUTPUT = 1024
FIRST_TOKEN, TOKENS_PER_SECOND = 0.5, 80.0  # of the provider
SHORT = 0.5  # seconds: a tenth of it is 50 ms


class Outcome(msgspec.Struct, frozen=True):
    """How one call fared; seconds. `p50` is None when it was granted at once."""

    ended: str
    tenant: str
    at: float
    wait: float = 0.0
    p50: float | None = None
    p90: float = 0.0


def config(
    tokens_per_second: float, capacity: float, weights: Sequence[float], pool: str = "bench"
) -> str:
    """A pool with this limit, and a tenant of each weight: t0, t1, and so on."""
    tenants = ", ".join(f"t{n}: {{weight: {weight:g}}}" for n, weight in enumerate(weights))
    return f"""
pools:
  {pool}:
    models:
      m:
        limits:
          - {{meter: tokens, limit: {tokens_per_second:.3f}, per: second, burst: {capacity:.0f},
              reserve: "sum(input, max_output)"}}
    tenants: {{{tenants}}}
    queue: {{max_waiters: 100000, max_wait: 1h}}
"""


class Scene(msgspec.Struct, frozen=True):
    """One load of one trace."""

    calls: Sequence[Call]
    pools: str
    tenants: int
    max_output: int
    max_wait: float


class Replay:
    """The calls of a scene against an engine."""

    def __init__(self, client: redis.Redis, scene: Scene) -> None:
        from tests_support.replica import Replica  # noqa: PLC0415  # once tests/ is in the path

        self._engine, self._scene = Replica(client, scene.pools).engine, scene
        self._chance = random.Random(1)

    async def run(self) -> list[Outcome]:
        """Make every call at its time, whatever became of the earlier ones."""
        loop = asyncio.get_running_loop()
        running: list[asyncio.Task[Outcome]] = []
        for number, call in enumerate(self._scene.calls):
            await asyncio.sleep(call.at - loop.time())
            tenant = f"t{self._chance.randrange(self._scene.tenants)}"
            running.append(asyncio.create_task(self._one(number, call, tenant)))
        outcomes = await asyncio.gather(*running)
        await self._engine.passes.aclose()
        return list(outcomes)

    async def _one(self, number: int, call: Call, tenant: str) -> Outcome:
        from tests_support.scripts import POOL  # noqa: PLC0415  # likewise

        seen: list[Waiting] = []
        at = asyncio.get_running_loop().time()
        request = Acquire(
            resource=f"{POOL}/m",
            input_tokens=call.input_tokens,
            max_output_tokens=self._scene.max_output,
            tenant=tenant,
            max_wait=self._scene.max_wait,
            request_id=str(number),
        )
        try:
            granted = await self._engine.acquire(request, None, seen.append)
        except Refusal as refusal:
            return _outcome(refusal.problem.code, tenant, at, self._scene.max_wait, seen)
        assert isinstance(granted, Granted)
        await asyncio.sleep(duration(call))
        used = Usage(input_tokens=call.input_tokens, output_tokens=call.output_tokens)
        await self._engine.settle(Settle(lease=granted.lease, usage=used))
        return _outcome("granted", tenant, at, granted.waited, seen)


async def replayed(client: redis.Redis, scene: Scene) -> list[Outcome]:
    """How every call of a scene fared."""
    return await Replay(client, scene).run()


def _outcome(ended: str, tenant: str, at: float, wait: float, seen: Sequence[Waiting]) -> Outcome:
    if not seen:
        return Outcome(ended, tenant, at)
    told = seen[0].queue
    return Outcome(ended, tenant, at, wait, told.predicted_wait, told.predicted_wait_p90)


def duration(call: Call) -> float:
    """How long the provider takes."""
    return FIRST_TOKEN + call.output_tokens / TOKENS_PER_SECOND


def row(load: float, outcomes: Sequence[Outcome]) -> dict[str, Value]:
    """One line of the table."""
    ended = {"granted", ErrorCode.WAIT_TIMEOUT}
    waits = [o for o in outcomes if o.p50 is not None and o.ended in ended]
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
    for code in (ErrorCode.WAIT_TOO_LONG, ErrorCode.WAIT_TIMEOUT):
        found[str(code)] = sum(o.ended == code for o in outcomes)
    return found


def traces(minutes: float, only: Path | None = None) -> dict[str, list[Call]]:
    """The first part of every trace that is at hand."""
    paths = {only.name: only} if only else {n: TRACES / file for n, file in NAMES.items()}
    found = {
        name: within(read_trace(path, random.Random(0)), minutes)
        for name, path in paths.items()
        if path.exists()
    }
    return found or {"drawn": generate(minutes, random.Random(0))}


def scene(
    calls: Sequence[Call], load: float, weights: Sequence[float], given: argparse.Namespace
) -> Scene:
    """These calls at this load."""
    from tests_support.scripts import POOL  # noqa: PLC0415  # likewise

    counted = [call for call in calls if call.at < given.seconds]
    used = sum(call.input_tokens + call.output_tokens for call in counted) / given.seconds
    most_written = max(MAX_OUTPUT, *(call.output_tokens for call in calls))
    largest, rate = max(call.input_tokens for call in calls) + most_written, used / load
    pools = config(rate, max(largest, rate * given.burst), weights, POOL)
    return Scene(calls, pools, len(weights), most_written, given.max_wait)


def main() -> None:
    """Start a store and measure every load of every trace."""
    parser = options(__doc__)
    parser.add_argument("--trace", type=Path, help="default: both")
    parser.add_argument("--loads", default="0.8,1.15,2")
    parser.add_argument("--weights", default="1", help="of the tenants; 1 is a single line")
    parser.add_argument("--seconds", type=float, default=1800.0, help="of each load")
    parser.add_argument("--burst", type=float, default=2.0, help="seconds of refill")
    parser.add_argument("--max-wait", type=float, default=50.0)
    given = parser.parse_args()
    report = Report(given.json)
    weights = [float(text) for text in given.weights.split(",")]
    for name, calls in traces((given.seconds + given.max_wait) / 60, given.trace).items():
        rows = []
        for load in map(float, given.loads.split(",")):
            say(f"{name}, {load:.0%} load: {len(calls)} calls")
            with store(given.server) as where:
                outcomes = run(replayed(where.redis, scene(calls, load, weights, given)))
            rows.append(row(load, [o for o in outcomes if o.at < given.seconds]))
        report.table(f"{name}: the first forecast of a wait against the wait", rows)
    report.close()


if __name__ == "__main__":
    main()
