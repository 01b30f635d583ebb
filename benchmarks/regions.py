"""What one limit loses when regions hold shares of it, each in a store of its own.

    python benchmarks/regions.py [--minutes 60] [--seed 1]

Virtual time. Three regions share one limit of tokens per minute. Each has a bucket over its
share; callers wait in its line for up to 30 seconds. Compared with one budget for all:
shares that never change, and shares that a controller moves each PERIOD seconds by what was
asked for. `use` is what was granted of what could have been (demand or limit, whichever is
less); `over` is by how much the regions together passed `burst + rate * T` in their worst
time T of up to a minute, in percent of a minute's limit; `shares` is the largest sum that
was in force. The second table loses messages, cuts a region off and stops the controller.
The third spreads one limit over shards of one region.
"""

import argparse
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

LIMIT = 600_000.0
"""Tokens a minute, for everybody together."""
RATE, BURST = LIMIT / 60, LIMIT / 6
REGIONS, STEP, PATIENCE, MEAN = 3, 0.1, 30.0, 1000.0
FLOOR, KEEP = 0.05, 4
"""The least share of a region; for how many periods a share is given."""

Demand = Callable[[float], Sequence[float]]
"""Share of the limit that each region asks for at a time."""
Lost = Callable[[float, int], bool]
"""Whether a message to or from a region at a time gets through, negated."""


@dataclass
class Bucket:
    """A limit as the scripts keep it: a new rate counts from the last time it was looked at."""

    share: float
    level: float = 0.0
    seen: float = 0.0

    def take(self, now: float, tokens: float) -> bool:
        """Charge *tokens*, or change nothing but the time."""
        refilled = self.level + (now - self.seen) * RATE * self.share
        self.level, self.seen = min(refilled, BURST * self.share), now
        if self.level < tokens:
            return False
        self.level -= tokens
        return True


@dataclass
class Region:
    """One store, its line of callers, and what it was told last."""

    base: float
    bucket: Bucket
    line: deque[tuple[float, float]] = field(default_factory=deque)
    asked: float = 0.0
    until: float = math.inf

    def serve(self, now: float) -> float:
        """Let in whoever fits; what they take."""
        granted = 0.0
        if now >= self.until:  # the override has ended
            self.bucket.share, self.until = self.base, math.inf
        while self.line and self.line[0][0] < now - PATIENCE:
            self.line.popleft()
        while self.line and self.bucket.take(now, self.line[0][1]):
            granted += self.line.popleft()[1]
        return granted

    def told(self, share: float, until: float) -> None:
        """An override: a limit, and when it ends."""
        self.bucket.share, self.until = share, until


def wanted(demands: Sequence[float]) -> list[float]:
    """Shares by demand: a floor for each, then what each asks for, the rest in equal parts."""
    shares = [FLOOR] * len(demands)
    left = 1 - sum(shares)
    needs = sorted((max(0.0, 1.2 * d - FLOOR), i) for i, d in enumerate(demands))
    for place, (need, i) in enumerate(needs):  # the smallest first: none gets more than it needs
        part = min(need, left / (len(needs) - place))
        shares[i] += part
        left -= part
    return [share + left / len(shares) for share in shares]


class Controller:
    """Moves shares so that their sum is never above one, whatever messages are lost.

    A share is given by an override that ends by itself. The controller keeps every override
    that a region may hold, and gives a share only where, until that ends, it fits beside the
    most that all others may hold: who gives must have said so before others take.
    """

    def __init__(self, regions: Sequence[Region], period: float) -> None:
        self.regions, self.period = regions, period
        self.demands = [region.base for region in regions]
        self.may = [[(region.base, math.inf)] for region in regions]

    def turn(self, now: float, lost: Lost) -> None:
        """Hear of demand, then tell those who give, then those who take."""
        for i, region in enumerate(self.regions):
            ended = any(end <= now for _, end in self.may[i])
            self.may[i] = [held for held in self.may[i] if held[1] > now]
            if ended:
                self.may[i].append((region.base, math.inf))
            if not lost(now, i):
                self.demands[i] = region.asked / (RATE * self.period)
                region.asked = 0.0
        shares = wanted(self.demands)
        most = [self.most(i, now) for i in range(len(shares))]
        for i in sorted(range(len(shares)), key=lambda i: shares[i] - most[i]):
            share, end = self.fitting(i, shares[i], now)
            self._tell(i, share, end, now, lost)

    def most(self, i: int, when: float) -> float:
        """The most that a region may hold at a time, if it is told nothing more."""
        base = self.regions[i].base
        return max(share if when < end else base for share, end in self.may[i])

    def fitting(self, i: int, share: float, now: float) -> tuple[float, float]:
        """The largest share up to *share* that there is room for, and until when."""
        others = [j for j in range(len(self.regions)) if j != i]
        turns = sorted({end for j in others for _, end in self.may[j] if end < math.inf})
        last = now + KEEP * self.period
        found = []
        for end in {*(t for t in turns if now + self.period < t < last), last}:
            times = [now, *(t for t in turns if now < t < end)]
            room = min(1 - sum(self.most(j, t) for j in others) for t in times)
            found.append((min(share, room), end))
        return max(found)

    def _tell(self, i: int, share: float, end: float, now: float, lost: Lost) -> None:
        arrived, heard = not lost(now, i), not lost(now, i)
        if arrived:
            self.regions[i].told(share, end)
        if not (arrived and heard):
            self.may[i].append((share, end))
        else:
            self.may[i] = [(share, end)]


def careless(controller: Controller, now: float, lost: Lost) -> None:
    """What a controller does that neither waits for answers nor gives an end."""
    for i, region in enumerate(controller.regions):
        if not lost(now, i):
            controller.demands[i] = region.asked / (RATE * controller.period)
            region.asked = 0.0
    for i, share in enumerate(wanted(controller.demands)):
        if not lost(now, i):
            controller.regions[i].told(share, math.inf)


@dataclass
class Outcome:
    """What came of a run."""

    use: float
    """Granted of what could have been."""
    over: float
    """Passed the bound of one budget by this part of a minute's limit."""
    shares: float
    """The largest sum of shares that was in force."""


Turn = Callable[[Controller, float, Lost], None]


def run(
    demand: Demand,
    bases: Sequence[float],
    seconds: float,
    seed: int,
    *,
    period: float | None = None,
    turn: Turn = Controller.turn,
    lost: Lost = lambda _now, _i: False,
    stopped: Callable[[float], bool] = lambda _now: False,
) -> Outcome:
    """Let callers ask in virtual time; the same seed, the same callers, whoever serves them."""
    chance = random.Random(seed)
    regions = [Region(base, Bucket(base, BURST * base)) for base in bases]
    controller = Controller(regions, period or math.inf)
    due = period or math.inf
    series, possible, shares, asked = [], 0.0, 0.0, 0.0
    for step in range(int(seconds / STEP)):
        now = step * STEP
        parts = demand(now)
        # Callers are the same with fewer regions: they ask in the last one that there is.
        for i, part in enumerate(parts):
            region = regions[min(i, len(regions) - 1)]
            for tokens in arrivals(chance, part):
                region.line.append((now, tokens))
                region.asked += tokens
                asked += tokens
        if now >= due:
            due += controller.period
            if not stopped(now):
                turn(controller, now, lost)
        series.append(sum(region.serve(now) for region in regions))
        shares = max(shares, sum(region.bucket.share for region in regions))
    possible = min(asked, BURST + RATE * seconds)
    return Outcome(sum(series) / possible, excess(series) / LIMIT, shares)


def arrivals(chance: random.Random, part: float, mean: float = MEAN) -> Iterator[float]:
    """Requests of one step: a Poisson number of them, with sizes that vary as prompts do."""
    expected = part * RATE * STEP / mean
    product, floor = chance.random(), math.exp(-expected)
    while product > floor:
        yield min(chance.lognormvariate(math.log(mean) - 0.32, 0.8), 20 * mean)
        product *= chance.random()


def excess(series: Sequence[float]) -> float:
    """By how much `burst + rate * T` was passed in the worst time T of up to a minute."""
    worst, sums = 0.0, [0.0]
    for granted in series:
        sums.append(sums[-1] + granted)
    for width in (1, 2, 5, 10, 20, 50, 100, 200, 300, 400, 500, 600):
        allowed = BURST + RATE * STEP * width
        for i in range(len(sums) - width):
            worst = max(worst, sums[i + width] - sums[i] - allowed)
    return worst


# Demand, as parts of the limit.


def even(_now: float) -> Sequence[float]:
    """Every region asks for as much."""
    return 0.3, 0.3, 0.3


def one_busy(_now: float) -> Sequence[float]:
    """One region asks for most of it."""
    return 0.7, 0.1, 0.1


def one_greedy(_now: float) -> Sequence[float]:
    """One region asks for more than there is."""
    return 1.3, 0.1, 0.1


def sun(now: float) -> Sequence[float]:
    """The busy time goes round, once in an hour."""
    turns = [1 + math.cos(2 * math.pi * (now / 3600 - i / 3)) for i in range(3)]
    return [0.9 * turn / 3 for turn in turns]


def jumps(now: float) -> Sequence[float]:
    """Every five minutes most of it moves to another region."""
    busy = int(now / 300) % 3
    return [0.7 if i == busy else 0.1 for i in range(3)]


def jumps_over(now: float) -> Sequence[float]:
    """The same, and it asks for more than there is."""
    return [2 * part for part in jumps(now)]


DEMANDS: dict[str, Demand] = {
    "even, 90 %": even,
    "one busy, 90 %": one_busy,
    "one asks for 130 %": one_greedy,
    "the busy hour goes round, 90 %": sun,
    "jumps every 5 min, 90 %": jumps,
}


def losing(chance: random.Random, part: float) -> Lost:
    """Loses a part of the messages."""
    return lambda _now, _i: chance.random() < part


def cut_off(now: float, i: int) -> bool:
    """Nothing reaches the first region from minute 10 to 20."""
    return i == 0 and 600 <= now < 1200


def stopped(now: float) -> bool:
    """The controller is gone from minute 10 to 20."""
    return 600 <= now < 1200


def shards(count: int, choose: str, seconds: float, seed: int) -> float:
    """Use of a limit over *count* shards, asked for as much as there is; who is refused is gone.

    Requests are small beside a shard's burst: what is larger never fits.
    """
    chance = random.Random(seed)
    buckets = [Bucket(1 / count, BURST / count) for _ in range(count)]
    homes = [chance.choice(buckets) for _ in range(100)]  # of tenants, the n-th with 1/n callers
    often = [1 / n for n in range(1, 101)]
    granted = 0.0
    for step in range(int(seconds / STEP)):
        for tokens in arrivals(chance, 1.0, MEAN / 10):
            if choose == "by tenant":
                tried = chance.choices(homes, often)
            else:
                tried = chance.sample(buckets, min(count, 2 if choose == "two tries" else 1))
            if any(bucket.take(step * STEP, tokens) for bucket in tried):
                granted += tokens
    return granted / (RATE * seconds)


def show(head: str, rows: Iterator[tuple[str, Outcome]]) -> None:
    """A table of outcomes."""
    print(f"\n{head:44}{'use %':>8}{'over %':>8}{'shares %':>10}")
    for name, o in rows:
        print(f"{name:44}{100 * o.use:8.1f}{100 * o.over:8.2f}{100 * o.shares:10.1f}")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    seconds, seed = options.minutes * 60, options.seed
    thirds = [1 / REGIONS] * REGIONS

    for name, demand in DEMANDS.items():

        def rows(demand: Demand = demand) -> Iterator[tuple[str, Outcome]]:
            yield "one budget for all", run(demand, [1.0], seconds, seed)
            yield "shares that never change", run(demand, thirds, seconds, seed)
            for period in (10, 30, 60):
                yield (
                    f"shares moved each {period} s",
                    run(demand, thirds, seconds, seed, period=period),
                )

        show(name, rows())

    def faults() -> Iterator[tuple[str, Outcome]]:
        def some() -> Lost:
            return losing(random.Random(seed), 0.3)

        with_period = partial(run, jumps_over, thirds, seconds, seed, period=30)
        yield "nothing fails", with_period()
        yield "30 % of the messages are lost", with_period(lost=some())
        yield "a region is cut off for 10 min", with_period(lost=cut_off)
        yield "the controller is gone for 10 min", with_period(stopped=stopped)
        yield "careless, 30 % are lost", with_period(lost=some(), turn=careless)

    show("jumps every 5 min, 180 %, moved each 30 s", faults())

    ways = ("by tenant", "at random", "two tries")
    head = "".join(f"{way:>12}" for way in ways)
    print(f"\n{'shards of one limit, asked for at 100 %':44}{head}")
    for count in (1, 2, 4, 8, 16):
        uses = (100 * shards(count, way, min(seconds, 900), seed) for way in ways)
        print(f"{count:<44}" + "".join(f"{use:12.1f}" for use in uses))


if __name__ == "__main__":
    main()
