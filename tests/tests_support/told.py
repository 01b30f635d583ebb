"""A server of the store's protocol that answers what it is told to answer."""

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Any

import hiredis

from tests_support.waiting import until

_WELCOME = b"%1\r\n$5\r\nproto\r\n:3\r\n"

HANG_UP = b"hang up"
"""In the place of an answer, or behind one: the connection is closed."""


class Told:
    """Answers each command with the next of `answers`, and when there is none with `else_`.

    `asked` is what was asked, but for what a client asks when it connects; `connections` and
    `ended` count. With `in_bits` every byte travels alone.
    """

    def __init__(self, *answers: bytes, in_bits: bool = False) -> None:
        self.answers, self.else_ = deque(answers), b""
        self.asked: list[Any] = []
        self.connections = self.ended = 0
        self._in_bits = in_bits
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def say(self, data: bytes) -> None:
        """Say it to everybody who is connected."""
        for writer in self._writers:
            await self._say(writer, data)

    async def __aenter__(self) -> "Told":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

        async def all_have_ended() -> bool:
            return self.ended == self.connections

        await until(all_have_ended, "a connection does not end")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        parser = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    await self._answer(writer, command)
        self._writers.remove(writer)
        writer.close()
        self.ended += 1

    async def _answer(self, writer: asyncio.StreamWriter, command: list[bytes]) -> None:
        if command[0] == b"HELLO":
            await self._say(writer, _WELCOME)
            return
        self.asked.append(command)
        await self._say(writer, self.answers.popleft() if self.answers else self.else_)

    async def _say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        said = data.removesuffix(HANG_UP)
        for piece in [said[i : i + 1] for i in range(len(said))] if self._in_bits else [said]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if said != data:
            writer.close()
