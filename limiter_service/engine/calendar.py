"""Boundaries of calendar windows in a time zone. Pure: the time is an argument."""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Span = Literal["minute", "hour", "day", "month"]
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def boundaries(span: Span, zone: str, now_us: float) -> tuple[int, int, int]:
    """Start of the window around *now_us*, its end, and the end of the next, in Unix µs.

    Days and months follow the local calendar, so a day of a clock change is 23 or 25
    hours long; hours and minutes are counted from local midnight's offset.
    """
    local = (_EPOCH + timedelta(microseconds=int(now_us))).astimezone(ZoneInfo(zone))
    start = _floor(span, local)
    end = _next(span, start)
    return _us(start), _us(end), _us(_next(span, end))


def _floor(span: Span, local: datetime) -> datetime:
    match span:
        case "minute":
            return local.replace(second=0, microsecond=0)
        case "hour":
            return local.replace(minute=0, second=0, microsecond=0)
        case "day":
            return local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        case "month":
            return local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)


def _next(span: Span, start: datetime) -> datetime:
    match span:
        case "minute" | "hour":
            # Through UTC: wall arithmetic would repeat or skip an hour at a clock change.
            step = timedelta(minutes=1) if span == "minute" else timedelta(hours=1)
            return (start.astimezone(UTC) + step).astimezone(start.tzinfo)
        case "day":
            # Wall arithmetic: the next local midnight, however far away it is.
            return start + timedelta(days=1)
        case "month":
            year, month = divmod(start.month, 12)
            return start.replace(year=start.year + year, month=month + 1, fold=0)


def _us(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
