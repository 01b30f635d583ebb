"""Budgets in words, how fast they are spent, and what calls have cost. No I/O, no clock.

A budget is a limit in a calendar window: so much until the day or month ends.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec

from limiter_service.engine.charging import components, micro_dollars
from limiter_service.engine.levels import Level, amount, capacity_of, left, limit_of, whole
from limiter_service.engine.names import MOST, REST, Names
from limiter_service.engine.policy import Limit, Policy
from limiter_wire import BudgetView, CostStats, Meter, Usage

_MICRO = 1_000_000
_SAMPLES, _APART, _LOOK_BACK = 60, 10.0, 600.0
_LEAST_TIME = 30.0


def is_budget(limit: Limit) -> bool:
    """Whether *limit* is an amount until a date."""
    return limit.window == "calendar"


def money(dollars: float) -> str:
    """Dollars for people: cents, and more digits where cents say nothing."""
    digits = 2 if dollars == 0 or abs(dollars) >= 0.01 else 6  # noqa: PLR2004
    text = f"{abs(dollars):,.{digits}f}"
    return f"{'-' if dollars < 0 else ''}${text}"


def amount_in_words(limit: Limit, units: float) -> str:
    """Units of the scripts as people say them."""
    if limit.meter is Meter.COST_USD:
        return money(units / limit.unit)
    return f"{whole(units / limit.unit)} {limit.meter}"


def never(limit: Limit, asked: float, level: Level) -> str:
    """Why a request can never fit."""
    most = amount_in_words(limit, round(capacity_of(limit, level), 6)).removesuffix(
        f" {limit.meter}"
    )
    return f"{amount_in_words(limit, asked)} can never fit: {limit.name} holds at most {most}"


def spent_budget(policy: Policy, limit: Limit, asked: float, level: Level) -> str:
    """Why a request does not fit into a budget: which, what is spent, when it begins anew."""
    ends = policy.window_end(limit, level.cell[0])
    zone = UTC if limit.config.timezone == "UTC" else ZoneInfo(limit.config.timezone)
    moment = datetime.fromtimestamp(ends / _MICRO, zone).isoformat(timespec="seconds")
    remaining = max(0.0, left(limit, level))
    return (
        f"the budget {limit.name} of {amount_in_words(limit, capacity_of(limit, level))} per "
        f"{limit.config.per} has {amount_in_words(limit, remaining)} left and "
        f"{amount_in_words(limit, asked)} are asked for: "
        f"{amount_in_words(limit, level.cell[1])} are spent or held; it begins anew at "
        f"{moment}, in {in_words((ends - level.wall) / _MICRO)}"
    )


def in_words(seconds: float) -> str:
    """A time to wait, as people say it."""
    left_over = max(0, round(seconds))
    days, left_over = divmod(left_over, 86_400)
    hours, left_over = divmod(left_over, 3600)
    minutes, left_over = divmod(left_over, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left_over} s" if minutes else f"{left_over} s"


class Pace:
    """How fast each budget is spent, from levels as this replica saw them.

    Levels are those of the whole fleet, so the pace is. The last ten minutes count; before
    half a minute of them was seen, the average since the window began.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, deque[tuple[float, float]]]] = {}

    def note(self, policy: Policy, levels: Sequence[Level]) -> None:
        """Take in the levels of a chain."""
        for limit, level in _budgets(policy, levels):
            self._note(limit, level)

    def views(self, policy: Policy, levels: Sequence[Level]) -> list[BudgetView]:
        """Every budget of a chain, and when it is spent at the present pace."""
        return [self._view(policy, limit, level) for limit, level in _budgets(policy, levels)]

    def _note(self, limit: Limit, level: Level) -> None:
        begun, spent = level.cell
        now = level.wall / _MICRO
        window, samples = self._seen.get(limit.id, (begun, deque(maxlen=_SAMPLES)))
        if window != begun:
            samples.clear()
        if limit.id not in self._seen and len(self._seen) >= MOST:
            del self._seen[next(iter(self._seen))]
        self._seen[limit.id] = begun, samples
        if not samples or now - samples[-1][0] >= _APART:
            samples.append((now, spent))
        while samples and now - samples[0][0] > _LOOK_BACK:
            samples.popleft()

    def _view(self, policy: Policy, limit: Limit, level: Level) -> BudgetView:
        resets_in = max(0.0, policy.window_end(limit, level.cell[0]) - level.wall) / _MICRO
        pace = self._pace(limit, level)
        remaining = left(limit, level)
        lasts = max(0.0, remaining) / pace if pace else None
        if remaining <= 0:
            lasts = 0.0
        return BudgetView(
            name=limit.name,
            meter=limit.meter,
            limit=limit_of(limit, level),
            per=str(limit.config.per),
            spent=amount(limit, level.cell[1]),
            resets_in=resets_in,
            per_hour=None if pace is None else pace * 3600 / limit.unit,
            exhausted_in=lasts if lasts is not None and lasts < resets_in else None,
            shadow=limit.shadow,
        )

    def _pace(self, limit: Limit, level: Level) -> float | None:
        """Units per second; None while too little time has been seen."""
        now, spent = level.wall / _MICRO, level.cell[1]
        begun, samples = self._seen.get(limit.id, (level.cell[0], ()))
        if begun == level.cell[0] and samples and now - samples[0][0] >= _LEAST_TIME:
            since, before = samples[0]
            return max(0.0, spent - before) / (now - since)
        elapsed = now - level.cell[0] / _MICRO
        return spent / elapsed if elapsed >= _LEAST_TIME else None


def _budgets(policy: Policy, levels: Sequence[Level]) -> Iterator[tuple[Limit, Level]]:
    for level in levels:
        limit = policy.by_id.get(level.limit_id)
        if limit is not None and is_budget(limit):
            yield limit, level


class Spent(msgspec.Struct, kw_only=True):
    """What the calls of one tenant on one resource have used."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    unpriced: int = 0
    micro_dollars: float = 0.0


class Ledger:
    """What settled calls have used, by resource and tenant, in this replica; bounded."""

    def __init__(self, most: int = MOST) -> None:
        self._spent: dict[tuple[str, str], Spent] = {}
        self._name = Names((REST, REST), most).of

    def note(self, policy: Policy, usage: Usage | None, cost_usd: float | None) -> float | None:
        """Take in one settled call; what it cost in dollars, None where nobody knows."""
        if usage is None and cost_usd is None:
            return None
        entry = self._entry(policy.resource, policy.tenant)
        entry.calls += 1
        if usage is not None:
            _, read, written, _, reasoning = components(usage)
            entry.input_tokens += usage.input_tokens
            entry.cached_tokens += read + written
            entry.output_tokens += usage.output_tokens
            entry.reasoning_tokens += reasoning
        dollars = cost_usd
        if dollars is None and usage is not None and policy.price is not None:
            dollars = micro_dollars(policy.price, usage) / _MICRO
        if dollars is None:
            entry.unpriced += 1
        else:
            entry.micro_dollars += dollars * _MICRO
        return dollars

    def stats(self) -> list[CostStats]:
        """The figures of every resource and tenant, the dearest first."""
        ordered = sorted(self._spent.items(), key=lambda each: (-each[1].micro_dollars, each[0]))
        return [
            CostStats(
                resource=resource,
                tenant=tenant,
                calls=spent.calls,
                input_tokens=spent.input_tokens,
                cached_tokens=spent.cached_tokens,
                output_tokens=spent.output_tokens,
                reasoning_tokens=spent.reasoning_tokens,
                cost_usd=round(spent.micro_dollars) / _MICRO,
                unpriced_calls=spent.unpriced,
            )
            for (resource, tenant), spent in ordered
        ]

    def _entry(self, resource: str, tenant: str) -> Spent:
        return self._spent.setdefault(self._name((resource, tenant)), Spent())
