"""`limiter.wrap_stream`: the chunks of any SDK under a lease, as they are."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from client_sdk._async.attempts import Attempt
from client_sdk._async.lease import Lease
from client_sdk._shell_async import opened
from client_sdk._watch_async import Watch, Woken, when_forgotten
from client_sdk.errors import CallFailed
from client_sdk.streaming import StreamAccumulator, StreamStatistics, StreamTimeouts
from client_sdk.streaming.liveness import NO_TIMEOUTS
from client_sdk.transports.typed import dialect_of, payload_of, response_of, typed
from limiter_wire import Outcome, Usage


class WrappedStream:
    """Hands chunks on, and settles the lease when they end.

    Iterate it, best inside `async with`: a stream that is left in the middle is closed there.
    """

    def __init__(
        self,
        source: Any,  # chunks, or what opens them
        acquire: Callable[[], Any] | None,
        *,
        lease: Lease | None,
        dialect: str | None,
        timeouts: StreamTimeouts | None,
        input_tokens: int | None,
    ) -> None:
        self._source, self._acquire, self._lease = source, acquire, lease
        self._dialect, self._timeouts = dialect, timeouts or NO_TIMEOUTS
        self._input_tokens = input_tokens
        self._attempt: Attempt | None = None
        self._chunks: AsyncIterator[Any] | None = None
        self._stream: Any = None
        self._known = False
        self._began = 0.0
        self._watch = Watch(time.monotonic)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        attempt = self._attempt or await self._begin()
        if self._chunks is None:
            raise StopAsyncIteration
        try:
            chunk = await self._next(attempt)
        except StopAsyncIteration:
            self._end()
            await attempt.finish()
            raise
        except CallFailed:
            self._end()
            raise
        except BaseException as error:
            self._end()
            await attempt.fail(error)
            raise
        self._see(chunk, attempt)
        attempt.pause()
        return chunk

    async def aclose(self) -> None:
        """Close the source, and settle; what was not read is not wanted."""
        self._end()
        try:
            await self._close_source()
        finally:
            if self._attempt is not None:
                await self._attempt.cancel()
            elif self._lease is not None and self._lease.settled is None:
                await self._lease.settle(Outcome.CANCELLED)

    @property
    def usage(self) -> Usage | None:
        """The tokens so far, or in the end."""
        return None if self._attempt is None else self._attempt.usage

    @property
    def outcome(self) -> Outcome | None:
        """What the lease was settled with; None before the end."""
        attempt = self._attempt
        return attempt.outcome if attempt is not None and attempt.done else None

    @property
    def statistics(self) -> StreamStatistics | None:
        """The figures of the stream, None before it begins."""
        return None if self._attempt is None else self._attempt.stream.statistics

    # How it works.

    async def _begin(self) -> Attempt:
        if self._acquire is not None:
            self._lease = await self._acquire()
        stream = self._accumulator(self._dialect or "unknown")
        attempt = Attempt(stream, self._lease, input_tokens=self._input_tokens)
        self._attempt, self._known = attempt, self._dialect is not None
        self._began = time.monotonic()
        attempt.start()
        when_forgotten(self, attempt.cancel)
        try:
            self._watch.guard(attempt.deadline)
            self._stream = await self._wait(attempt, lambda: opened(self._source))
            if (response := response_of(self._stream)) is not None:
                self._watch.connected(response)
            self._chunks = self._stream.__aiter__()
        except BaseException as error:
            await attempt.fail(error)
            raise
        return attempt

    async def _next(self, attempt: Attempt) -> Any:
        assert self._chunks is not None
        attempt.resume()
        return await self._wait(attempt, self._chunks.__anext__)

    async def _wait(self, attempt: Attempt, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do *work* as long as no limit of time is over."""
        try:
            return await self._watch.run(work)
        except Woken:
            attempt.stalled()
            await self._close_source()
            await attempt.finish()
            error = attempt.error()
            assert error is not None
            raise error from None

    def _end(self) -> None:
        self._chunks = None
        self._watch.close()

    def _see(self, chunk: Any, attempt: Attempt) -> None:
        payload = payload_of(chunk)
        if not payload:
            return
        if not self._known:
            self._known = True
            attempt.stream = self._accumulator(dialect_of(payload))
            attempt.stream.start(self._began)
        attempt.feed(payload)

    def _accumulator(self, dialect: str) -> StreamAccumulator:
        return StreamAccumulator(typed(dialect), timeouts=self._timeouts)

    async def _close_source(self) -> None:
        for name in ("aclose", "close"):
            close = getattr(self._stream, name, None)
            if callable(close):
                self._stream = None
                await opened(close)
                return
