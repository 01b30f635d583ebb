"""The limits that response headers tell: what is allowed, what remains, when it is back.

The families differ in names, periods and the writing of times; what a header rounds, or
does not know (-1), is marked as not to be trusted.
"""

from collections.abc import Iterable, Mapping

import msgspec

from limiter_wire.providers.rules import compiled
from limiter_wire.providers.times import read_moment

_PERIODS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "month": None}
_METERS = {
    "requests": "requests",
    "req": "requests",
    "tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
    "tokens-prompt": "input_tokens",
    "tokens-generated": "output_tokens",
    "project-tokens": "tokens",
    "project-requests": "requests",
    "": "requests",
}
_FIELDS = ("limit", "remaining", "reset")
_GENERIC = (
    r"^x-ratelimit-(limit|remaining|reset)"
    r"(?:-(.+?))??(?:-(second|minute|hour|day|month))?$"
)
_ANTHROPIC = r"^anthropic-((?:fast|priority)-)?ratelimit-(.+)-(limit|remaining|reset)$"
_ANTHROPIC_TIER = r"^anthropic-(fast|priority)-(.+)-(limit|remaining|reset)$"
_BY_SIZE = r"^(?:x-)?ratelimitbysize-(limit|remaining|reset)(?:-(minute|month))?$"
_MARKS = {"x-ratelimit-over-limit", "ratelimitbysize-query-cost"}


class Convention(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider means the headers that others send too.

    `periods` is the period of a dimension that its name does not tell. `rounded` is the unit
    to which `remaining` is rounded, 0 for none.
    """

    periods: dict[str, str] = {}
    rounded: dict[str, int] = {}


PLAIN = Convention()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as the provider told it.

    `per` is in seconds, None for a month. `trusted` says whether `remaining` may set a
    level: not when it is rounded, unknown, or stands alone. `full_reset` says that
    `reset_after` is when the limit is full again, not when the next request fits.
    """

    dimension: str
    meter: str
    per: float | None
    limit: float | None = None
    remaining: float | None = None
    reset_after: float | None = None
    reset_at: float | None = None
    trusted: bool = True
    full_reset: bool = False


def read_limits(
    headers: Mapping[str, str], now: float | None, convention: Convention = PLAIN
) -> list[Observed]:
    """Every limit in *headers* (names in lower case), in the order of their first header."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in headers.items():
        if "ratelimit" not in name and not name.startswith("anthropic-"):
            continue
        place = _place(name, convention)
        if place is not None:
            field, dimension, period = place
            found.setdefault((dimension, period), {})[field] = value
    limits = [_observed(dim, per, fields, now, convention) for (dim, per), fields in found.items()]
    return [*limits, *_standard(headers, now)]


def _place(name: str, convention: Convention) -> tuple[str, str, str] | None:
    """Field, dimension and period of a header's name."""
    if name in _MARKS:
        return None
    for pattern in (_ANTHROPIC, _ANTHROPIC_TIER):
        match = compiled(pattern).match(name)
        if match is not None:
            tier = (match[1] or "").strip("-")
            dimension = f"{tier}:{match[2]}" if tier else match[2]
            return match[3], dimension, "minute"
    match = compiled(_BY_SIZE).match(name)
    if match is not None:
        return match[1], "tokens", match[2] or "minute"
    match = compiled(_GENERIC).match(name)
    if match is None:
        return None
    dimension = match[2] or ""
    return match[1], dimension, match[3] or convention.periods.get(dimension, "minute")


def _observed(
    dimension: str,
    period: str,
    fields: Mapping[str, str],
    now: float | None,
    convention: Convention,
) -> Observed:
    remaining = _amount(fields.get("remaining"))
    moment = read_moment(fields.get("reset", ""), now)
    _, _, bare = dimension.rpartition(":")
    rounded = convention.rounded.get(bare, 0)
    return Observed(
        dimension=dimension,
        meter=_METERS.get(bare, bare.replace("-", "_")),
        per=_PERIODS[period],
        limit=_amount(fields.get("limit")),
        remaining=remaining,
        reset_after=None if moment is None else moment.after,
        reset_at=None if moment is None else moment.at,
        trusted=remaining is not None and rounded <= 1,
        full_reset=rounded > 0,
    )


def _amount(text: str | None) -> float | None:
    """A count; None for -1 and for what is no number."""
    if text is None or not compiled(r"^\d{1,15}(\.\d{1,6})?$").match(text.strip()):
        return None
    return float(text)


_ITEM = r'"([^"]{1,100})"((?:\s*;\s*[a-z]{1,20}=(?:"[^"]*"|[\w.-]+))*)'


def _standard(headers: Mapping[str, str], now: float | None) -> Iterable[Observed]:
    """`RateLimit` and `RateLimit-Policy`, the structured fields of the IETF's draft."""
    policies = dict(_structured(headers.get("ratelimit-policy", "")))
    for name, state in _structured(headers.get("ratelimit", "")):
        policy = policies.get(name, {})
        moment = read_moment(state.get("t", ""), now)
        window = _amount(policy.get("w"))
        remaining = _amount(state.get("r"))
        yield Observed(
            dimension=name,
            meter=policy.get("qu", "requests").strip('"').replace("-", "_"),
            per=window,
            limit=_amount(policy.get("q")),
            remaining=remaining,
            reset_after=None if moment is None else moment.after,
            reset_at=None if moment is None else moment.at,
            trusted=remaining is not None,
        )


def _structured(text: str) -> list[tuple[str, dict[str, str]]]:
    items = compiled(_ITEM).findall(text[:5000])
    return [
        (name, dict(part.strip().split("=", 1) for part in rest.split(";") if "=" in part))
        for name, rest in items
    ]


def reset_of_exhausted(limits: Iterable[Observed]) -> Observed | None:
    """The limit to wait for: of those with nothing left, the one that is back last."""
    waiting = [
        limit
        for limit in limits
        if limit.remaining is not None
        and limit.remaining <= 0
        and (limit.reset_after is not None or limit.reset_at is not None)
    ]
    return max(waiting, key=lambda each: each.reset_after or each.reset_at or 0, default=None)
