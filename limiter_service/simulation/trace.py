"""Calls to replay: recorded traces, or a table of one's own.

Beside the two formats of demo/workload.py a trace may be a CSV file with a head, or JSON lines,
of these columns:

    at                 seconds from the start
    input_tokens       size of the input
    output_tokens      size of the answer
    max_output_tokens  what is reserved for it (default: the option)
    resource           pool/model (default: the option)
    tenant, priority   who asks, and how urgently (default: `default`, 5)
"""

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from limiter_service.demo.workload import TraceError, read_trace

Count = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]
Size = Annotated[int, msgspec.Meta(ge=1, le=100_000_000)]


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call, due *at* seconds after the start."""

    at: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    input_tokens: Size
    output_tokens: Count
    max_output_tokens: Count | None = None
    resource: str | None = None
    tenant: str = "default"
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5


_OWN = {"at", "input_tokens", "output_tokens"}
_COLUMNS = Call.__struct_fields__
_decode = msgspec.json.Decoder(Call).decode


def read(path: Path, seed: int) -> list[Call]:
    """The calls of a trace in order of time. Raises TraceError.

    Recorded times that are too coarse are spread, with *seed*.
    """
    rows = _own_rows(path)
    if rows is None:
        recorded = read_trace(path, random.Random(seed))  # noqa: S311  # no secret
        return [
            Call(at=each.at, input_tokens=each.input_tokens, output_tokens=each.output_tokens)
            for each in recorded
        ]
    calls = sorted(rows, key=lambda call: call.at)
    if not calls:
        raise TraceError(path, None, "holds no calls")
    return calls


def _own_rows(path: Path) -> list[Call] | None:
    """The rows of our own format; None when it is another's."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise TraceError(path, None, str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise TraceError(path, None, f"is not UTF-8 text ({error.reason})") from error
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("{"):
        return list(_json_rows(path, lines)) if '"at"' in first else None
    if "at" in (names := [name.strip() for name in first.split(",")]):
        return list(_csv_rows(path, lines, names))
    return None


def _json_rows(path: Path, lines: list[str]) -> Iterator[Call]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _decode(line)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise TraceError(path, number, str(error)) from error


def _csv_rows(path: Path, lines: list[str], names: list[str]) -> Iterator[Call]:
    if strange := [name for name in names if name not in _COLUMNS]:
        known = ", ".join(_COLUMNS)
        raise TraceError(path, 1, f"has the column {strange[0]!r}; there are: {known}")
    if missing := sorted(_OWN - set(names)):
        raise TraceError(path, 1, f"lacks the column {missing[0]}")
    body = (pair for pair in enumerate(lines, start=1) if pair[1].strip())
    next(body)
    for number, line in body:
        try:
            fields = [field.strip() for field in next(csv.reader([line]))]
            if len(fields) != len(names):
                problem = f"has {len(fields)} fields, but the head has {len(names)}"
                raise TraceError(path, number, problem)
            given = {name: f for name, f in zip(names, fields, strict=True) if f}
            yield msgspec.convert(given, Call, strict=False)
        except (msgspec.ValidationError, csv.Error) as error:
            raise TraceError(path, number, str(error)) from error
