"""Rows of the tables. Pure."""

import statistics
from collections.abc import Sequence

from harness import Value

from versus.goals import BARE, CHANNEL, OURS, Found, goals, paths, per_core
from versus.measuring import MS, US, Sample, median, ratios, spread

Row = dict[str, Value]


def _latencies(samples: Sequence[Sample], *which: str) -> Row:
    return {f"{each} ms": median(samples, each) * MS for each in which}


def _cpu(samples: Sequence[Sample]) -> Row:
    found: Row = {f"{of} us": median(samples, of) for of in ("client", "service", "store")}
    return {**found, "CPU us": median(samples, "total")}


def _failed(samples: Sequence[Sample]) -> str:
    """How many calls have failed, of peers that fail under contention."""
    failed = sum(sample.failed for sample in samples)
    return f"{failed} failed, {samples[-1].failure.partition(':')[0]}" if failed else ""


def libraries(found: Found, width: int) -> list[Row]:
    """So many callers in loops: ours through its service, the others in process."""
    ours = found.libraries.get((CHANNEL, width))
    return [
        {
            "": name,
            "calls/s": round(median(samples, "rate")),
            **_latencies(samples, "p50", "p99"),
            **_cpu(samples),
            "CPU / channel": spread(ratios(samples, ours, "total")) if ours else "",
            "remarks": _failed(samples),
        }
        for (name, wide), samples in found.libraries.items()
        if wide == width
    ]


def wire(found: Found) -> list[Row]:
    """The same bytes to everybody."""
    ours, bare = found.wire.get(OURS), found.wire.get(BARE)
    return [
        {
            "": name,
            "requests/s": round(median(samples, "rate")),
            **_latencies(samples, "p50", "p99"),
            "service us": median(samples, "service"),
            "store us": median(samples, "store"),
            "service / bare echo": spread(ratios(samples, bare, "service")) if bare else "",
            "ours is faster": spread(ratios(ours, samples, "rate")) if ours else "",
            "remarks": _failed(samples),
        }
        for name, samples in found.wire.items()
    ]


def paced(found: Found) -> list[Row]:
    """Latency that a call adds."""
    ours = found.paced.get(CHANNEL)
    return [
        {
            "": name,
            **_latencies(samples, "p50", "p95", "p99"),
            **_cpu(samples),
            "channel's p50 / its": spread(ratios(ours, samples, "p50")) if ours else "",
            "remarks": _failed(samples),
        }
        for name, samples in found.paced.items()
    ]


def cores(found: Found) -> list[Row]:
    """The whole path against the bare script, per core."""
    if not found.raw:
        return []
    raw = statistics.median(found.raw)
    rows: list[Row] = [
        {
            "": "raw EVALSHA, store alone",
            "CPU us": raw,
            "calls/s per core": round(US / raw),
            "%": "",
        }
    ]
    for name, samples, _ in paths(found):
        total = median(samples, "total")
        share = spread(per_core(samples, found.raw))
        rows.append({"": name, "CPU us": total, "calls/s per core": round(US / total), "%": share})
    return rows


def wanted(found: Found) -> list[Row]:
    """Goals, and whether they are reached."""
    return [
        {
            "": goal.what,
            "wanted": goal.wanted,
            "found": spread(goal.values),
            "reached": "yes" if goal.holds else "no",
        }
        for goal in goals(found)
    ]
