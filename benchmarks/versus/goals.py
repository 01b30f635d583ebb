"""What is wanted of the figures, beside what was found. Pure."""

import statistics
from collections.abc import Iterator, Sequence

import msgspec

from versus.measuring import Field, Sample, ratios

CHANNEL, BATCHES = "sluicegate, channel", "sluicegate, HTTP batches"
ONE_BUDGET = f"{CHANNEL}, one budget"
SETTLED, SETTLED_BATCHES = f"{CHANNEL}, settled", f"{BATCHES}, settled"
LIMITS, SLIDING = "limits, 3 fixed windows", "limits, 3 sliding windows"
THROTTLED, GCRA = "throttled-py, 3 token buckets", "throttled-py, 3 gcra"
PYRATE = "pyrate-limiter, 3 rates of requests"
LITELLM = "litellm pre-call, 2 limits"
TOKEN_THROTTLE = "token-throttle, 3 limits"  # a name
THROTTLE_SETTLED = f"{TOKEN_THROTTLE}, settled"
OURS, BARE = "sluicegate", "bare echo"
APPS = {
    "limits": "limits in FastAPI, 3 limits",
    "fastapi_limiter": "fastapi-limiter, 3 rates of requests",
    "slowapi": "slowapi, 3 limits of requests",
}


class Found(msgspec.Struct, kw_only=True):
    """What was measured on one server: by name and callers, by name, by name. `raw` are
    microseconds of a bare script.
    """

    libraries: Field = {}
    wire: dict[str, list[Sample]] = {}
    paced: dict[str, list[Sample]] = {}
    raw: list[float] = []


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: `most` is an upper bound, `least` a lower one."""

    what: str
    values: list[float]
    least: float | None = None
    most: float | None = None

    @property
    def found(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def holds(self) -> bool:
        """Whether it is reached."""
        if self.least is not None:
            return self.found >= self.least
        return self.most is None or self.found <= self.most

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


def goals(found: Found) -> Iterator[Goal]:
    """Those that the figures at hand can tell."""
    for each in (_cheaper, _absolute, _alone, _per_core, _wire, _latency):
        yield from each(found)


def _cheaper(found: Found) -> Iterator[Goal]:
    """The whole path against libraries that talk to Redis directly, CPU."""
    wanted = ((LIMITS, 3), (LITELLM, 5), (THROTTLED, 5), (TOKEN_THROTTLE, 8))
    for peer, times in wanted:
        for way in (CHANNEL, BATCHES):
            theirs, ours = found.libraries.get((peer, 64)), found.libraries.get((way, 64))
            if theirs and ours:
                what = f"CPU, 64 callers: {peer} / {way}"
                yield Goal(what=what, values=ratios(theirs, ours, "total"), least=times)


def _absolute(found: Found) -> Iterator[Goal]:
    wanted = {
        (CHANNEL, 64): 30_000,
        (BATCHES, 64): 20_000,
        (CHANNEL, 512): 100_000,
        (SETTLED, 64): 30_000,
        (SETTLED_BATCHES, 64): 20_000,
        (SETTLED, 512): 100_000,
    }
    for (name, width), least in wanted.items():
        if samples := found.libraries.get((name, width)):
            # A pair is an acquire and a settle.
            times = 2 if "settled" in name else 1
            values = [sample.rate * times for sample in samples]
            unit = "operations/s" if times == 2 else "acquires/s"
            yield Goal(what=f"{unit}, {width} callers: {name}", values=values, least=least)


def _alone(found: Found) -> Iterator[Goal]:
    for name, most in ((CHANNEL, 0.4), (BATCHES, 1.5)):
        if samples := found.libraries.get((name, 1)):
            values = [sample.p50 * 1e3 for sample in samples]
            yield Goal(what=f"p50 in ms, one caller: {name}", values=values, most=most)


def per_core(samples: Sequence[Sample], raw: Sequence[float]) -> list[float]:
    """Calls a core in percent of the bare script's."""
    return [100 * bare / sample.total for sample, bare in zip(samples, raw, strict=True)]


def paths(found: Found) -> Iterator[tuple[str, list[Sample], float]]:
    """The ways whose CPU is told against the bare script, and the percentage that is wanted."""
    if samples := found.wire.get(OURS):
        yield "one request each over HTTP, 64 at a time", samples, 5
    for width, least in ((64, 15), (512, 35)):
        for way in (CHANNEL, ONE_BUDGET, BATCHES):
            if samples := found.libraries.get((way, width)):
                yield f"{way}, {width} callers", samples, least


def _per_core(found: Found) -> Iterator[Goal]:
    if found.raw:
        for name, samples, least in paths(found):
            what = f"% of raw EVALSHA per core: {name}"
            yield Goal(what=what, values=per_core(samples, found.raw), least=least)


def _wire(found: Found) -> Iterator[Goal]:
    ours = found.wire.get(OURS)
    if not ours:
        return
    if bare := found.wire.get(BARE):
        what = "CPU of the service: one acquire / bare echo"
        yield Goal(what=what, values=ratios(ours, bare, "service"), most=2.5)
    for name in APPS.values():
        if theirs := found.wire.get(name):
            what = f"rate, same wire: sluicegate / {name}"
            yield Goal(what=what, values=ratios(ours, theirs, "rate"), least=4)


def _latency(found: Found) -> Iterator[Goal]:
    ours = found.paced.get(CHANNEL)
    for name, most in ((LITELLM, 1.0), (LIMITS, 1.2)):
        theirs = found.paced.get(name)
        if ours and theirs:
            what = f"p50 at a rate: {CHANNEL} / {name}"
            yield Goal(what=what, values=ratios(ours, theirs, "p50"), most=most)
