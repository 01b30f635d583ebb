"""The middle of a stream, which a tap need not read: how it ends stands at its end. Pure.

Of a stream that ended well only the pieces in its middle are counted, which is a tenth of the
work of reading them. Whatever looks otherwise is read to the last byte.
"""

from collections.abc import Callable

from client_sdk.streaming import StreamAccumulator

TAIL = 16 << 10
"""Bytes at the end that are always read."""

_SSE = (b"\n\n", b"\r\n\r\n")
_FRAMED = {
    "openai-chat": _SSE,
    "openai-responses": _SSE,
    "anthropic": _SSE,
    "gemini": _SSE,
    "cohere": _SSE,
    "mistral": _SSE,
    "ollama": (b"\n",),
}


def parts(data: bytes, dialect: str) -> tuple[bytes, bytes, bytes]:
    """What to read, what to count, and what to read after it: cut between frames."""
    for boundary in _FRAMED.get(dialect, ()):
        first = data.find(boundary)
        last = data.rfind(boundary, 0, max(0, len(data) - TAIL))
        if -1 < first < last:
            first, last = first + len(boundary), last + len(boundary)
            return data[:first], data[first:last], data[last:]
    return data, b"", b""


def pieces(middle: bytes, dialect: str) -> int:
    """How many frames there are in *middle*."""
    return middle.count(b"\n" if dialect == "ollama" else b"data:")


def read_end(
    stream: StreamAccumulator,
    data: bytes,
    feed: Callable[[bytes], object],
    fresh: Callable[[], StreamAccumulator],
) -> None:
    """Feed the rest of a stream that came to its end: without its middle, if that can be.

    A *fresh* stream tells by the last part alone whether the answer is whole; every choice
    has to end in it.
    """
    before, middle, after = parts(data, stream.dialect)
    if middle and stream.committed:
        trial = fresh()
        trial.feed(after, 0.0)
        outcome = trial.finish(0.0)
        if outcome.whole and set(stream.choices) <= set(trial.choices):
            feed(before)
            stream.skip(pieces(middle, stream.dialect))
            feed(after)
            return
    feed(data)
