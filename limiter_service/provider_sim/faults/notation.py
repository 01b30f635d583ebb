"""How faults are written: `drop-after-bytes=200; reset, gzip`.

Faults are separated by commas and apply in their order; each is a name, a value where it
has one, and settings after semicolons. A whole number may be a span, `3..9`, out of which
each request gets one.
"""

import math
import random
import re
from enum import StrEnum

import msgspec

from limiter_service.provider_sim.problems import Kind


class FaultError(ValueError):
    """This is no fault; says what is wrong with it."""


class Effect(StrEnum):
    """What a fault does."""

    ERROR = "error"
    STATUS = "status"
    DROP_BEFORE_HEADERS = "drop-before-headers"
    DROP_AFTER_BYTES = "drop-after-bytes"
    DROP_AFTER_CHUNKS = "drop-after-chunks"
    STALL_BEFORE_HEADERS = "stall-before-headers"
    STALL_BEFORE_TOKEN = "stall-before-token"  # noqa: S105 - a token of text
    STALL_AFTER_CHUNKS = "stall-after-chunks"
    SLOW_FIRST_TOKEN = "slow-first-token"  # noqa: S105 - a token of text
    TRICKLE = "trickle"
    PING_ONLY = "ping-only"
    PINGS = "pings"
    GARBAGE_AFTER_CHUNKS = "garbage-after-chunks"
    ERROR_AFTER_CHUNKS = "error-after-chunks"
    TRUNCATE = "truncate"
    TRUNCATE_AFTER_CHUNKS = "truncate-after-chunks"
    NO_TERMINATOR = "no-terminator"
    HOLD_OPEN = "hold-open"
    DUPLICATE_START = "duplicate-start"
    SPLICE_AFTER_CHUNKS = "splice-after-chunks"
    CONTENT_TYPE = "content-type"
    HTML = "html"
    ERROR_BODY = "error-body"
    GZIP = "gzip"


_COUNTED = {
    Effect.STATUS,
    Effect.DROP_AFTER_BYTES,
    Effect.DROP_AFTER_CHUNKS,
    Effect.STALL_AFTER_CHUNKS,
    Effect.TRICKLE,
    Effect.PINGS,
    Effect.GARBAGE_AFTER_CHUNKS,
    Effect.ERROR_AFTER_CHUNKS,
    Effect.TRUNCATE_AFTER_CHUNKS,
    Effect.SPLICE_AFTER_CHUNKS,
}
# The value of these is a number of seconds, and may be left out where there is no end.
_TIMED = {Effect.STALL_BEFORE_HEADERS, Effect.STALL_BEFORE_TOKEN, Effect.SLOW_FIRST_TOKEN}
_NAMED = {Effect.ERROR, Effect.ERROR_BODY}
# What only a request itself can bring about.
_NO_FAULTS = {Kind.MISSING, Kind.ROUTE, Kind.METHOD, Kind.INVALID, Kind.TOO_LARGE}
_SEPARATE = re.compile(r"\s*,\s*")
_SPAN = re.compile(r"(\d{1,9})(?:\.\.(\d{1,9}))?", re.ASCII)
_RULE = re.compile(r"(.*\S)\s*@\s*(\S+)", re.DOTALL)
_STATUSES = range(400, 600)


class Span(msgspec.Struct, frozen=True):
    """Whole numbers from `least` to `most`, both included."""

    least: int
    most: int


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    `seconds` is how long it lasts, None without end, or the time between its repetitions;
    `count` how often it repeats. All times are the caller's.
    """

    effect: Effect
    at: Span = Span(0, 0)
    seconds: float | None = None
    count: int | None = None
    reset: bool = False
    kind: Kind = Kind.OVERLOADED
    retry_after: float | None = None
    text: str = ""

    def drawn(self, chance: random.Random) -> "Fault":
        """The fault with one number out of its span."""
        number = chance.randint(self.at.least, self.at.most)
        return msgspec.structs.replace(self, at=Span(number, number))

    @property
    def number(self) -> int:
        """The number, once it is drawn."""
        return self.at.least


def parse(text: str) -> list[Fault]:
    """The faults that `text` names. Raises FaultError."""
    return [_fault(part) for part in _SEPARATE.split(text.strip()) if part]


def parse_rule(text: str) -> tuple[str, float]:
    """Faults and the share of requests that they hit: `drop-after-chunks=3 @ 0.01`."""
    found = _RULE.fullmatch(text.strip())
    faults, share = found.groups() if found else (text, "1")
    if not parse(faults):
        raise FaultError("no fault is named")
    rate = _seconds("the share", share)
    if rate > 1:
        raise FaultError(f"the share of requests is {share}: it is between 0 and 1")
    return faults, rate


def _fault(text: str) -> Fault:
    first, *rest = (part.strip() for part in text.split(";"))
    name, equals, value = (part.strip() for part in first.partition("="))
    fault = _named(name, value if equals else None)
    for setting in rest:
        fault = _with(fault, setting)
    return fault


def _named(name: str, value: str | None) -> Fault:
    if name in _kinds():  # an error by its own name
        return Fault(effect=Effect.ERROR, kind=_kind(name))
    if name not in list(Effect):
        raise FaultError(f"{name!r} is no fault; known: {', '.join([*Effect, *_kinds()])}")
    effect = Effect(name)
    if effect in _COUNTED:
        return Fault(effect=effect, at=_span(effect, value))
    if effect in _NAMED:
        return Fault(effect=effect, kind=_kind(value or Kind.SERVER))
    if effect in _TIMED:
        if value is None and effect is Effect.SLOW_FIRST_TOKEN:
            raise FaultError(f"{name} needs a number of seconds")
        return Fault(effect=effect, seconds=None if value is None else _seconds(name, value))
    if effect is Effect.CONTENT_TYPE:
        return Fault(effect=effect, text=value or "text/html")
    if value is not None:
        raise FaultError(f"{name} takes no value")
    return Fault(effect=effect)


def _with(fault: Fault, setting: str) -> Fault:
    name, _, value = (part.strip() for part in setting.partition("="))
    match name:
        case "reset":
            return msgspec.structs.replace(fault, reset=True)
        case "seconds" | "every":
            return msgspec.structs.replace(fault, seconds=_seconds(name, value))
        case "retry-after":
            return msgspec.structs.replace(fault, retry_after=_seconds(name, value))
        case "kind":
            return msgspec.structs.replace(fault, kind=_kind(value))
        case "count":
            span = _span(Effect.PINGS, value)
            return msgspec.structs.replace(fault, count=span.least)
        case _:
            known = "reset, seconds, every, count, kind, retry-after"
            raise FaultError(f"{name!r} is no setting; known: {known}")


def _span(effect: Effect, value: str | None) -> Span:
    found = _SPAN.fullmatch(value or "")
    if found is None:
        raise FaultError(f"{effect} needs a whole number, or a span of them such as 3..9")
    least = int(found[1])
    most = int(found[2]) if found[2] else least
    if effect is Effect.STATUS and not (least in _STATUSES and most in _STATUSES):
        raise FaultError("status is one from 400 to 599")
    if most < least or (effect is Effect.TRICKLE and least < 1):
        raise FaultError(f"{effect} cannot be {value}")
    return Span(least, most)


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise FaultError(f"{name} needs a number that is not negative, not {value!r}")
    return seconds


def _kind(name: str) -> Kind:
    if name not in _kinds():
        raise FaultError(f"{name!r} is no error; known: {', '.join(_kinds())}")
    return Kind(name)


def _kinds() -> list[str]:
    return [kind for kind in Kind if kind not in _NO_FAULTS]
