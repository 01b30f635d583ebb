"""What all dialects have in common."""

from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

from client_sdk.streaming.answer import Answer
from client_sdk.streaming.faults import named_fault
from client_sdk.streaming.payload import loads
from client_sdk.streaming.sse import Event, Heartbeat, SSEDecoder

T = TypeVar("T")


class Decoder(Protocol):
    """Bytes to events: one per framing."""

    broken: str | None
    stray: bytes

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """Take the next bytes; return what they complete."""

    def flush(self) -> list[Event | Heartbeat]:
        """End the stream."""


class Framing(Protocol):
    """Makes the decoder of a dialect."""

    def __call__(self, max_event_bytes: int | None = None) -> Decoder:
        """A decoder for one stream."""


class Dialect:
    """Reads the events of one provider into an Answer."""

    framing: ClassVar[Framing] = SSEDecoder
    first_bytes: ClassVar[bytes] = b"{[<"
    """A body that begins so is no stream of this framing."""
    has_terminator: ClassVar[bool] = True
    """Whether the provider ends a stream with words of its own."""
    bare_frames: ClassVar[bool] = False
    """Whether any line is a frame, so that a page of text looks like bad ones."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def read(self, event: Event) -> None:
        """Take one event; BadPayload when its data is no JSON."""
        raise NotImplementedError

    def close(self) -> None:
        """The stream is over: finish what was left open."""

    def finished(self) -> bool:
        """Whether the provider said that the answer is over, if not that the stream is."""
        choices = self.answer.choices.values()
        return bool(choices) and all(choice.finish_reason is not None for choice in choices)

    def complete_at_eof(self) -> bool:
        """Whether a clean end of the bytes ends a whole answer."""
        return self.finished()

    def no_object(self, event: Event) -> None:
        """Take an event whose data is no JSON object: the end, a heartbeat, an error, or noise."""
        answer, data = self.answer, event.data.strip()
        if data == b"[DONE]":
            answer.end()
        elif event.event == "error":
            answer.fail(named_fault(loads(data, answer) if data else None))
        elif not data:
            answer.heartbeats += 1
        else:
            loads(data, answer)
            answer.ignored_frames += 1

    def slowly(self, event: Event, read: Callable[[bytes, Answer], T | None]) -> T | None:
        """Take an event that the fast decoder refused: an odd object, or none at all."""
        if event.data.startswith(b"{"):
            return read(event.data, self.answer)
        self.no_object(event)
        return None

    def named_error(self, event: Event) -> None:
        """Take an event that is named an error, whatever its data."""
        self.answer.fail(named_fault(loads(event.data, self.answer)))
