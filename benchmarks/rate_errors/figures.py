"""What a run comes to, and whether that is good enough. Pure.

Times are seconds of the workload.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from rate_errors.ideal import Demand
from rate_errors.messages import Ending, Finished, Strategy

MOST_REFUSED = 0.001
MOST_OF_WITHOUT = 0.01
LEAST_USED = 0.97
LONGEST_WAIT = 1.1
DELIVERY = 1.0
"""Seconds that a wait may be longer besides: a call takes its way, and waiting has a grain."""

_MINUTE = 60.0
_LEAST_MINUTES = 3
_AT_ONCE = 0.05

Value = float | int | str


class Waits(msgspec.Struct, frozen=True):
    """How long calls waited, from when they were due until their last attempt left."""

    mean: float
    p99: float
    longest: float


class Span(msgspec.Struct, frozen=True):
    """A part of the workload, in seconds from its start."""

    since: float
    until: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy against one provider under one load.

    `refused` are all 429s, `for_tokens` those for lack of tokens, `first_refused` those of first
    attempts. `used` is the share that calls of the saturated span came to, of the limit of
    tokens that they used most; None where there was no such span.
    """

    strategy: Strategy
    calls: int
    attempts: int
    refused: int
    for_tokens: int
    first_refused: int
    given_up: int
    failed: int
    used: float | None
    waits: Waits
    problems: list[str]

    @property
    def retries(self) -> int:
        """Attempts after the first."""
        return max(0, self.attempts - self.calls)

    @property
    def refused_share(self) -> float:
        """429s of all requests to the provider."""
        return self.refused / self.attempts if self.attempts else 0.0


def waits_of(waits: Sequence[float]) -> Waits:
    """Mean, 99th percentile and longest."""
    if not waits:
        return Waits(0.0, 0.0, 0.0)
    ordered = sorted(waits)
    return Waits(
        sum(ordered) / len(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1], ordered[-1]
    )


def ideal_waits(demands: Sequence[Demand], starts: Sequence[float]) -> Waits:
    """The waits of a schedule."""
    return waits_of([start - demand.at for demand, start in zip(demands, starts, strict=True)])


def saturated(demands: Sequence[Demand], starts: Sequence[float]) -> Span | None:
    """When the ideal schedule has calls waiting all the time while more come.

    Whole minutes, since a fixed window may be spent at any moment of its own, and three at
    least, since fewer say little.
    """
    at_once = [
        demand.at
        for demand, start in zip(demands, starts, strict=True)
        if start - demand.at <= _AT_ONCE
    ]
    since, until = max(at_once, default=0.0), demands[-1].at
    minutes = math.floor((until - since) / _MINUTE)
    return Span(since, since + minutes * _MINUTE) if minutes >= _LEAST_MINUTES else None


def figures(
    strategy: Strategy,
    demands: Sequence[Demand],
    finished: Sequence[Finished],
    *,
    per_minute: Mapping[str, float],
    span: Span | None,
) -> Figures:
    """The figures of a run from what its workers saw; limits of tokens are *per_minute*."""
    endings = Counter(each.ending for each in finished)
    served = [each for each in finished if each.ending is Ending.SUCCEEDED]
    problems = Counter(each.problem for each in finished if each.problem)
    return Figures(
        strategy=strategy,
        calls=len(finished),
        attempts=sum(each.attempts for each in finished),
        refused=sum(each.refusals for each in finished),
        for_tokens=sum(each.for_tokens for each in finished),
        first_refused=sum(each.first_refused for each in finished),
        given_up=endings[Ending.GIVEN_UP],
        failed=endings[Ending.FAILED],
        used=_used(demands, served, per_minute, span),
        waits=waits_of([max(0.0, each.sent - demands[each.number].at) for each in served]),
        problems=[f"{count} x {text}" for text, count in problems.most_common(3)],
    )


def _used(
    demands: Sequence[Demand],
    served: Sequence[Finished],
    per_minute: Mapping[str, float],
    span: Span | None,
) -> float | None:
    if span is None:
        return None
    within = [
        demands[each.number].settled for each in served if span.since <= each.sent < span.until
    ]
    minutes = (span.until - span.since) / _MINUTE
    return max(
        sum(settled[meter] for settled in within) / (limit * minutes)
        for meter, limit in per_minute.items()
    )


def row(found: Figures, ideal: Waits) -> dict[str, Value]:
    """One line of the table."""
    return {
        "": found.strategy,
        "first 429 %": 100 * found.first_refused / max(1, found.calls),
        "429s": found.refused,
        "for tokens": found.for_tokens,
        "used %": "-" if found.used is None else f"{100 * found.used:.1f}",
        "mean wait s": f"{found.waits.mean:.2f}",
        "p99 s": f"{found.waits.p99:.2f}",
        "longest s": f"{found.waits.longest:.2f}",
        "x ideal": f"{found.waits.mean / ideal.mean:.2f}" if ideal.mean >= DELIVERY else "-",
        "retries": found.retries,
        "given up": found.given_up,
        "failed": found.failed,
    }


def ideal_row(name: str, waits: Waits) -> dict[str, Value]:
    """The line of a schedule, which no call was made by."""
    return {
        "": name,
        "first 429 %": "",
        "429s": "",
        "for tokens": "",
        "used %": "",
        "mean wait s": f"{waits.mean:.2f}",
        "p99 s": f"{waits.p99:.2f}",
        "longest s": f"{waits.longest:.2f}",
        "x ideal": "",
        "retries": "",
        "given up": "",
        "failed": "",
    }


def misses(found: Figures, without: Figures | None, ideal: Waits) -> list[str]:
    """Which bars a native case misses, in words; nothing when it is good enough."""
    missed = []
    if found.refused_share > MOST_REFUSED:
        missed.append(f"{found.refused_share:.2%} of requests refused, at most {MOST_REFUSED:.1%}")
    if without is not None and found.refused > MOST_OF_WITHOUT * without.refused:
        missed.append(f"{found.refused} 429s, without a limiter {without.refused}")
    if found.used is not None and found.used < LEAST_USED:
        missed.append(f"{found.used:.1%} used, at least {LEAST_USED:.0%}")
    for name in Waits.__struct_fields__:
        wait, best = getattr(found.waits, name), getattr(ideal, name)
        if wait > LONGEST_WAIT * best + DELIVERY:
            missed.append(f"{name} wait {wait:.2f} s, ideal {best:.2f} s")
    if found.given_up or found.failed:
        missed.append(f"{found.given_up} given up, {found.failed} failed")
    return missed
