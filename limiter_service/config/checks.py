"""What one field says of another: rules that the type of a field cannot tell."""

import re
from difflib import get_close_matches
from typing import get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from limiter_service.config.durations import PERIODS, seconds
from limiter_service.config.limits import SHORT_FORMS, long_name
from limiter_service.config.problems import ConfigProblem, join, note
from limiter_service.config.sections import (
    RAMP,
    RESERVES_OF_MONEY,
    BreakerConfig,
    Calendar,
    LimitConfig,
    Limited,
    PoolConfig,
    QueueConfig,
)
from limiter_wire import Meter
from limiter_wire.providers import PROFILES, known_provider
from limiter_wire.providers.presets import tiers_of

_POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATTERN = re.compile(r"[!-)+-~]{0,200}[!-~]")


def check_name(kind: type, path: str, name: str, problems: list[ConfigProblem]) -> None:
    if kind is PoolConfig:
        if not _POOL_NAME.fullmatch(name):
            note(problems, join(path, name), "a pool's name is 1 to 64 of A-Z a-z 0-9 . _ -")
    elif not _PATTERN.fullmatch(name):
        allowed = "a name is visible ASCII; a star stands for any ending and only at the end"
        note(problems, join(path, name), allowed)


def check_limit_names(path: str, section: Limited, problems: list[ConfigProblem]) -> None:
    names = {short: short for short in SHORT_FORMS if getattr(section, short) is not None}
    for i, limit in enumerate(section.limits):
        own = limit.name or long_name(limit)
        for name in (own,) if limit.ramp is None else (own, f"{own}.{RAMP}"):
            if name in names:
                message = f"the name {name!r} is taken by {names[name]}; give one of them a `name`"
                note(problems, f"{path}.limits[{i}].name", message)
            names[name] = f"limits[{i}]"


_PRIORITIES = re.compile(r"([0-9])(?:-([0-9]))?")


def priorities(key: str) -> range:
    """The priorities of a key such as "0-2" or "5". Raises ValueError when it is none."""
    found = _PRIORITIES.fullmatch(key)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError(f'{key!r} is no range of priorities; allowed: "0" to "9", "0-2"')
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def check_shares(path: str, queue: QueueConfig, problems: list[ConfigProblem]) -> None:
    taken: dict[int, str] = {}
    for key in queue.priority_shares:
        try:
            wanted = priorities(key)
        except ValueError as error:
            note(problems, path, str(error))
            continue
        for priority in wanted:
            if priority in taken:
                message = f"priority {priority} is in {taken[priority]!r} already"
                note(problems, join(path, key), message)
                break
            taken[priority] = key
    total = sum(queue.priority_shares.values())
    if total > 1 + 1e-9:
        note(problems, path, f"the shares add up to {total:g}; allowed is at most 1")


def check_provider(path: str, pool: PoolConfig, problems: list[ConfigProblem]) -> None:
    provider = known_provider(pool.provider)
    if provider is None:
        near = get_close_matches(pool.provider, PROFILES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(PROFILES)}"
        note(problems, join(path, "provider"), f"{pool.provider!r} is not known; {hint}")
    elif pool.tier is not None and pool.tier not in tiers_of(provider):
        allowed = ", ".join(tiers_of(provider)) or "none, so give the limits"
        message = f"{pool.tier!r} is no known tier of {provider}; known: {allowed}"
        note(problems, join(path, "tier"), message)


def check_breaker(path: str, breaker: BreakerConfig, problems: list[ConfigProblem]) -> None:
    if seconds(breaker.max_open) < seconds(breaker.open):
        note(problems, f"{path}.max_open", f"{breaker.max_open!r} is shorter than `open`")


def check_limit(path: str, limit: LimitConfig, problems: list[ConfigProblem]) -> None:
    if limit.meter is Meter.CONCURRENCY:
        for key in ("per", "burst", "reserve", "ramp"):
            if getattr(limit, key) is not None:
                note(problems, f"{path}.{key}", "a concurrency limit has no such thing")
        if limit.limit != int(limit.limit):
            note(problems, f"{path}.limit", f"{limit.limit!r}: slots are whole numbers")
        return
    if limit.per is None:
        note(problems, f"{path}.per", 'is required: second, minute, hour, day, month or "90s"')
        return
    if limit.window == "calendar":
        check_calendar(path, limit, problems)
    elif limit.per == "month":
        note(problems, f"{path}.per", "a month has no fixed length: use window: calendar")
    elif not (isinstance(limit.per, str) and limit.per in PERIODS):
        try:
            seconds(limit.per)
        except ValueError as error:
            note(problems, f"{path}.per", str(error))
    if limit.burst is not None and limit.window not in {None, "bucket"}:
        note(problems, f"{path}.burst", f"only a bucket has a burst, not window: {limit.window}")
    if limit.adaptive_burst and (
        limit.meter is not Meter.REQUESTS or limit.window not in {None, "bucket"}
    ):
        # A request of many tokens might never fit again.
        note(problems, f"{path}.adaptive_burst", "is for buckets of the meter requests")
    if limit.aimd and limit.window not in {None, "bucket"}:
        note(problems, f"{path}.aimd", f"is for buckets, not window: {limit.window}")
    if limit.reserve is not None and limit.meter is Meter.REQUESTS:
        note(problems, f"{path}.reserve", f"does not apply to the meter {limit.meter}")
    if limit.meter is Meter.COST_USD and limit.reserve not in {None, *RESERVES_OF_MONEY}:
        allowed = ", ".join(f"`{each}`" for each in RESERVES_OF_MONEY)
        note(problems, f"{path}.reserve", f"{limit.reserve!r}: money is held by {allowed}")


def check_calendar(path: str, limit: LimitConfig, problems: list[ConfigProblem]) -> None:
    if limit.per not in get_args(Calendar):
        allowed = ", ".join(get_args(Calendar))
        note(problems, f"{path}.per", f"{limit.per!r}: a calendar window is one of {allowed}")
    try:
        ZoneInfo(limit.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        note(problems, f"{path}.timezone", f"{limit.timezone!r} is not a known time zone")
