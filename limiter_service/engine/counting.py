"""What happens is counted here, and told to the store: figures of the fleet.

What the last minute needs is told every second, what hour and day need every ten.

On the way of a call nothing is sent and nothing awaited. Losing a report costs figures, never
a limit. What the store keeps is bounded (lua/lib/counts), and so is what waits here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from limiter_service.engine import ids
from limiter_service.engine.histograms import bin_of
from limiter_service.engine.names import REST
from limiter_service.store.count_commands import MINUTE, OTHERS, CountCommands, News, What
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Keys

POOL, MODEL, TENANT = 1, 2, 3
"""Levels: all of a pool, a model of it, a tenant on a model."""

PAUSE = 1.0
"""Seconds between two reports."""

COARSE = 10.0
"""Seconds between two reports of what hour and day need: an update of a slot costs the store
more than a decision.
"""

_MOST_PAIRS = 1000
_MOST_IN_A_CALL = 10  # the store does nothing else meanwhile
_MOST_WEIGHTS = 4096
_HALF_LIFE = 3600.0


# What is counted beside refusals and outcomes. The store keeps these numbers: none may change.
# They are plain ones: members of an enumeration cost more to look up than to count.
GRANTED, CALLS, INPUT, CACHED, OUTPUT, REASONING, MICRO_DOLLARS, UNPRICED = range(1, 9)
RESERVED, REFUNDED, DEBITED, EXPIRED, FORECAST, COVERED = range(9, 15)

# Histograms: the number of each one's first bin.
WAIT, LATENCY, TTFT = 1000, 2000, 3000

REFUSED, OUTCOME = "-", "="
"""What stands before an error code, and before an outcome."""

Sums = defaultdict[What, float]
Pair = tuple[str, str]
_Report = tuple[str, float, list[News], tuple[int, int]]


def note_time(sums: Sums, kind: int, seconds: float) -> None:
    """Count one duration."""
    sums[kind + bin_of(seconds)] += 1


class Counting:
    """Counts of one replica that the store has not been told."""

    def __init__(self, commands: CountCommands, prefix: str) -> None:
        self._commands, self._prefix = commands, prefix
        self._pairs: dict[Pair, Sums] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._coarse: dict[Pair, Sums] = {}
        self._coarse_at = -COARSE
        self._unsaid: list[_Report] = []
        self._weights: dict[tuple[str, int, str], tuple[float, float]] = {}
        self._turn = asyncio.Lock()
        self._errands: set[asyncio.Task[bool]] = set()
        self.catch_up: Callable[[], None] = lambda: None
        """Brings here what was not counted at once."""

    def at(self, resource: str, tenant: str) -> Sums:
        """The counts of a tenant on a resource, to add to at once."""
        found = self._pairs.get((resource, tenant))
        return self._open(resource, tenant) if found is None else found

    def _open(self, resource: str, tenant: str) -> Sums:
        if len(self._pairs) >= _MOST_PAIRS:  # callers make up names: the rest goes to the pool
            resource, tenant = f"{resource.partition('/')[0]}/{REST}", REST
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(PAUSE, self._begin)
        return self._pairs.setdefault((resource, tenant), defaultdict(float))

    async def flush(self, *, whole: bool = True) -> bool:
        """Tell the store everything, or without *whole* what is due; whether it has heard it."""
        async with self._turn:
            self.catch_up()
            try:
                await self._tell()  # what was not heard the last time, first
                self._unsaid = list(self._take(whole=whole))
                await self._tell()
            except StoreError:
                return False
        return True

    async def _tell(self) -> None:
        while self._unsaid:
            pool, tag, news, rings = self._unsaid[0]
            await self._commands.count(Keys(pool, self._prefix).counts(), tag, news, rings)
            del self._unsaid[0]

    async def aclose(self) -> None:
        """Tell the store what it has not heard, once."""
        if self._timer is not None:
            self._timer.cancel()
        if self._errands:
            await asyncio.wait(set(self._errands))
        await self.flush()
        if self._timer is not None:  # of a report that failed
            self._timer.cancel()

    def _begin(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._report())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _report(self) -> bool:
        """One report; another follows when the store did not hear this one."""
        heard = await self.flush(whole=False)
        if (self._coarse or not heard) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._begin)
        return heard

    def _take(self, *, whole: bool) -> Iterator[_Report]:
        """What was counted, as reports of bounded size; a repeat of one keeps its tag."""
        now = asyncio.get_running_loop().time()
        self.catch_up()
        pairs, self._pairs = self._pairs, {}
        for (resource, tenant), sums in pairs.items():
            pair = resource, tenant
            if pair not in self._coarse and len(self._coarse) >= _MOST_PAIRS:
                pair = f"{resource.partition('/')[0]}/{REST}", REST
            _add(self._coarse.setdefault(pair, defaultdict(float)), sums)
        yield from self._reports(pairs, MINUTE, now)
        if whole or now - self._coarse_at >= COARSE:
            coarse, self._coarse, self._coarse_at = self._coarse, {}, now
            yield from self._reports(coarse, OTHERS, now)

    def _reports(
        self, pairs: Mapping[Pair, Sums], rings: tuple[int, int], now: float
    ) -> Iterator[_Report]:
        pools: dict[str, dict[tuple[int, str], Sums]] = {}
        for (resource, tenant), sums in pairs.items():
            pool, _, model = resource.partition("/")
            places = pools.setdefault(pool, {})
            for place in _places(model, tenant):
                _add(places.setdefault(place, defaultdict(float)), sums)
        for pool, places in pools.items():
            news: list[News] = [
                (level, name, self._weight((pool, level, name), sums, rings, now), _pairs_of(sums))
                for (level, name), sums in sorted(places.items(), key=lambda each: each[0])
            ]
            for first in range(0, len(news), _MOST_IN_A_CALL):
                yield pool, ids.new_nonce(), news[first : first + _MOST_IN_A_CALL], rings

    def _weight(
        self, place: tuple[str, int, str], sums: Sums, rings: tuple[int, int], now: float
    ) -> float:
        """How many calls a place has made lately at this replica: one an hour ago weighs half."""
        before, at = self._weights.pop(place, (0.0, now))
        if len(self._weights) >= _MOST_WEIGHTS:
            del self._weights[next(iter(self._weights))]
        calls = sums.get(GRANTED, 0.0) + sums.get(CALLS, 0.0) if rings is MINUTE else 0.0
        weight: float = before * 2.0 ** ((at - now) / _HALF_LIFE) + calls
        self._weights[place] = weight, now
        return weight


def _add(to: Sums, sums: Sums) -> None:
    for what, much in sums.items():
        to[what] += much


def pair_name(model: str, tenant: str) -> str:
    """What a tenant on a model is called in the store; neither name has a zero byte."""
    return f"{model}\0{tenant}"


def _places(model: str, tenant: str) -> Iterator[tuple[int, str]]:
    """Everything that a call of a tenant on a model counts for."""
    yield POOL, ""
    if model != REST:
        yield MODEL, model
        if tenant != REST:
            yield TENANT, pair_name(model, tenant)


def _pairs_of(sums: Sums) -> list[What | float]:
    """Pairs, whole numbers as such: they take a byte or two."""
    found: list[What | float] = []
    for what, much in sums.items():
        found += [what, int(much) if much.is_integer() else much]
    return found
