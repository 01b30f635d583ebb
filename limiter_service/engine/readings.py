"""What a provider's headers say about the limits of a chain, as the scripts take it. Pure.

A header says something about a limit of the same meter and the same period. What it rounds,
does not know, or leaves open which limit it means, says nothing here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from limiter_service.engine.policy import Limit, Policy
from limiter_service.store.packing import pack
from limiter_wire import Meter, SpentLimit
from limiter_wire.providers import Observed, lowered, profile, read_limits, read_moment

KEPT = 3600.0
"""Seconds for which a stated limit holds when nobody states it again."""

_MICRO = 1_000_000
_UNKNOWN = -1.0
_REFUSED, _SHRINK, _CUT = 1, 2, 4
# Which of several limits these mean changes from answer to answer, or is another tariff's.
_VARYING = {"anthropic": {"tokens"}}
_HINTS = (("retry-after-ms", "ms"), ("retry-after", ""))


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of one limit, the *nth* of its chain: the limit, and what remains of it."""

    nth: int
    limit: Limit
    stated: float | None
    remaining: float | None
    cut: bool = False


def readings(
    policy: Policy, headers: Mapping[str, str], spent: SpentLimit | None, now: float
) -> list[Reading]:
    """What *headers* and the body of a refusal say; *now* is in Unix seconds."""
    said = [*_said(policy, headers, now), *([_of_body(spent)] if spent else [])]
    if not said:
        return []
    found = (
        _reading(nth, limit, said)
        for nth, limit in enumerate(policy.limits, start=1)
        if limit.learn != "never" and limit.meter is not Meter.CONCURRENCY
    )
    return [each for each in found if each is not None]


def _said(policy: Policy, headers: Mapping[str, str], now: float) -> Iterator[Observed]:
    if not headers:
        return
    known = profile(policy.config.provider)
    varying = _VARYING.get(known.name, set())
    for each in read_limits(lowered(headers), now, known.convention):
        unclear = each.dimension == "" and "" not in known.convention.periods
        if not unclear and ":" not in each.dimension and each.dimension not in varying:
            yield each


def _of_body(spent: SpentLimit) -> Observed:
    remaining = None if spent.used is None else max(0.0, spent.limit - spent.used)
    return Observed(
        dimension="body",
        meter=spent.meter,
        per=spent.per,
        limit=spent.limit,
        remaining=remaining,
        trusted=remaining is not None,
    )


def _reading(nth: int, limit: Limit, said: Iterable[Observed]) -> Reading | None:
    """Where several say something about one limit, the strictest counts: all of them bind."""
    fitting = [each for each in said if each.meter == limit.meter and each.per == limit.per]
    stated = [each for each in fitting if each.limit]
    strictest = min(stated, key=lambda each: each.limit or 0.0) if stated else None
    # What was spent of a window follows from limit and rest of the same statement.
    told = fitting if limit.window == "bucket" or strictest is None else [strictest]
    rests = [each.remaining for each in told if each.trusted and each.remaining is not None]
    if strictest is None and not rests:
        return None
    return Reading(
        nth=nth,
        limit=limit,
        stated=strictest.limit if strictest else None,
        remaining=min(rests) if rests else None,
    )


def bounds(limit: Limit, value: float) -> tuple[float, float]:
    """Capacity and rate that *limit* would have if it were *value*, in the scripts' units."""
    units = value * limit.unit
    if limit.window != "bucket":
        return units, 0.0
    share = value / limit.limit
    if limit.config.burst is None:
        capacity = units
    elif limit.meter is Meter.REQUESTS:
        # A provider that counts in seconds counts fewer of them.
        capacity = max(min(1.0, limit.capacity), limit.capacity * share)
    else:
        capacity = min(limit.capacity, units)
    return capacity, limit.rate * share


def packed(policy: Policy, found: Sequence[Reading], *, refused: bool) -> bytes:
    """Readings as lua/lib/learning has them; nothing where there are none."""
    if refused:
        found = [*found, *_unspoken(policy, found)]
    if not found:
        return b""
    numbers: list[float] = [len(found)]
    for each in found:
        shrink = refused and each.limit.config.adaptive_burst
        capacity, rate = bounds(each.limit, each.stated) if each.stated else (0.0, 0.0)
        numbers += [
            each.nth,
            each.stated or 0.0,
            capacity,
            rate,
            _UNKNOWN if each.remaining is None else each.remaining * each.limit.unit,
            refused * _REFUSED + shrink * _SHRINK + each.cut * _CUT,
            each.limit.limit,
            KEPT * _MICRO,
        ]
    return pack(numbers) + names(policy, [each.limit.name for each in found])


def _unspoken(policy: Policy, found: Sequence[Reading]) -> Iterator[Reading]:
    """Limits whose rate is searched by trial, where the provider has refused a call and said
    nothing about them: its words count before guesses.
    """
    spoken = {each.nth for each in found}
    for nth, limit in enumerate(policy.limits, start=1):
        if limit.config.aimd and limit.window == "bucket" and nth not in spoken:
            yield Reading(nth=nth, limit=limit, stated=None, remaining=None, cut=True)


def names(policy: Policy, lines: Iterable[str]) -> bytes:
    """The model and *lines*, a line each, none of them empty."""
    return "\n".join([policy.model, *(" ".join(line.split()) or "-" for line in lines)]).encode()


def asked_pause(headers: Mapping[str, str] | None, now: float) -> float | None:
    """Seconds for which the provider wants to be left alone; None when it does not say."""
    if not headers:
        return None
    told = lowered(headers)
    for name, unit in _HINTS:
        moment = read_moment(told[name].strip() + unit, now) if told.get(name) else None
        if moment is not None and moment.after is not None:
            return moment.after
    return None
