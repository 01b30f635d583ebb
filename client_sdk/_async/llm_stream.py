"""What `get_streaming_response_with_tools` returns: the chunks of one answer, and its result."""

from types import TracebackType
from typing import Self

from client_sdk._async.llm_call import Call
from client_sdk._watch_async import when_forgotten
from client_sdk.llm.results import Response
from client_sdk.streaming import StreamAccumulator, StreamChunk


class ResponseStream:
    """An iterator of chunks, once. Entered with `async with` it is closed on the way out.

    The request goes out with the first chunk that is asked for. `result` is the whole answer
    once the iteration has ended; who stops earlier closes the stream, and one that is
    forgotten closes itself.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._iterated = self._begun = False

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
        if self._iterated:
            raise RuntimeError("this stream has been read; ask again for another answer")
        self._iterated = True
        return self

    async def __anext__(self) -> StreamChunk:
        """The next chunk. Raises CallFailed when the answer ended badly, Refused when the
        limiter gave nothing.
        """
        if not self._begun:
            self._begun = True
            self._call.begin()
            when_forgotten(self, self._call.aclose)
        chunk = await self._call.next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def until_done(self) -> Response:
        """Read to the end; the whole answer."""
        async for _ in self:
            pass
        return self.result

    async def aclose(self) -> None:
        """Stop: the connection is released at once, and the lease is settled."""
        await self._call.aclose()

    @property
    def result(self) -> Response:
        """The whole answer, once the stream has ended well."""
        if self._call.result is None:
            raise RuntimeError("there is no result before the stream has ended well")
        return self._call.result

    @property
    def request_id(self) -> str:
        """Our id of the call."""
        return self._call.request_id

    @property
    def stream(self) -> StreamAccumulator | None:
        """The stream of the request under way: partial tool calls, statistics so far."""
        return self._call.stream
