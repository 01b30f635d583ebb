"""Boundaries of calendar windows in a time zone. Pure: the time is an argument."""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Span = Literal["minute", "hour", "day", "month"]
_MICROSECOND = timedelta(microseconds=1)
_STEP: dict[Span, int] = {"minute": 60_000_000, "hour": 3_600_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def boundaries(span: Span, zone: str, now_us: float) -> tuple[int, int, int]:
    """Start of the window around *now_us*, its end, and the end of the next, in Unix µs.

    Days and months follow the local calendar, so a day of a clock change is 23 or 25
    hours long; hours and minutes are counted from local midnight, whatever the clock on
    the wall does until the next one.
    """
    now = int(now_us)
    local = (_EPOCH + timedelta(microseconds=now)).astimezone(ZoneInfo(zone))
    if span == "month":
        start = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
        end = _next_month(start)
        return _us(start), _us(end), _us(_next_month(end))
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # Wall arithmetic: the next local midnight, however far away it is.
    next_midnight = midnight + timedelta(days=1)
    day, next_day = _us(midnight), _us(next_midnight)
    if span == "day":
        return day, next_day, _us(next_midnight + timedelta(days=1))
    step = _STEP[span]
    begin = now - (now - day) % step
    stop = min(begin + step, next_day)
    return begin, stop, stop + step if stop == next_day else min(stop + step, next_day)


def _next_month(start: datetime) -> datetime:
    year, month = divmod(start.month, 12)
    return start.replace(year=start.year + year, month=month + 1, fold=0)


def _us(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
