"""Plain values to Structs, with every problem noted."""

import types
import typing
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

import msgspec

from limiter_service.config.checks import (
    check_breaker,
    check_limit,
    check_limit_names,
    check_name,
    check_provider,
    check_shares,
)
from limiter_service.config.durations import Duration, seconds
from limiter_service.config.problems import ConfigProblem, join, note
from limiter_service.config.sections import (
    BreakerConfig,
    LimitConfig,
    Limited,
    PoolConfig,
    QueueConfig,
    RampConfig,
)
from limiter_wire import Meter


def build(
    kind: Any, raw: Any, path: str, problems: list[ConfigProblem]
) -> Any:  # walks annotations
    """Convert *raw* to *kind* piece by piece, so that one bad value hides no other."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _build_struct(kind, raw, path, problems)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == RampConfig | None:
        return None if raw is None else _build_struct(RampConfig, raw, path, problems)
    if (
        origin is dict
        and isinstance(arguments[1], type)
        and issubclass(arguments[1], msgspec.Struct)
    ):
        if not isinstance(raw, dict):
            return note(problems, path, f"{_kind(raw)} is not a mapping")
        for key in raw:
            check_name(arguments[1], path, str(key), problems)
        return {
            str(key): build(arguments[1], {} if value is None else value, join(path, key), problems)
            for key, value in raw.items()
        }
    if origin is list:
        if not isinstance(raw, list):
            return note(problems, path, f"{_kind(raw)} is not a list")
        return [build(arguments[0], item, f"{path}[{i}]", problems) for i, item in enumerate(raw)]
    try:
        value = msgspec.convert(raw, kind)
        if kind == Duration or (kind == Duration | None and value is not None):
            seconds(value)
    except msgspec.ValidationError as error:
        return note(problems, path, f"{raw!r}: {_explain(str(error), kind)}")
    except ValueError as error:
        return note(problems, path, str(error))
    return value


def _build_struct(
    kind: type[msgspec.Struct],
    raw: Any,
    path: str,
    problems: list[ConfigProblem],
) -> Any:
    if not isinstance(raw, dict):
        return note(problems, path or "file", f"{_kind(raw)} is not a mapping")
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key in raw:
        if key not in fields:
            near = get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(fields)}"
            note(problems, join(path, key), f"unknown key{hint}")
    before, values = len(problems), {}
    for name, field in fields.items():
        if name in raw:
            values[name] = build(field.type, raw[name], join(path, name), problems)
        elif field.required:
            note(problems, join(path, name), "is required")
    if len(problems) > before:
        return None
    built = kind(**values)
    if isinstance(built, LimitConfig):
        check_limit(path, built, problems)
    elif isinstance(built, BreakerConfig):
        check_breaker(path, built, problems)
    elif isinstance(built, Limited):
        check_limit_names(path, built, problems)
    elif isinstance(built, QueueConfig):
        check_shares(f"{path}.priority_shares", built, problems)
    if isinstance(built, PoolConfig):
        check_provider(path, built, problems)
    return built


def _explain(message: str, kind: Any) -> str:
    if get_origin(kind) is dict and "enum value" in message:  # a key that is not allowed
        kind = get_args(kind)[0]
    allowed = list(kind) if isinstance(kind, type) and issubclass(kind, Meter) else _literals(kind)
    if allowed:
        return f"allowed: {', '.join(allowed)}"
    return (
        message.split(" - at", maxsplit=1)[0][0].lower() + message.split(" - at", maxsplit=1)[0][1:]
    )


def _literals(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) in {typing.Union, types.UnionType}:
        return [text for part in get_args(kind) for text in _literals(part)]
    return []


def _kind(raw: Any) -> str:
    return "nothing" if raw is None else f"{raw!r}" if len(repr(raw)) < 60 else type(raw).__name__  # noqa: PLR2004
