"""Server-sent events: bytes in, events and heartbeats out, by the rules of WHATWG.

Lines end with LF, CR or CR LF, and an event at an empty line. A CR ends its line at once;
an LF that follows it, perhaps in the next chunk, belongs to it. Line ends are made LF once
per chunk, so that everything behind works on `bytes.split`. The pieces of a long line wait
in a list and are joined once: time is linear however the stream is cut.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from client_sdk.errors import ProtocolError

_BOM = b"\xef\xbb\xbf"
_LF, _CR = b"\n\r"
_PINGS = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})
_LOOKAHEAD = 4096
_STRAY = 65_536


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event of a stream; `terminated` is False for a last one that lacks its end.

    `data` is as received; `text` is what WHATWG makes of it.
    """

    event: str
    data: bytes
    id: str = ""
    terminated: bool = True

    @property
    def text(self) -> str:
        """The data as text, with U+FFFD for bytes that are no UTF-8."""
        return self.data.decode("utf-8", "replace")


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """A sign of life without content: a comment, a named ping, or a frame without data."""

    kind: Literal["comment", "ping", "control"]
    text: str = ""


class SSEDecoder:
    """Decodes one stream of server-sent events.

    `max_event_bytes` bounds a line and the data of an event. Events before one that is
    larger are still delivered; then `broken` says why, and `feed` raises ProtocolError.
    """

    def __init__(self, max_event_bytes: int | None = None) -> None:
        self.broken: str | None = None
        self.last_event_id = ""
        self.retry: int | None = None
        self.stray = b""
        self._limit = sys.maxsize if max_event_bytes is None else max_event_bytes
        self._head = b""
        self._started = False
        self._skip_lf = False
        # The line under way. The list is never replaced: `iter_events` holds on to it.
        self._parts: list[bytes] = []
        self._held = 0
        self._reset_event()

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """Take the next bytes; return what they complete."""
        if self.broken is not None:
            raise ProtocolError(self.broken)
        out: list[Event | Heartbeat] = []
        # `10 in data` finds a byte many times faster than `b"\n" in data`, and so does a
        # split at one byte than at two.
        if self._parts and _LF not in data and _CR not in data:
            self._hold(data)
            return out
        if not self._started or self._skip_lf or _CR in data:
            data = self._with_lf(data)
        lines = data.split(b"\n")
        tail = lines.pop()
        if lines:
            if self._parts:
                self._parts.append(lines[0])
                lines[0] = b"".join(self._parts)
                self._parts.clear()
                self._held = 0
            self._take(lines, out)
        if tail and self.broken is None:
            self._hold(tail)
        return out

    def flush(self) -> list[Event | Heartbeat]:
        """End the stream; an event that lacks its empty line comes unterminated."""
        if self.broken is not None:
            raise ProtocolError(self.broken)
        out: list[Event | Heartbeat] = []
        line = b"".join(self._parts) or self._head
        if line == b"data" or line.startswith((b"data:", b":")):
            self._line(line, out)
        elif line:
            # A name or an id that was cut is worse than none.
            self._note_stray(line)
        if self._data and self.broken is None:
            data = b"\n".join(self._data)
            out.append(Event(self._event or "message", data, self.last_event_id, False))
        self._head, self._started, self._skip_lf = b"", False, False
        self._parts.clear()
        self._held = 0
        self._reset_event()
        return out

    def iter_events(self, chunks: Iterable[bytes]) -> Iterator[Event | Heartbeat]:
        """Decode *chunks* to their end, never far ahead of the consumer."""
        parts, bounded = self._parts, self._limit < sys.maxsize
        for chunk in chunks:
            # Tiny chunks inside a line: a method call each would cost more than the work.
            if parts and _LF not in chunk and _CR not in chunk and self.broken is None:
                if bounded:
                    self._hold(chunk)
                else:
                    parts.append(chunk)
            elif len(chunk) <= _LOOKAHEAD:
                yield from self.feed(chunk)
            else:
                for start in range(0, len(chunk), _LOOKAHEAD):
                    yield from self.feed(chunk[start : start + _LOOKAHEAD])
        yield from self.flush()

    def _with_lf(self, data: bytes) -> bytes:
        """*data* without a BOM at the start of the stream, every line end an LF."""
        if not self._started:
            data = self._head + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return b""
            self._head, self._started = b"", True
            data = data.removeprefix(_BOM)
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        if _CR in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _take(self, lines: list[bytes], out: list[Event | Heartbeat]) -> None:
        """Take whole lines: the usual shapes of an event at once, anything else one by one."""
        limit, rest = self._limit, iter(lines)
        for line in rest:
            if self._open or len(line) > limit:
                slow: tuple[bytes | None, ...] = (line,)
            elif line.startswith(b"data: "):
                after = next(rest, None)
                if after == b"":
                    out.append(Event("message", line[6:], self.last_event_id))
                    continue
                slow = (line, after)
            elif line.startswith(b"event: "):
                second = next(rest, None)
                if second is None or not second.startswith(b"data: ") or len(second) > limit:
                    slow = (line, second)
                elif (third := next(rest, None)) == b"":
                    named = line[7:].decode("utf-8", "replace") or "message"
                    out.append(Event(named, second[6:], self.last_event_id))
                    continue
                else:
                    slow = (line, second, third)
            else:
                slow = (line,)
            for each in slow:
                if each is not None:
                    self._line(each, out)
                if self.broken is not None:
                    return

    def _hold(self, piece: bytes) -> None:
        self._parts.append(piece)
        self._held += len(piece)
        if self._held > self._limit:
            self._break()

    def _line(self, line: bytes, out: list[Event | Heartbeat]) -> None:
        if not line:
            self._dispatch(out)
            return
        if len(line) > self._limit:
            self._break()
            return
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + bool(self._data)
            if self._size > self._limit:
                self._break()
                return
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self.last_event_id = value.decode("utf-8", "replace")
        elif name == b"retry":
            if value.isdigit():  # of bytes: ASCII digits only
                # No more digits than a number of milliseconds can need.
                self.retry = int(value.lstrip(b"0")[:18] or b"0")
        else:
            if colon and not name:
                out.append(Heartbeat("comment", value.decode("utf-8", "replace")))
            else:
                self._note_stray(line)
            return
        self._open = True

    def _dispatch(self, out: list[Event | Heartbeat]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            out.append(Event(self._event or "message", data, self.last_event_id))
        elif self._open:
            kind: Literal["ping", "control"] = "ping" if self._event in _PINGS else "control"
            out.append(Heartbeat(kind, self._event))
        else:
            return
        self._reset_event()

    def _reset_event(self) -> None:
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._open = False

    def _note_stray(self, line: bytes) -> None:
        """Keep the last line that is no field: gateways put their errors there."""
        self.stray = line[:_STRAY]

    def _break(self) -> None:
        self.broken = f"an event is larger than max_event_bytes={self._limit}"
        self._parts.clear()
        self._reset_event()
