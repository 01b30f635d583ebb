"""What a worker has asked and what it was told, one line for each, on disk before it goes on."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from limiter_wire import Acquire, Settle

GRANTED, SETTLED, RENEWED = "granted", "settled", "renewed"
REFUSED, UNKNOWN, CANCELLED = "refused", "unknown", "cancelled"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call begins, with what it asks for; or it ends, with what it was told. `at` is the wall
    clock of the host, which nobody moves.
    """

    call: int
    at: float
    acquire: Acquire | None = None
    settle: Settle | None = None
    renew: str = ""
    told: str = ""
    lease: str = ""
    request: str = ""
    code: str = ""
    again: bool = False
    text: str = ""


class Diary:
    """Keeps one file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._calls = 0

    def asks(
        self, *, acquire: Acquire | None = None, settle: Settle | None = None, renew: str = ""
    ) -> int:
        """A call begins; its number."""
        self._calls += 1
        self._write(Line(self._calls, time.time(), acquire, settle, renew))
        return self._calls

    def hears(  # what an answer may carry
        self,
        call: int,
        told: str,
        *,
        lease: str = "",
        request: str = "",
        code: str = "",
        again: bool = False,
        text: str = "",
    ) -> None:
        """A call ends."""
        self._write(
            Line(call, time.time(), None, None, "", told, lease, request, code, again, text)
        )

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()

    def _write(self, line: Line) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")


class Call(msgspec.Struct):
    """A call from its beginning to its end; `end` is None where nobody has seen one."""

    worker: str
    begin: Line
    end: Line | None = None

    @property
    def told(self) -> str:
        """How it ended."""
        return self.end.told if self.end else UNKNOWN

    @property
    def until(self) -> float:
        """When it ended."""
        return self.end.at if self.end else float("inf")


def read(paths: Iterable[Path]) -> list[Call]:
    """Every call of these diaries, by the time at which it began."""
    calls = [call for path in paths for call in _calls(path)]
    return sorted(calls, key=lambda call: call.begin.at)


def _calls(path: Path) -> Iterator[Call]:
    decoder = msgspec.json.Decoder(Line)
    found: dict[int, Call] = {}
    for text in path.read_bytes().split(b"\n"):
        with contextlib.suppress(msgspec.DecodeError):  # of a worker that was killed in a line
            line = decoder.decode(text)
            if line.told:
                found[line.call].end = line
            else:
                found[line.call] = Call(path.stem, line)
    yield from found.values()
