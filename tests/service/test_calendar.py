"""Calendar windows: where they begin and end in a time zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from limiter_service.engine.calendar import Span, boundaries

HOUR = 3_600_000_000
ZONES = [
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "America/Sao_Paulo"),
    *("Africa/Cairo", "Asia/Beirut", "America/Havana", "Atlantic/Azores", "Pacific/Chatham"),
]
SPANS: list[Span] = ["minute", "hour", "day", "month"]
FIRST = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
LAST = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def us(text: str, zone: str = "UTC") -> int:
    """Unix microseconds of a local time."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("span", "zone", "now", "expected"),
    [
        ("minute", "UTC", "2025-03-01T10:20:30", "10:20 10:21 10:22"),
        ("hour", "UTC", "2025-03-01T10:20:30", "10:00 11:00 12:00"),
        ("hour", "Asia/Kolkata", "2025-03-01T10:20:30", "10:00 11:00 12:00"),
        ("day", "UTC", "2025-12-31T23:59:59", "2025-12-31 2026-01-01 2026-01-02"),
        ("day", "Asia/Tokyo", "2025-03-01T00:00:00", "2025-03-01 2025-03-02 2025-03-03"),
        ("month", "UTC", "2024-02-29T12:00:00", "2024-02-01 2024-03-01 2024-04-01"),
        ("month", "UTC", "2025-12-31T12:00:00", "2025-12-01 2026-01-01 2026-02-01"),
        ("month", "Asia/Tokyo", "2025-11-01T00:00:00", "2025-11-01 2025-12-01 2026-01-01"),
    ],
)
def test_windows_follow_the_clock_on_the_wall(span: Span, zone: str, now: str, expected: str):
    """Minutes, hours, days and months begin where the zone's calendar says."""
    day = now.partition("T")[0]
    edges = [us(text if "-" in text else f"{day}T{text}", zone) for text in expected.split()]
    assert list(boundaries(span, zone, us(now, zone))) == edges


@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        ("Europe/Berlin", "2025-03-30", 23),
        ("Europe/Berlin", "2025-10-26", 25),
        ("America/New_York", "2025-03-09", 23),
        ("America/New_York", "2025-11-02", 25),
        ("Australia/Lord_Howe", "2025-10-05", 23.5),
        ("Australia/Lord_Howe", "2025-04-06", 24.5),
        ("Europe/Berlin", "2025-06-01", 24),
        ("UTC", "2025-03-30", 24),
        # The clocks change at midnight, so the day begins at one.
        ("America/Havana", "2025-03-09", 23),
        ("America/Sao_Paulo", "2018-11-04", 23),
        # The end of the day is there twice.
        ("America/Havana", "2025-11-02", 25),
        ("America/Sao_Paulo", "2018-02-17", 25),
    ],
)
def test_the_day_of_a_clock_change_is_longer_or_shorter(zone: str, date: str, hours: float):
    """Its window has 23, 24 or 25 hours, and every moment of it the same boundaries."""
    noon = us(f"{date}T12:00:00", zone)
    start, end, after = boundaries("day", zone, noon)
    assert (end - start) / HOUR == hours
    for moment in (start, start + HOUR, noon, end - HOUR, end - 1):
        assert boundaries("day", zone, moment) == (start, end, after)
    assert boundaries("day", zone, end)[:2] == (end, after)


@pytest.mark.parametrize(
    ("zone", "first", "count"),
    [
        ("Europe/Berlin", "2025-10-26T00:00:00", 25),
        ("Europe/Berlin", "2025-03-30T00:00:00", 23),
        ("Australia/Lord_Howe", "2025-04-06T00:00:00", 25),  # the last one is half as long
    ],
)
def test_the_hour_of_a_clock_change_is_counted_once_each_time(zone: str, first: str, count: int):
    """An hour that comes twice is two windows; one that is skipped is none."""
    begin = us(first, zone)
    end = boundaries("day", zone, begin)[1]
    starts = {boundaries("hour", zone, moment)[0] for moment in range(begin, end, HOUR // 2)}
    assert len(starts) == count


@given(span=st.sampled_from(SPANS), zone=st.sampled_from(ZONES), now=st.integers(FIRST, LAST - 1))
@example(span="day", zone="America/Havana", now=us("2025-11-02T00:30:00", "America/Havana"))
@example(span="hour", zone="Australia/Lord_Howe", now=us("2025-04-06T01:45:00") - 11 * HOUR)
def test_windows_contain_their_moments_and_leave_no_gap(span: Span, zone: str, now: int):
    """A moment lies in its window, windows follow each other, and all agree on where."""
    start, end, after = boundaries(span, zone, now)
    assert start <= now < end < after
    assert boundaries(span, zone, start) == (start, end, after)
    assert boundaries(span, zone, end - 1) == (start, end, after)
    assert boundaries(span, zone, end)[:2] == (end, after)
    assert boundaries(span, zone, start - 1)[1] == start


@given(zone=st.sampled_from(ZONES), now=st.integers(FIRST, LAST - 1))
def test_larger_windows_begin_where_smaller_ones_do(zone: str, now: int):
    """A month begins with a day, and a day with a minute."""
    month, day = (boundaries(span, zone, now)[0] for span in ("month", "day"))
    assert boundaries("day", zone, month)[0] == month
    assert boundaries("minute", zone, day)[0] == day
