"""What a change brings from one end to the other: another checkout and this one, by turns.

    python benchmarks/against.py CHECKOUT [--rounds 5] [--seconds 1] [--server redis-server]
                                 [--limits buckets readme tenant] [--json FILE]

Each has a service of its own, from its own environment (`make ready` in CHECKOUT makes it), and
callers with its own SDK; they use one store, which is emptied before each run. They run by turns in
every round, and ratios are taken within a round, since other work of a machine makes both slower.
`--limits`: three buckets; with concurrency and a budget a day, as in the README; with a limit of
the tenant's own. CPU is of callers, service and store together.
"""

import argparse
import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from harness import Report, Value, free_port, options, python_of, say, services, store
from versus.measuring import MS, Case, Field, by_turns, median, ratios, spread, started

HERE = Path(__file__).resolve().parent.parent
WAYS = {
    "channel": (1, 64, 512),
    "channel, one budget": (64,),
    "channel, settled": (64,),
    "batches": (64,),
    "batches, settled": (64,),
}
_MODELS = '"*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000'
CONFIGS = {
    "buckets": f"""
pools:
  bench:
    models: {{{_MODELS}}}}}
""",
    "readme": f"""
pools:
  bench:
    limits:
      - {{name: daily-cost, meter: cost_usd, limit: 20000000, per: day, window: calendar}}
    models: {{{_MODELS}, concurrency: 1000000}}}}
    prices: {{"*": {{input: 2.5, output: 10}}}}
""",
    "tenant": f"""
pools:
  bench:
    models: {{{_MODELS}}}}}
    tenants:
      default: {{tpm: 1000000000}}
""",
}


@contextlib.contextmanager
def sides(there: Path, limits: str, url: str) -> Iterator[list[Case]]:
    """What calls, and whom: each way of the other checkout beside the same way of this one."""
    with contextlib.ExitStack() as stack:
        served = {
            side: (place, stack.enter_context(services(url, CONFIGS[limits], 1, place))[0])
            for side, place in (("before", there), ("now", HERE))
        }
        yield [
            Case(
                name=f"{side}: {way}",
                python=python_of(place),
                module="ours",
                contestant=way,
                url=service.url,
                serves=(service.pid,),
                widths=frozenset(widths),
            )
            for way, widths in WAYS.items()
            if limits == "buckets" or way in {"channel", "channel, settled"}
            for side, (place, service) in served.items()
        ]


def rows(found: Field) -> list[dict[str, Value]]:
    """Both sides of each way, and how many times as many, as dear, the second is."""
    table: list[dict[str, Value]] = []
    for (name, width), now in found.items():
        side, _, way = name.partition(": ")
        if side == "now":
            before = found[f"before: {way}", width]
            table.append(
                {
                    "": f"{way}, {width}",
                    "calls/s before": round(median(before, "rate")),
                    "now": round(median(now, "rate")),
                    "rate, times": spread(ratios(now, before, "rate")),
                    "CPU us before": median(before, "total"),
                    "CPU us now": median(now, "total"),
                    "CPU, times": spread(ratios(now, before, "total")),
                    "p50 ms before": median(before, "p50") * MS,
                    "p50 ms now": median(now, "p50") * MS,
                    "failed": sum(each.failed for each in (*before, *now)),
                }
            )
    return table


def main() -> None:
    """Measure."""
    parser = options(__doc__)
    parser.add_argument("checkout", type=Path, help="where the other state is, made ready")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each run (default: 1)")
    parser.add_argument("--limits", nargs="+", choices=CONFIGS, default=[*CONFIGS])
    asked: argparse.Namespace = parser.parse_args()
    there = asked.checkout.resolve()
    if not python_of(there).exists() or not python_of(HERE).exists():
        sys.exit(f"{there} and {HERE} must both be made ready: run `make ready` in each")
    report = Report(asked.json)
    binary = asked.server or shutil.which("redis-server")
    for limits in asked.limits:
        port = free_port()
        with (
            store(binary, port=port) as over,
            sides(there, limits, f"redis://127.0.0.1:{port}") as cases,
            started(cases) as them,
        ):
            say(f"{limits}, on {over.name}")
            often = {"seconds": asked.seconds, "rounds": asked.rounds}
            found = by_turns(them, over, (1, 64, 512), **often)
            report.table(f"{over.name}: {limits}, before and now", rows(found))
    report.close()


if __name__ == "__main__":
    main()
