"""Times as providers write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limiter_wire.providers import Moment, read_moment, read_words
from limiter_wire.providers.times import window_end

NOW = 1_764_072_000.0  # 2025-11-25 12:00 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20),
        ("0", 0),
        ("33011.38", 33_011.38),  # Cerebras
        ("6m0s", 360),
        ("120ms", 0.12),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723),
        ("1d", 86_400),
        ("34.07s", 34.07),
        ("1764072030", 30),  # Cohere: Unix seconds
        ("1764072030500", 30.5),  # OpenRouter: Unix milliseconds
        ("2025-11-25T12:00:30Z", 30),  # Anthropic
        ("2025-11-25T14:01:00+02:00", 60),
        ("Tue, 25 Nov 2025 12:01:00 GMT", 60),
        ("Tue, 25 Nov 2025 11:00:00 GMT", 0),  # has passed: now
        (" 5 ", 5),
    ],
)
def test_every_syntax_of_a_reset_is_read(text: str, seconds: float):
    """Numbers by their size, durations, and dates, all as seconds from now."""
    moment = read_moment(text, NOW)
    assert moment is not None
    assert moment.after == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("text", ["", "-1", "soon", "nan", "inf", "1e5", "1_0", "5 apples", "--"])
def test_what_says_nothing_is_unknown(text: str):
    """-1 is Azure's word for it."""
    assert read_moment(text, NOW) is None


def test_an_absolute_time_without_a_clock_stays_absolute():
    """Whoever knows the time can still use it."""
    assert read_moment("1764072030", None) == Moment(None, 1_764_072_030.0)
    assert read_moment("6m0s", None) == Moment(360.0, None)


def test_a_time_in_another_year_is_no_hint():
    """A proxy's mistake must not hold a limit shut."""
    assert read_moment("99999999999", NOW) is None
    assert read_moment("50000000", NOW) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 1.146s. Visit the console.", 1.146),
        ("Please retry after 37 seconds.", 37),
        ("Please retry after 86400 seconds", 86_400),
        ("Please retry in 10h17m5.7s.", 10 * 3600 + 17 * 60 + 5.7),
        ("try again in 250 milliseconds", 0.25),
        ("Try again in 2 minutes and 5 seconds", 125),
        ("try again in 6m0s", 360),
        ("Retry after 12", 12),
        ("You will regain access on 2025-12-01 at 00:00 UTC.", 5 * 86_400 + 43_200),
        ("You will regain access on 2025-11-26 UTC", 43_200),
    ],
)
def test_words_may_hold_a_time(text: str, seconds: float):
    """Units in every spelling, and Anthropic's date."""
    moment = read_words(text, NOW)
    assert moment is not None
    assert moment.after == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["Retry your request.", "try again in a moment", "wait", "in 5 s", "retry in 3 messages"],
)
def test_most_words_hold_none(text: str):
    """Numbers that are no times are left alone."""
    assert read_words(text, NOW) is None


def test_a_day_ends_at_its_own_midnight_also_when_it_is_short():
    """The day on which California's clocks go forward has 23 hours."""
    noon = 1_772_996_400.0  # 2026-03-08 12:00 in California
    assert window_end("day", "America/Los_Angeles", noon) == noon + 12 * 3600
    before = noon - 11 * 3600 + 1800  # half past midnight, by winter's time
    end = window_end("day", "America/Los_Angeles", before)
    assert end == noon + 12 * 3600
    assert end - before == 22.5 * 3600
    assert window_end("month", "UTC", NOW) == NOW + 5 * 86_400 + 43_200
    assert window_end("century", "UTC", NOW) is None


@given(st.text(max_size=60), st.none() | st.floats(allow_nan=False))
def test_no_text_raises(text: str, now: float | None):
    """Headers are somebody else's."""
    for moment in (read_moment(text, now), read_words(text, now)):
        assert moment is None or moment.after is None or moment.after >= 0
