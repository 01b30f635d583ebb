"""JSON payloads to Structs, tolerant of what servers really send.

The fast path is msgspec. What it refuses is read again, slowly: invalid UTF-8 becomes
U+FFFD, NaN and lone surrogates pass, and a field of an unexpected type counts as absent,
so that one odd field does not cost the frame.
"""

import json
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec

from client_sdk.streaming.answer import Answer

T = TypeVar("T", bound=msgspec.Struct)
_DEEPEST = 200


class BadPayload(Exception):  # what was found
    """The data is no JSON."""


def loads(data: bytes, answer: Answer) -> Any:  # any JSON
    """*data* as a value; BadPayload when it is no JSON."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        answer.invalid_utf8 += 1
    try:
        value = json.loads(text)
        return _without_surrogates(value, answer) if "\\ud" in text.lower() else value
    except (ValueError, RecursionError) as error:
        # The cause would carry the payload into tracebacks and logs.
        raise BadPayload(type(error).__name__) from None


def reader(kind: type[T]) -> Callable[[bytes, Answer], T | None]:
    """A function that reads *kind*: None for JSON that is no object, which is ignored."""
    decode = msgspec.json.Decoder(kind).decode

    def read(data: bytes, answer: Answer) -> T | None:
        try:
            return decode(data)
        except (ValueError, RecursionError):
            pass
        value = loads(data, answer)
        if not isinstance(value, dict):
            answer.ignored_frames += 1
            return None
        try:
            return msgspec.convert(value, kind)
        except (ValueError, RecursionError):
            answer.flags["odd_fields"] = None
        return typing.cast("T", _convert(value, kind, 0))

    return read


def _convert(value: dict[str, Any], kind: type[msgspec.Struct], depth: int) -> msgspec.Struct:
    """A Struct from the fields of *value* that fit."""
    given: dict[str, Any] = {}
    for name, encoded, wanted in _fields(kind):
        if encoded not in value:
            continue
        item = value[encoded]
        try:
            given[name] = msgspec.convert(item, wanted, strict=False)
        except (ValueError, RecursionError):
            inner, is_list = _struct_in(wanted)
            if inner is None or depth > _DEEPEST:
                continue
            if isinstance(item, dict) and not is_list:
                given[name] = _convert(item, inner, depth + 1)
            elif isinstance(item, list) and is_list:
                given[name] = [_convert(x, inner, depth + 1) for x in item if isinstance(x, dict)]
    return kind(**given)


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    return tuple((f.name, f.encode_name, f.type) for f in msgspec.structs.fields(kind))


def _struct_in(wanted: object) -> tuple[type[msgspec.Struct] | None, bool]:
    """The Struct inside a field's type, and whether the field is a list of it."""
    options = (
        typing.get_args(wanted)
        if isinstance(wanted, types.UnionType) or typing.get_origin(wanted) is typing.Union
        else (wanted,)
    )
    for option in options:
        is_list = typing.get_origin(option) is list
        inner = typing.get_args(option)[0] if is_list else option
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return inner, is_list
    return None, False


def _without_surrogates(value: Any, answer: Answer) -> Any:  # any JSON
    """*value* with U+FFFD for halves of surrogate pairs, which no encoder takes."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            answer.invalid_utf8 += 1
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, list):
        return [_without_surrogates(item, answer) for item in value]
    if isinstance(value, dict):
        return {
            _without_surrogates(key, answer): _without_surrogates(item, answer)
            for key, item in value.items()
        }
    return value
