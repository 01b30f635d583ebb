"""From counts in the store to figures for people. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from limiter_service.engine import counting
from limiter_service.engine.counting import MODEL, OUTCOME, POOL, REFUSED, TENANT
from limiter_service.engine.histograms import BINS, quantiles
from limiter_service.engine.names import REST
from limiter_service.store.count_commands import Counts, What
from limiter_wire import CallStats, CostStats, Quantiles, SeriesStats

RINGS = ((60.0, 1, 5.0), (3600.0, 2, 300.0), (86_400.0, 3, 3600.0))
"""How far back a ring reaches, its number, and the width of its slots (lua/lib/counts)."""

_MICRO = 1_000_000
_Sums = dict[What, float]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one pool, or of several."""

    reach: float
    resources: list[CallStats]
    tenants: list[CallStats]
    costs: list[CostStats]
    step: float = 0.0
    times: list[float] = []
    series: list[SeriesStats] = []


def ring_for(seconds: float) -> tuple[int, int]:
    """The finest ring that reaches *seconds* back, and how many of its slots that takes: one
    more than fit, since the newest has just begun. A day at most.
    """
    for reach, ring, width in RINGS:
        if seconds <= reach:
            return ring, int(-(-seconds // width)) + 1
    _, ring, width = RINGS[-1]
    return ring, int(RINGS[-1][0] // width) + 1


def figures(pool: str, counts: Counts) -> Figures:
    """What was counted in a pool; whoever has no place of its own is `*`."""
    places: dict[int, dict[str, _Sums]] = {POOL: {}, MODEL: {}, TENANT: {}}
    for place in counts.places:
        places[place.level][place.name] = place.sums
    whole = places[POOL].get("", {})
    models = with_rest(whole, places[MODEL])
    pairs: dict[tuple[str, str], _Sums] = {}
    for name, sums in places[TENANT].items():
        model, _, tenant = name.partition("\0")
        pairs[model, tenant] = sums
    for model, sums in models.items():
        own = {tenant: each for (of, tenant), each in pairs.items() if of == model}
        for tenant, of_tenant in with_rest(sums, own).items():
            pairs[model, tenant] = of_tenant
    return Figures(
        reach=counts.reach,
        resources=[_calls(f"{pool}/{m}", None, s) for m, s in sorted(models.items())],
        tenants=[_calls(f"{pool}/{m}", t, s) for (m, t), s in sorted(pairs.items())],
        costs=[
            _costs(f"{pool}/{m}", t, s)
            for (m, t), s in pairs.items()
            if s.get(counting.MICRO_DOLLARS) or s.get(counting.INPUT) or s.get(counting.OUTPUT)
            or s.get(counting.UNPRICED)
        ],
    )  # fmt: skip


def together(found: Sequence[Figures]) -> Figures:
    """Figures of several pools; the dearest first among costs."""
    costs = [each for part in found for each in part.costs]
    return Figures(
        reach=max((part.reach for part in found), default=0.0),
        resources=[each for part in found for each in part.resources],
        tenants=[each for part in found for each in part.tenants],
        costs=sorted(costs, key=lambda each: (-each.cost_usd, each.resource, each.tenant)),
    )


def with_rest(whole: _Sums, parts: dict[str, _Sums]) -> dict[str, _Sums]:
    """*parts*, and what of the whole is in none of them."""
    rest = _without(whole, parts.values())
    return {**parts, REST: rest} if rest else parts


def _without(whole: _Sums, parts: Iterable[_Sums]) -> _Sums:
    left = dict(whole)
    for part in parts:
        for what, much in part.items():
            if what in left:
                left[what] -= much
    return {what: much for what, much in left.items() if much > 1e-6}  # noqa: PLR2004  # rounding


def _calls(resource: str, tenant: str | None, sums: _Sums) -> CallStats:
    forecast = sums.get(counting.FORECAST, 0.0)
    return CallStats(
        resource=resource,
        tenant=tenant,
        granted=round(sums.get(counting.GRANTED, 0)),
        refused=_words(sums, REFUSED),
        settled=round(sums.get(counting.CALLS, 0)),
        outcomes=_words(sums, OUTCOME),
        expired=round(sums.get(counting.EXPIRED, 0)),
        reserved_tokens=round(sums.get(counting.RESERVED, 0)),
        refunded_tokens=round(sums.get(counting.REFUNDED, 0)),
        debited_tokens=round(sums.get(counting.DEBITED, 0)),
        cost_usd=round(sums.get(counting.MICRO_DOLLARS, 0)) / _MICRO,
        wait=_times(sums, counting.WAIT),
        covered=sums.get(counting.COVERED, 0.0) / forecast if forecast else None,
        latency=_times(sums, counting.LATENCY),
        ttft=_times(sums, counting.TTFT),
    )


def _costs(resource: str, tenant: str, sums: _Sums) -> CostStats:
    return CostStats(
        resource=resource,
        tenant=tenant,
        calls=round(sums.get(counting.CALLS, 0)),
        input_tokens=round(sums.get(counting.INPUT, 0)),
        cached_tokens=round(sums.get(counting.CACHED, 0)),
        output_tokens=round(sums.get(counting.OUTPUT, 0)),
        reasoning_tokens=round(sums.get(counting.REASONING, 0)),
        cost_usd=round(sums.get(counting.MICRO_DOLLARS, 0)) / _MICRO,
        unpriced_calls=round(sums.get(counting.UNPRICED, 0)),
    )


def _words(sums: _Sums, before: str) -> dict[str, int]:
    found = {
        what.removeprefix(before): round(much)
        for what, much in sums.items()
        if isinstance(what, str) and what.startswith(before)
    }
    return dict(sorted(found.items()))


def _times(sums: _Sums, first: int) -> Quantiles | None:
    bins = {
        what - first: much
        for what, much in sums.items()
        if isinstance(what, int) and first <= what < first + BINS
    }
    return quantiles(bins)
