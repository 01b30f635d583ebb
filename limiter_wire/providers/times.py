"""Times as providers write them: durations, dates, epochs; and when a calendar window ends.

Every result is in seconds. What cannot be read is None, and nothing raises. An absolute time
needs `now` in Unix seconds; without it only `at` of it is known.
"""

import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime

import msgspec

from limiter_wire.providers.rules import compiled

LONGEST = 400 * 86_400.0
"""Whatever lies further in the future is no hint but an error."""

_MILLISECONDS_FROM, _SECONDS_FROM = 1e11, 1e8
_UNITS = {
    "ms": 0.001,
    "millisecond": 0.001,
    "msec": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hour": 3600.0,
    "d": 86_400.0,
    "day": 86_400.0,
}
_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_WORDS = r"milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d"
_PART = rf"({_NUMBER})\s*({_WORDS})(?![a-z])"
_GO = rf"^(?:{_NUMBER}(?:ms|us|µs|ns|h|m|s|d))+$"
_GO_PART = rf"({_NUMBER})(ms|us|µs|ns|h|m|s|d)"
_TINY = {"us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class Moment(msgspec.Struct, frozen=True):
    """A time that was read: `after` in seconds from now, `at` in Unix seconds, or both."""

    after: float | None = None
    at: float | None = None


def after(value: float, now: float | None) -> Moment | None:
    """The moment *value* seconds from now; None when that is no future anybody means."""
    if not 0 <= value <= LONGEST:  # also NaN
        return None
    return Moment(value, None if now is None else now + value)


def at(value: float, now: float | None) -> Moment | None:
    """The moment of Unix time *value*; one that has passed is now."""
    if not math.isfinite(value) or value <= 0:
        return None
    if now is None:
        return Moment(None, value)
    return None if value - now > LONGEST else Moment(max(0.0, value - now), value)


def read_moment(text: str, now: float | None) -> Moment | None:
    """A header's value: seconds, epoch seconds or milliseconds, a duration, or a date.

    Negative numbers and empty texts mean that nobody knows.
    """
    text = text.strip()
    number = _float(text)
    if number is not None:
        if number > _MILLISECONDS_FROM:
            return at(number / 1000, now)
        return at(number, now) if number > _SECONDS_FROM else after(number, now)
    duration = read_duration(text)
    if duration is not None:
        return after(duration, now)
    date = read_date(text)
    return None if date is None else at(date, now)


def read_duration(text: str) -> float | None:
    """Seconds of a duration such as `6m0s`, `120ms` or `2m59.56s`."""
    if len(text) > 100 or not compiled(_GO).match(text):  # noqa: PLR2004  # bounds the pattern's time
        return None
    parts = compiled(_GO_PART).findall(text)
    return sum(float(n) * (_TINY.get(unit.lower()) or _UNITS[unit.lower()]) for n, unit in parts)


def read_date(text: str) -> float | None:
    """Unix seconds of an RFC 3339 or an HTTP date."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            date = read(text)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, OSError, IndexError):
            continue
    return None


_WAIT = (
    r"(?:try again|retry|wait|available|resets?)\s+(?:in|after|for)\s+(?:about\s+)?"
    rf"({_PART}(?:\s*(?:,|and)?\s*{_PART})*)"
)
_WAIT_BARE = rf"(?:try again|retry)\s+(?:in|after)\s+({_NUMBER})(?=\s*(?:$|[,;!)]|\.(?:\s|$)))"
_ACCESS = (
    r"(?:regain access on|resets? (?:on|at))\s+(\d{4}-\d\d-\d\d)(?:\s+at\s+(\d\d:\d\d))?\s*UTC"
)


def read_words(message: str, now: float | None) -> Moment | None:
    """The time in a sentence: `try again in 1.146s`, `retry after 37 seconds`, a UTC date."""
    date = compiled(_ACCESS).search(message)
    if date is not None:
        instant = read_date(f"{date[1]}T{date[2] or '00:00'}:00+00:00")
        return None if instant is None else at(instant, now)
    wait = compiled(_WAIT).search(message)
    if wait is not None:
        return after(sum(float(n) * _unit(unit) for n, unit in _parts(wait[1])), now)
    bare = compiled(_WAIT_BARE).search(message)
    return None if bare is None else after(float(bare[1]), now)


def _parts(text: str) -> list[tuple[str, str]]:
    return compiled(_PART).findall(text)


def _unit(word: str) -> float:
    word = word.lower()
    return _UNITS.get(word) or _UNITS[word.removesuffix("s")]


def _float(text: str) -> float | None:
    """A decimal number; `nan`, `inf` and `1_000` are none."""
    if not compiled(r"^[+-]?\d{1,15}(\.\d{1,15})?$").match(text):
        return None
    return float(text)


def window_end(span: str, zone: str, now: float) -> float | None:
    """Unix seconds at which the *span* (`day`, `month`) of *zone* that holds *now* ends."""
    try:
        local = datetime.fromtimestamp(now, _zone(zone))
    except (ValueError, OverflowError, OSError):
        return None
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    if span == "day":
        return (midnight + timedelta(days=1)).timestamp()
    if span == "month":
        return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp()
    return None


def _zone(name: str) -> tzinfo:
    """The zone, or standard time of the one that providers use where the host knows no zones."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415  # rarely needed

    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        return timezone(timedelta(hours=-8))
