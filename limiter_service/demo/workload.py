"""The calls that the demo makes: recorded in a trace file, or drawn like a real chat service.

Two formats are understood, told apart by content: the Azure inference traces (CSV with
TIMESTAMP, ContextTokens, GeneratedTokens) and the Mooncake traces (JSON lines with
timestamp in milliseconds, input_length, output_length).
"""

import bisect
import csv
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=100_000_000)]


class TraceError(ValueError):
    """A trace cannot be read; says where and why."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        self.path = path
        self.line = line
        self.problem = problem
        super().__init__(f"{path}:{line}: {problem}" if line else f"{path}: {problem}")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call to a model, due `at` seconds after the start."""

    at: float
    input_tokens: int
    output_tokens: int


class _AzureRow(msgspec.Struct, frozen=True, kw_only=True):
    timestamp: str = msgspec.field(name="TIMESTAMP")
    input_tokens: Count = msgspec.field(name="ContextTokens")
    output_tokens: Count = msgspec.field(name="GeneratedTokens")


class _MooncakeRow(msgspec.Struct, frozen=True, kw_only=True):
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    input_length: Count
    output_length: Count


_AZURE_NAMES = _AzureRow.__struct_encode_fields__
_mooncake = msgspec.json.Decoder(_MooncakeRow)

# Some recordings know the time of a call only to about three seconds.
_COARSEST_CLOCK = 3.0


def read_trace(path: Path, chance: random.Random) -> list[Call]:
    """The calls of a trace in order of time, the first at 0.

    Calls that share a timestamp are spread, with `chance`, over the time to the next one.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise TraceError(path, None, str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise TraceError(path, None, f"is not UTF-8 text ({error.reason})") from error
    calls = sorted(_calls(path, lines), key=lambda call: call.at)
    if not calls:
        raise TraceError(path, None, "holds no calls")
    first = calls[0].at
    return _spread([_moved(call, call.at - first) for call in calls], chance)


def within(calls: Sequence[Call], minutes: float) -> list[Call]:
    """The calls of the first `minutes`."""
    return [call for call in calls if call.at < minutes * 60]


def _calls(path: Path, lines: Iterable[str]) -> Iterator[Call]:
    numbered: Iterator[tuple[int, str]]
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    number, opening = next(numbered, (None, ""))
    if number is None:
        raise TraceError(path, None, "is empty")
    names = [name.strip() for name in opening.split(",")]
    if opening.lstrip().startswith("{"):
        parse = _mooncake_call
        numbered = itertools.chain([(number, opening)], numbered)
    elif set(_AZURE_NAMES) <= set(names):
        parse = functools.partial(_azure_call, names)
    else:
        problem = f"is neither a CSV header with {','.join(_AZURE_NAMES)} nor a JSON object"
        raise TraceError(path, number, problem)
    for number, line in numbered:
        try:
            yield parse(line)
        except (ValueError, csv.Error, RecursionError) as error:
            raise TraceError(path, number, str(error)) from error


def _azure_call(names: list[str], line: str) -> Call:
    fields = [field.strip() for field in next(csv.reader([line]))]
    if len(fields) != len(names):
        raise ValueError(f"has {len(fields)} fields, but the header has {len(names)}")
    # Not strict: every field of a CSV is text.
    row = msgspec.convert(dict(zip(names, fields, strict=True)), _AzureRow, strict=False)
    at = datetime.fromisoformat(row.timestamp)
    return Call(
        at=(at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(),
        input_tokens=max(1, row.input_tokens),
        output_tokens=max(1, row.output_tokens),
    )


def _mooncake_call(line: str) -> Call:
    row = _mooncake.decode(line)
    return Call(
        at=row.timestamp / 1000,
        input_tokens=max(1, row.input_length),
        output_tokens=max(1, row.output_length),
    )


def _spread(calls: list[Call], chance: random.Random) -> list[Call]:
    """Move calls with one timestamp apart; a call that has its own keeps it."""
    groups = [list(group) for _, group in itertools.groupby(calls, key=lambda call: call.at)]
    ends = [*(group[0].at for group in groups[1:]), math.inf]
    spread: list[Call] = []
    for group, end in zip(groups, ends, strict=True):
        width = min(_COARSEST_CLOCK, end - group[0].at)
        times = sorted(group[0].at + chance.random() * width for _ in group[1:])
        spread.append(group[0])
        spread += [_moved(call, at) for call, at in zip(group[1:], times, strict=True)]
    return spread


def _moved(call: Call, at: float) -> Call:
    return msgspec.structs.replace(call, at=at)


# The conversation service of the Azure 2023 trace, in figures. Its sizes have two humps
# (a prompt that fills the context is as common as a middling one), which a lognormal
# with the right mean and median misses by half at the 95th percentile. Hence quantiles:
# (share of calls, tokens at most), with straight lines between logarithms.
_PER_MINUTE = 332.0
_GAP_VARIATION = 1.09
_INPUT = (
    *((0.0, 2), (0.01, 29), (0.05, 181), (0.2, 387), (0.3, 403), (0.4, 703), (0.5, 1020)),
    *((0.75, 1189), (0.8, 1315), (0.9, 2734), (0.92, 4073), (0.99, 4142), (0.999, 6122)),
    (1.0, 14050),
)
_OUTPUT = (
    *((0.0, 7), (0.01, 16), (0.05, 41), (0.2, 77), (0.4, 103), (0.5, 129), (0.6, 177)),
    *((0.7, 384), (0.8, 400), (0.95, 451), (0.99, 601), (0.999, 954), (1.0, 1000)),
)


def generate(minutes: float, chance: random.Random) -> list[Call]:
    """Calls drawn like those of a chat service, for `minutes`."""
    # Gaps of a gamma distribution have the variation 1 / sqrt(shape).
    shape = 1 / _GAP_VARIATION**2
    scale = 60 / _PER_MINUTE / shape
    calls, at = [], 0.0
    while at < minutes * 60:
        call = Call(
            at=at,
            input_tokens=_draw(_INPUT, chance),
            output_tokens=_draw(_OUTPUT, chance),
        )
        calls.append(call)
        at += chance.gammavariate(shape, scale)
    return calls


def _draw(quantiles: tuple[tuple[float, int], ...], chance: random.Random) -> int:
    share = chance.random()
    right = bisect.bisect_right(quantiles, share, key=lambda point: point[0])
    (low, small), (high, large) = quantiles[right - 1], quantiles[right]
    return round(small * math.pow(large / small, (share - low) / (high - low)))


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """The load of a workload per minute, and its largest call, in tokens charged."""

    requests: float
    tokens: float
    largest: int


def offered(calls: Sequence[Call], charge: Callable[[Call], int]) -> Offered:
    """What `calls` ask of a provider that counts each of them as `charge` says."""
    minutes = max(1.0, _duration(calls) / 60)
    charges = [charge(call) for call in calls]
    return Offered(
        requests=len(calls) / minutes, tokens=sum(charges) / minutes, largest=max(charges)
    )


def _duration(calls: Sequence[Call]) -> float:
    """From the first call to one mean gap after the last."""
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(calls)]
    return sum(gaps) * len(calls) / len(gaps) if gaps else 0.0
