"""A provider that nobody described: bytes pass, clocks and counters run."""

from typing import ClassVar

from client_sdk.streaming.dialects._dialect import Dialect, Framing
from client_sdk.streaming.sse import Event, Heartbeat


class RawDecoder:
    """Each read is an event, but for one that is nothing but a comment line."""

    broken: str | None = None
    stray = b""

    def __init__(self, max_event_bytes: int | None = None) -> None:
        """Nothing is kept, so nothing needs a bound."""

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """Take the next bytes."""
        if data.startswith(b":") or not data.strip():
            line = data.strip()
            if b"\n" not in line and b"\r" not in line:
                return [Heartbeat("comment", line[1:].decode("utf-8", "replace").strip())]
        return [Event("message", data)]

    def flush(self) -> list[Event | Heartbeat]:
        """Nothing is left."""
        return []


class Unknown(Dialect):
    """`unknown`: what arrives counts as content, and the end of the bytes as the end."""

    framing: ClassVar[Framing] = RawDecoder
    first_bytes: ClassVar[bytes] = b""
    has_terminator: ClassVar[bool] = False

    def read(self, event: Event) -> None:
        """Hand the bytes on."""
        self.answer.other(event.data, progress=True)

    def complete_at_eof(self) -> bool:
        """Nobody can know; what arrived is taken as the answer."""
        return self.answer.content_events > 0
