"""A TCP balancer in front of servers: it counts, cuts, and swallows answers on demand."""

import asyncio
import contextlib
import threading
from types import TracebackType

Target = int | str
"""A port on loopback, or the path of a socket."""


class Balancer:
    """Listens on a port of its own; each connection goes to the next target that takes it.

    A context manager, in a thread of its own. `targets` may be replaced at any time, for
    connections to come. `connections` counts those that were passed on.
    """

    def __init__(self, targets: list[Target]) -> None:
        self.targets = targets
        self.connections = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking, self._answering = asyncio.Event(), asyncio.Event()
        self._asking.set()
        self._answering.set()
        self._loop = asyncio.new_event_loop()
        self._ready, self._over = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, as a network does."""
        self._loop.call_soon_threadsafe(self._cut)

    def keep_answers(self) -> None:
        """Let through what is asked, and not what is answered."""
        self._loop.call_soon_threadsafe(self._answering.clear)

    def stall(self) -> None:
        """Keep every connection, and let nothing through."""
        self._loop.call_soon_threadsafe(self._asking.clear)
        self._loop.call_soon_threadsafe(self._answering.clear)

    def flow(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._asking.set)
        self._loop.call_soon_threadsafe(self._answering.set)

    def __enter__(self) -> "Balancer":
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
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()
        self._asking.set()
        self._answering.set()
        self._cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            opening = await self._opening(reader, writer)
            inner_reader, inner = await self._next_target()
        except OSError:
            writer.transport.abort()
            self._writers.discard(writer)
            return
        self._writers.add(inner)
        inner.write(opening)
        may_ask, may_answer = self._gates(writer)
        asking = asyncio.create_task(self._pump(reader, inner, may_ask))
        answering = asyncio.create_task(self._pump(inner_reader, writer, may_answer))
        try:
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():  # what was answered before the end still arrives
                await asyncio.wait({answering}, timeout=0.2)
        finally:
            for task in (asking, answering):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
            for each in (writer, inner):
                self._writers.discard(each)
                each.close()

    def _gates(
        self,
        writer: asyncio.StreamWriter,  # noqa: ARG002  # of who tells connections apart
    ) -> tuple[asyncio.Event, asyncio.Event]:
        """What a connection waits for before it passes on what is asked, and what is answered."""
        return self._asking, self._answering

    async def _opening(
        self,
        reader: asyncio.StreamReader,  # noqa: ARG002  # of who reads it
        writer: asyncio.StreamWriter,  # noqa: ARG002  # likewise
    ) -> bytes:
        """What is read of a connection before it is passed on. Raises OSError when it is not."""
        return b""

    async def _next_target(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        error = OSError("there is no target")
        for _ in range(len(self.targets)):
            target = self.targets[self.connections % len(self.targets)]
            self.connections += 1
            try:
                if isinstance(target, str):
                    return await asyncio.open_unix_connection(target)
                return await asyncio.open_connection("127.0.0.1", target)
            except OSError as refused:
                error = refused
        raise error

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        may: asyncio.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await may.wait()
                sink.write(data)
                await sink.drain()
