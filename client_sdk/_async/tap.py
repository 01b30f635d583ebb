"""Looks at a provider's answer while it passes, byte for byte, to who asked for it.

What is seen goes to an Attempt, which settles the lease when the answer is over: at its end,
when it is closed, when its reader is cancelled, or when nobody holds it any more.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from client_sdk._async.attempts import Attempt
from client_sdk._watch_async import when_forgotten
from client_sdk.streaming import StreamAccumulator
from client_sdk.transports.encodings import CannotDecodeError, Undo
from client_sdk.transports.middle import read_end

_log = logging.getLogger("sluicegate")

# After the first content nothing is urgent: bytes are kept until there are so many.
_MOST = 1 << 20
_SECONDS = 1.0
"""How often the lease of a long stream is looked at."""


class Tap:
    """One answer. `inner` is the body's stream of an HTTP client's response."""

    def __init__(
        self,
        inner: Any,  # an AsyncByteStream of either family
        attempt: Attempt,
        undo: Undo | None,
        over: Callable[[Attempt], None],
    ) -> None:
        self._inner, self._attempt, self._undo, self._over = inner, attempt, undo, over
        self._kept: list[bytes] = []
        self._size, self._due = 0, 0.0
        self._urgent = self._open = True
        self._forget: Callable[[], object] | None = None

    def watch(self, owner: object) -> None:
        """Settle also when *owner*, which hands the bytes on, is dropped without a close."""
        self._forget = when_forgotten(owner, self.leave).detach

    async def passing(self) -> AsyncIterator[bytes]:
        """The bytes as they come."""
        try:
            async for data in self._inner:
                self._see(data)
                yield data
        except GeneratorExit:
            # Left in the middle: whoever has the response closes it, or drops it.
            raise
        except BaseException as error:
            self._flush()
            await self._attempt.fail(error)
            self._end()
            raise
        self._finish()
        await self._attempt.finish()
        self._end()

    async def aclose(self) -> None:
        """Close the answer; what was not read of it is not wanted."""
        try:
            await self._inner.aclose()
        finally:
            self._flush()
            await self._attempt.cancel()
            self._end()

    async def leave(self) -> None:
        """Close what nobody has closed, where nobody can be told what goes wrong."""
        try:
            await self.aclose()
        except Exception as error:  # noqa: BLE001  # as the docstring says
            _log.debug("closing a connection failed: %s", type(error).__name__)

    def _see(self, data: bytes) -> None:
        """Take what passes; never raises."""
        if self._undo is not None:
            data = self._plain(self._undo, data)
        if self._urgent:
            self._attempt.feed(data)
            if self._attempt.committed:
                self._urgent = False
                self._due = time.monotonic() + _SECONDS
            return
        self._kept.append(data)
        self._size += len(data)
        if self._size > _MOST:
            self._flush()
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _SECONDS
            self._attempt.feed(b"")

    def _flush(self) -> None:
        """Read everything that was kept."""
        if self._kept:
            kept, self._kept, self._size = b"".join(self._kept), [], 0
            self._attempt.feed(kept)

    def _finish(self) -> None:
        """Read what was kept, of which nothing more comes."""
        kept, self._kept, self._size = b"".join(self._kept), [], 0
        if kept:
            stream = self._attempt.stream
            dialect = stream.dialect
            read_end(stream, kept, self._attempt.feed, lambda: StreamAccumulator(dialect))

    def _plain(self, undo: Undo, data: bytes) -> bytes:
        try:
            return undo(data)
        except CannotDecodeError as error:
            self._undo = _nothing
            _log.debug("an answer cannot be decoded: %s", error)
            return b""

    def _end(self) -> None:
        if self._open:
            self._open = False
            if self._forget is not None:
                self._forget()
            self._over(self._attempt)


def _nothing(_data: bytes, /) -> bytes:
    return b""
