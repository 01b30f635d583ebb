"""A TCP relay in front of a service: it knows what is asked for, and refuses to upgrade."""

import asyncio

from tests_support.balancer import Balancer

_HEAD = b"\r\n\r\n"


class Relay(Balancer):
    """A balancer with one target that reads the head of what is asked first.

    `refuse` is the status line that WebSocket handshakes are answered with; empty, they are
    swallowed. `handshakes` and `requests` count what came.
    """

    def __init__(self, port: int, refuse: str | None = None) -> None:
        super().__init__([port])
        self.refuse = refuse
        self.handshakes, self.requests = 0, 0

    @property
    def target(self) -> int:
        """The port that connections are passed on to; others may be set for those to come."""
        (port,) = self.targets
        return int(port)

    @target.setter
    def target(self, port: int) -> None:
        self.targets = [port]

    async def _opening(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            head = await reader.readuntil(_HEAD)
        except asyncio.IncompleteReadError as error:
            raise ConnectionAbortedError("it has asked for nothing") from error
        if b"\r\nupgrade: websocket" not in head.lower():
            self.requests += 1
            return head
        self.handshakes += 1
        if self.refuse is None:
            return head
        if self.refuse:
            answer = f"HTTP/1.1 {self.refuse}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            writer.write(answer.encode())
            await writer.drain()
        await reader.read()  # until the client has had enough
        raise ConnectionAbortedError("the handshake was refused")
