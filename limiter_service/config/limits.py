"""Limits in the long form: what short forms stand for, and what a limit is called."""

from collections.abc import Container, Iterable
from typing import Any

import msgspec

from limiter_service.config.durations import PERIODS, seconds
from limiter_service.config.sections import LimitConfig, Limited
from limiter_wire import Meter


def period(limit: LimitConfig) -> float | None:
    """Seconds of a limit's period; None for a calendar month, which has no fixed length."""
    if limit.per is None or limit.per == "month":
        return None
    if isinstance(limit.per, str) and limit.per in PERIODS:
        return PERIODS[limit.per]
    return seconds(limit.per)


SHORT_FORMS: dict[str, LimitConfig] = {}
"""What each short form stands for; its amount is 1 here."""


def _short(name: str, meter: Meter, per: str | None) -> None:
    SHORT_FORMS[name] = LimitConfig(name=name, meter=meter, limit=1, per=per)


_short("rpm", Meter.REQUESTS, "minute")
_short("rpd", Meter.REQUESTS, "day")
_short("tpm", Meter.TOKENS, "minute")
_short("tpd", Meter.TOKENS, "day")
_short("input_tpm", Meter.INPUT_TOKENS, "minute")
_short("output_tpm", Meter.OUTPUT_TOKENS, "minute")
_short("concurrency", Meter.CONCURRENCY, None)


def long_name(limit: LimitConfig) -> str:
    """The name of a limit that was given none."""
    return limit.meter if limit.per is None else f"{limit.meter}-per-{limit.per}"


def settled(limit: LimitConfig) -> LimitConfig:
    """*limit* with the defaults that hold where no provider has others."""
    window, settle = limit.window or "bucket", limit.settle or "actual"
    return msgspec.structs.replace(limit, window=window, settle=settle)


def limits_of(section: Limited) -> list[LimitConfig]:
    """Every limit of a section as it is without a provider's presets."""
    return [settled(limit) for limit in given_limits(section)]


def given_limits(section: Limited) -> list[LimitConfig]:
    """Every limit of a section in the long form, the short forms first; what the file leaves
    open is open.
    """
    short = [
        msgspec.structs.replace(form, limit=float(amount))
        for name, form in SHORT_FORMS.items()
        if (amount := getattr(section, name)) is not None
    ]
    return short + [
        msgspec.structs.replace(limit, name=limit.name or long_name(limit))
        for limit in section.limits
    ]


def match(entries: dict[str, Any], name: str) -> Any | None:  # the value type of the mapping
    """The entry for *name*: exact, else the longest pattern `prefix*` that fits, else None."""
    found = entry(entries, patterns(entries), name)
    return None if found is None else entries[found]


def entry(names: Container[str], longest_first: Iterable[str], name: str) -> str | None:
    """Under which of *names* the entry for *name* stands; `patterns` has those of them."""
    if name in names:
        return name
    return next((each for each in longest_first if name.startswith(each[:-1])), None)


def patterns(names: Iterable[str]) -> list[str]:
    """Which of *names* are patterns, the longest first."""
    return sorted((name for name in names if name.endswith("*")), key=len, reverse=True)
