"""Budgets in words, how fast they are spent, and what a call has cost. No I/O, no clock.

A budget is a limit in a calendar window: so much until the day or month ends.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from limiter_service.engine.charging import micro_dollars
from limiter_service.engine.levels import Level, amount, capacity_of, left, limit_of, whole
from limiter_service.engine.names import MOST
from limiter_service.engine.policy import Limit, Policy
from limiter_wire import BudgetView, Meter, Usage

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
            begun, spent = level.cell
            self._note(limit.id, begun, spent, level.wall)

    def note_spent(self, budgets: Iterable[tuple[int, float, float, float]]) -> None:
        """Take in the same as `Shape.budgets` has it."""
        for limit_id, begun, spent, wall in budgets:
            self._note(limit_id, begun, spent, wall)

    def views(self, policy: Policy, levels: Sequence[Level]) -> list[BudgetView]:
        """Every budget of a chain, and when it is spent at the present pace."""
        return [self._view(policy, limit, level) for limit, level in _budgets(policy, levels)]

    def _note(self, limit_id: int, begun: float, spent: float, wall: float) -> None:
        now, known = wall / _MICRO, self._seen.get(limit_id)
        window, samples = known or (begun, deque(maxlen=_SAMPLES))
        if window != begun:
            samples.clear()
        if known is None and len(self._seen) >= MOST:
            del self._seen[next(iter(self._seen))]
        self._seen[limit_id] = begun, samples
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


def dollars_of(policy: Policy, usage: Usage | None, cost_usd: float | None) -> float | None:
    """What a call has cost: as it was reported, or by its price; None where nobody knows."""
    if cost_usd is None and usage is not None and policy.price is not None:
        return micro_dollars(policy.price, usage) / _MICRO
    return cost_usd
