"""One answer on its way out: the head, bytes, and a connection that may be cut.

Cutting needs the connection itself, which ASGI does not give to an application: `serving`
puts it into the scope. Where there is none, a cut is raised as `DroppedError`.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from limiter_service.provider_sim.faults.script import Head

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TRANSPORT = "sim.transport"
"""Where in the state of a scope the connection is."""

_FLUSH = 0.001
_AT_ONCE = struct.pack("ii", 1, 0)


class DroppedError(ConnectionError):
    """The simulator has cut a connection that it does not hold."""


class Wire:
    """The answer to one request."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._transport: asyncio.Transport | None = scope.get("state", {}).get(TRANSPORT)
        self._receive = receive
        self._send = send

    async def start(self, head: Head) -> None:
        """Send status and headers."""
        headers = {"content-type": head.media_type, **head.headers}
        if head.length is not None:
            headers["content-length"] = str(head.length)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": head.status, "headers": raw})

    async def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def drop(self, *, reset: bool) -> None:
        """Cut the connection when what was sent has left; a reset tells the peer to forget it."""
        transport = self._transport
        if transport is None:
            raise DroppedError("the provider closed the connection")
        while transport.get_write_buffer_size():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_FLUSH)
        if reset and not transport.is_closing():  # the caller may have been faster
            connection = transport.get_extra_info("socket")
            connection.setsockopt(SOL_SOCKET, SO_LINGER, _AT_ONCE)
            transport.abort()
        else:
            transport.close()

    async def gone(self) -> None:
        """Wait until the caller has hung up, or the connection was cut."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
