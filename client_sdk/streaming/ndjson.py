"""One JSON text per line, as Ollama streams it."""

import sys

from client_sdk.errors import ProtocolError
from client_sdk.streaming.sse import Event, Heartbeat

_SPACE = b" \t\r"


class NDJSONDecoder:
    """Decodes lines that end with LF; an empty line is a heartbeat.

    `max_event_bytes` bounds a line. Lines before one that is longer are still delivered;
    then `broken` says why, and `feed` raises ProtocolError.
    """

    stray = b""

    def __init__(self, max_event_bytes: int | None = None) -> None:
        self.broken: str | None = None
        self._limit = sys.maxsize if max_event_bytes is None else max_event_bytes
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """Take the next bytes; return what they complete."""
        if self.broken is not None:
            raise ProtocolError(self.broken)
        out: list[Event | Heartbeat] = []
        lines = data.split(b"\n")
        tail = lines.pop()
        if lines and self._parts:
            self._parts.append(lines[0])
            lines[0] = b"".join(self._parts)
            self._parts, self._held = [], 0
        for line in lines:
            if len(line) > self._limit:
                self._break()
                return out
            text = line.strip(_SPACE)
            out.append(Event("message", text) if text else Heartbeat("control"))
        if tail:
            # A list, joined once: a buffer that grows by += would be quadratic.
            self._parts.append(tail)
            self._held += len(tail)
            if self._held > self._limit:
                self._break()
        return out

    def flush(self) -> list[Event | Heartbeat]:
        """End the stream; a line without its LF comes unterminated."""
        if self.broken is not None:
            raise ProtocolError(self.broken)
        text = b"".join(self._parts).strip(_SPACE)
        self._parts, self._held = [], 0
        return [Event("message", text, terminated=False)] if text else []

    def _break(self) -> None:
        self.broken = f"a line is longer than max_event_bytes={self._limit}"
        self._parts = []
