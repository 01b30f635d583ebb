"""What a caller can say about one call, sorted by who reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

DEFAULT_MAX_WAIT = 30.0
"""Seconds that a call waits for its turn at the limiter."""

Message = Mapping[str, Any]
Tool = Mapping[str, Any]


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer is made, in words that are translated for each provider.

    `extra` goes into the request's body as it is; objects are merged with those that are
    there.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] | None = None
    seed: int | None = None
    tool_choice: Any = None
    extra: Mapping[str, Any] = {}


class Budgeting(msgspec.Struct, frozen=True, kw_only=True):
    """What the limiter is told about the call."""

    tenant: str | None = None
    priority: int = 5
    max_wait: float = DEFAULT_MAX_WAIT
    request_id: str | None = None
    route: str | None = None
    worker: str | None = None
    ttl: float | None = None


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All options of one call; `headers` are added to the request's."""

    generation: Generation = Generation()
    budgeting: Budgeting = Budgeting()
    headers: Mapping[str, str] = {}


_GENERATION = frozenset(Generation.__struct_fields__) - {"extra"}
_BUDGETING = frozenset(Budgeting.__struct_fields__)


def sorted_options(options: Mapping[str, Any]) -> CallOptions:
    """The options of one call by their readers; what nobody knows goes to the provider."""
    left = dict(options)
    headers = left.pop("extra_headers", None) or {}
    extra = dict(left.pop("extra_body", None) or {})
    for name in ("max_completion_tokens", "max_output_tokens"):
        if name in left:
            left.setdefault("max_tokens", left.pop(name))
    if isinstance(left.get("stop"), str):
        left["stop"] = [left["stop"]]
    generation = {name: left.pop(name) for name in _GENERATION & left.keys()}
    budgeting = {name: left.pop(name) for name in _BUDGETING & left.keys()}
    if "stream" in left:
        raise TypeError("`stream` is chosen by the method, not by an option")
    return CallOptions(
        generation=Generation(**generation, extra={**left, **extra}),
        budgeting=Budgeting(**budgeting),
        headers=dict(headers),
    )


def merged(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """*body* with *extra* in it; an object is merged into the object that is there."""
    for name, value in extra.items():
        here = body.get(name)
        if isinstance(here, dict) and isinstance(value, Mapping):
            merged(here, value)
        else:
            body[name] = value
    return body


def given(**fields: Any) -> dict[str, Any]:
    """Those of *fields* that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
