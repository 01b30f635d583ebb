"""How the cost of an acquire grows: with processes, resources, tenants, limits and their kinds; and
what is kept.

    python benchmarks/scaling.py [--rounds 5] [--leases 100000] [--json FILE]

An engine in this process, with its connection to a real store: CPU is that of the engine
(getrusage) and of the store (INFO), for each acquire, 64 at a time. What is compared runs by turns
in every round. Memory of the store is what INFO says, and of the engine what the system has given
to the process. The first table is of whole service processes, each with a client of its own.

The queue from 0 to 100,000 waiters is in queue_scale.py.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvloop
from harness import (
    Replica,
    Report,
    Store,
    Value,
    cpu_of,
    free_port,
    options,
    own_cpu,
    say,
    services,
    store,
)
from versus.measuring import Case, Contestant, started

from limiter_service.store.keys import Keys
from limiter_wire import Acquire, Granted, Settle, Usage

AT_ONCE = 64
US, MIB = 1e6, 2**20
MANY = 1_000_000_000
PER = ("second", "minute", "hour", "day")
LIMITS = (1, 3, 6, 12)
_BUDGET = f"limits: [{{name: cost, meter: cost_usd, limit: {MANY}, per: day, window: calendar}}]"
_SHADOW = f"{{name: watched, meter: tokens, limit: {MANY}, per: hour, mode: shadow}}"
KINDS = {
    "buckets": ("", ""),
    "concurrency": (f", concurrency: {MANY}", ""),
    "budget": ("", _BUDGET),
    "both": (f", concurrency: {MANY}", _BUDGET),
    "shadow": (f", limits: [{_SHADOW}]", ""),
}
NAMED = {
    "buckets": "three buckets",
    "concurrency": "with concurrency",
    "budget": "with a budget of the pool a day",
    "both": "with both, as in the README",
    "shadow": "with a shadow limit",
}
RESOURCES, TENANTS = (1, 100, 10_000), (10, 1000, 100_000)
BUDGETS, USED = 100, Usage(input_tokens=60, output_tokens=20)


def config() -> str:
    """A pool for each table."""
    several = [
        f"{{name: l{n}, meter: {meter}, limit: {MANY}, per: {per}}}"
        for n, (meter, per) in enumerate(
            (meter, per) for meter in ("requests", "tokens", "input_tokens") for per in PER
        )
    ]
    models = "".join(f"      k{k}: {{limits: [{', '.join(several[:k])}]}}\n" for k in LIMITS)
    three = f"{{rpm: {MANY}, tpm: {MANY}, rpd: {MANY}}}"
    return f"""
pools:
  resources:
    models: {{"*": {three}}}
  tenants:
    models: {{m: {three}}}
    tenants: {{"*": {{weight: 1, tpm: {MANY}}}}}
  leases:
    models: {{m: {three}}}
  limits:
    models:
{models}
{_kinds()}"""


def _kinds() -> str:
    """A pool for each kind of limits: what all have, and what stands beside that."""
    text = ""
    for name, (of_model, of_pool) in KINDS.items():
        three = f"rpm: {MANY}, tpm: {MANY}, rpd: {MANY}"
        text += f"""
  {name}:
    models: {{"*": {{{three}{of_model}}}}}
    {of_pool}
    prices: {{"*": {{input: 2.5, output: 10}}}}
"""
    return text


Name = Callable[[int], dict[str, str]]
"""The resource, and the tenant, of the n-th acquire."""


class Bench:
    """An engine over a store, and what it costs."""

    def __init__(self, over: Store, replica: Replica) -> None:
        self.over, self._engine = over, replica.engine
        self._made = 0

    async def acquire(
        self, name: Name, numbers: Sequence[int], *, settled: bool = False
    ) -> tuple[float, float]:
        """One acquire for each of *numbers*, with its settle where it is *settled*: microseconds of
        the engine and of the store.
        """
        left = iter(numbers)
        before = own_cpu(), self.over.cpu()

        async def loop() -> None:
            for n in left:
                self._made += 1
                request = Acquire(**name(n), tokens=100, request_id=f"{self._made:032x}")
                granted = await self._engine.acquire(request)
                if settled:
                    assert isinstance(granted, Granted)
                    await self._engine.settle(Settle(lease=granted.lease, usage=USED))

        await asyncio.gather(*(loop() for _ in range(AT_ONCE)))
        spent = own_cpu() - before[0], self.over.cpu() - before[1]
        return spent[0] / len(numbers) * US, spent[1] / len(numbers) * US

    def forget_leases(self, pool: str) -> None:
        """Delete them, so that what is left is what an idle resource keeps."""
        pattern = Keys(pool).lease("default", "x").rpartition(":")[0] + ":*"
        pipeline = self.over.redis.pipeline(transaction=False)
        for key in self.over.redis.scan_iter(match=pattern, count=1000):
            pipeline.delete(key)
        pipeline.execute()


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def names(
    bench: Bench, pool: str, what: str, counts: Sequence[int], name: Name, asked: argparse.Namespace
) -> list[dict[str, Value]]:
    """What *counts* of something cost, and what each of them keeps."""
    kept: dict[int, tuple[float, float]] = {}
    known, chance = 0, random.Random(7)
    for count in counts:
        before = bench.over.memory(), resident()
        await bench.acquire(name, range(known, count))
        bench.forget_leases(pool)
        more = max(1, count - known)
        kept[count] = (bench.over.memory() - before[0]) / more, (resident() - before[1]) / more
        known = count
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for _ in range(asked.rounds):
        for count, samples in found.items():
            numbers = [chance.randrange(count) for _ in range(asked.calls)]
            samples.append(await bench.acquire(name, numbers))
    return [
        {
            "": f"{count:,} {what}",
            **_costs(samples, found[counts[0]]),
            "store bytes each": round(kept[count][0]) if count == counts[-1] else "",
            "engine bytes each": round(kept[count][1]) if count == counts[-1] else "",
        }
        for count, samples in found.items()
    ]


def _costs(
    samples: Sequence[tuple[float, float]], first: Sequence[tuple[float, float]]
) -> dict[str, Value]:
    """Medians, and how often the first row they are, within rounds."""
    engine, over = (statistics.median(column) for column in zip(*samples, strict=True))
    pairs = list(zip(samples, first, strict=True))
    return {
        "engine us": engine,
        "store us": over,
        "engine x": statistics.median(a[0] / b[0] for a, b in pairs),
        "store x": statistics.median(a[1] / b[1] for a, b in pairs),
    }


async def limits(bench: Bench, asked: argparse.Namespace) -> list[dict[str, Value]]:
    """Limits that one decision meets."""

    def name(k: int) -> Name:
        return lambda _: {"resource": f"limits/k{k}"}

    found: dict[int, list[tuple[float, float]]] = {k: [] for k in LIMITS}
    for _ in range(asked.rounds):
        for k, samples in found.items():
            samples.append(await bench.acquire(name(k), range(asked.calls)))
    return [
        {"": f"{k} limits", **_costs(samples, found[LIMITS[0]])} for k, samples in found.items()
    ]


async def kinds(bench: Bench, asked: argparse.Namespace) -> list[dict[str, Value]]:
    """Kinds of limits that one decision meets, over 100 budgets: an acquire, and one with its
    settle.
    """

    def name(kind: str) -> Name:
        return lambda n: {"resource": f"{kind}/m{n % BUDGETS}"}

    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    whole: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for _ in range(asked.rounds):
        for kind in KINDS:
            found[kind].append(await bench.acquire(name(kind), range(asked.calls)))
            whole[kind].append(await bench.acquire(name(kind), range(asked.calls), settled=True))
            bench.forget_leases(kind)
    return [
        {"": f"{named}{more}", **_costs(samples[kind], samples["buckets"])}
        for more, samples in (("", found), (", settled", whole))
        for kind, named in NAMED.items()
    ]


async def leases(bench: Bench, asked: argparse.Namespace) -> list[dict[str, Value]]:
    """What leases keep in the store, at the beginning and at the end."""
    rows: list[dict[str, Value]] = []
    tenth = max(1, asked.leases // 10)
    before = start = bench.over.memory()
    for part in range(10):
        await bench.acquire(lambda _: {"resource": "leases/m"}, range(tenth))
        if part in {0, 9}:
            each = (bench.over.memory() - start) / ((part + 1) * tenth)
            last = (bench.over.memory() - before) / tenth
            rows.append(
                {
                    "": f"{(part + 1) * tenth:,} leases",
                    "MiB": (bench.over.memory() - start) / MIB,
                    "bytes each": round(each),
                    "bytes each, the last tenth": round(last),
                    "1 M would take, MiB": round(each * 1e6 / MIB),
                }
            )
        before = bench.over.memory()
    return rows


@contextlib.contextmanager
def pairs(port: int) -> Iterator[list[Contestant]]:
    """Two service processes that share a store, and a client of each."""
    text = f'pools: {{bench: {{models: {{"*": {{rpm: {MANY}, tpm: {MANY}, rpd: {MANY}}}}}}}}}'
    with services(f"redis://127.0.0.1:{port}", text, 2) as them:
        cases = [
            Case(
                name=f"{n}",
                python=Path(sys.executable),
                module="ours",
                contestant="channel",
                url=each.url,
                serves=(each.pid,),
            )
            for n, each in enumerate(them)
        ]
        with started(cases) as clients:
            yield clients


def processes(over: Store, port: int, asked: argparse.Namespace) -> list[dict[str, Value]]:
    """One service with its client, and two at once."""
    found: dict[int, list[tuple[float, ...]]] = {1: [], 2: []}
    with pairs(port) as clients:
        for each in clients:
            each.run(over, {"width": 8, "seconds": 0.3})
        for _ in range(asked.rounds):
            for count, samples in found.items():
                samples.append(_at_once(over, clients[:count], asked.seconds))
    rows: list[dict[str, Value]] = []
    for count, samples in found.items():
        rate, client, service, spent = (statistics.median(c) for c in zip(*samples, strict=True))
        more = [a[0] / b[0] for a, b in zip(samples, found[1], strict=True)]
        dearer = [sum(a[1:]) / sum(b[1:]) for a, b in zip(samples, found[1], strict=True)]
        rows.append(
            {
                "": f"{count} service processes",
                "acquires/s": round(rate),
                "client us": client,
                "service us": service,
                "store us": spent,
                "rate x": statistics.median(more),
                "CPU x": statistics.median(dearer),
            }
        )
    return rows


def _at_once(over: Store, clients: Sequence[Contestant], seconds: float) -> tuple[float, ...]:
    """Acquires a second of all, and microseconds of clients, services and store for each."""
    serves = [pid for each in clients for pid in each.case.serves]
    before = over.cpu(), sum(map(cpu_of, serves))
    for each in clients:
        each.begin({"width": AT_ONCE, "seconds": seconds})
    ended = [each.end() for each in clients]
    count = sum(found["count"] for found in ended)
    spent = sum(found["cpu"] for found in ended), sum(map(cpu_of, serves)) - before[1]
    rate = sum(found["count"] / found["elapsed"] for found in ended)
    store_spent = over.cpu() - before[0]
    return rate, *(each / count * US for each in (*spent, store_spent))


async def measure(over: Store, asked: argparse.Namespace, report: Report) -> None:
    """The tables of one engine."""
    replica = Replica(over.url, config())
    bench = Bench(over, replica)
    try:
        say("limits")
        report.table(f"{over.name}: limits that a decision meets", await limits(bench, asked))
        say("kinds")
        report.table(f"{over.name}: kinds of limits", await kinds(bench, asked))
        say("resources")
        rows = await names(
            bench,
            "resources",
            "resources of three limits",
            RESOURCES,
            lambda n: {"resource": f"resources/m{n}"},
            asked,
        )
        report.table(f"{over.name}: resources", rows)
        say("tenants")
        rows = await names(
            bench,
            "tenants",
            "tenants with a limit each",
            [n for n in TENANTS if n <= asked.tenants],
            lambda n: {"resource": "tenants/m", "tenant": f"t{n}"},
            asked,
        )
        report.table(f"{over.name}: tenants", rows)
        say("leases")
        report.table(f"{over.name}: leases that nobody has settled", await leases(bench, asked))
    finally:
        await replica.engine.passes.aclose()
        await replica.client.aclose()


def main() -> None:
    """Measure."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10_000, help="acquires in each round")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a run of processes")
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=100_000, help="the most")
    asked = parser.parse_args()
    report = Report(asked.json)
    port = free_port()
    with store(asked.server, port=port) as over:
        say(f"on {over.name}: processes")
        report.table(f"{over.name}: processes", processes(over, port, asked))
        over.redis.flushdb()
        uvloop.run(measure(over, asked, report))
    report.close()


if __name__ == "__main__":
    main()
