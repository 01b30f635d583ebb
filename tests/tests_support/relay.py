"""A TCP relay in front of a service: it counts, cuts, stalls, and refuses to upgrade."""

import asyncio
import contextlib
import threading
from types import TracebackType

_HEAD = b"\r\n\r\n"


class Relay:
    """Listens on a port of its own and passes on; a context manager, in a thread of its own.

    `refuse` is the status line that WebSocket handshakes are answered with; empty, they are
    swallowed. `handshakes` and `requests` count what came.
    """

    def __init__(self, port: int, refuse: str | None = None) -> None:
        self.target, self.refuse = port, refuse
        self.handshakes, self.requests = 0, 0
        self.port = 0
        self._pairs: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._over = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, as a network does."""
        self._loop.call_soon_threadsafe(self._cut)

    def stall(self) -> None:
        """Keep every connection, and let nothing through."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def keep_answers(self) -> None:
        """Let through what is asked, and not what is answered."""
        self._loop.call_soon_threadsafe(self._answering.clear)

    def flow(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._flowing.set)
        self._loop.call_soon_threadsafe(self._answering.set)

    def __enter__(self) -> "Relay":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        self._cut()
        self._flowing.set()
        self._answering.set()

    def _cut(self) -> None:
        for writer in self._pairs:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pairs.add(writer)
        try:
            await self._relay(reader, writer)
        except OSError:
            pass  # either side is gone
        finally:
            self._pairs.discard(writer)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(_HEAD)
        except asyncio.IncompleteReadError:
            return
        if b"\r\nupgrade: websocket" in head.lower():
            self.handshakes += 1
            if self.refuse is not None:
                await self._refuse(reader, writer)
                return
        else:
            self.requests += 1
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", self.target)
        self._pairs.add(inner)
        try:
            inner.write(head)
            one = asyncio.create_task(self._pump(reader, inner, self._flowing))
            other = asyncio.create_task(self._pump(inner_reader, writer, self._answering))
            await asyncio.wait({one, other}, return_when=asyncio.FIRST_COMPLETED)
            for task in (one, other):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
        finally:
            self._pairs.discard(inner)
            inner.transport.abort()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            answer = f"HTTP/1.1 {self.refuse}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            writer.write(answer.encode())
            await writer.drain()
        await reader.read()  # until the client has had enough

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, may: asyncio.Event
    ) -> None:
        while data := await source.read(65_536):
            await self._flowing.wait()
            await may.wait()
            sink.write(data)
            await sink.drain()
