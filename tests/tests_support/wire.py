"""Connections that say what no HTTP library would, and see how that ends."""

import asyncio
import base64
import json
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 20.0
"""Seconds: a busy machine must not look like a connection that stays open."""


class Wire:
    """A connection to a service; an asynchronous context manager."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname, place.port

    async def __aenter__(self) -> "Wire":
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.transport.abort()

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)

    def end(self) -> None:
        """Say nothing more."""
        self._writer.write_eof()

    async def said(self) -> None:
        """Return when what was said has left."""
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """The next answer: its status and its body, which is JSON."""
        status, _, body = await self.reply()
        return status, json.loads(body or b"{}")

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: its status, its headers and its body."""
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await self._reader.readexactly(int(fields.get("content-length", 0)))
        return int(head.split()[1]), fields, body

    async def hear(self, count: int) -> bytes:
        """So many bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(count)

    async def rest(self) -> bytes:
        """What comes before the service closes the connection, which it must."""
        found = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while piece := await self._reader.read(65_536):
                    found += piece
        except ConnectionError:
            pass  # it was broken off
        return found

    async def upgrade(self, path: str = "/v1/channel") -> None:
        """Become a WebSocket."""
        key = base64.b64encode(b"sixteen bytes ok").decode()
        lines = ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"]
        self.say(request("GET", path, *lines, f"sec-websocket-key: {key}"))
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head


def request(method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    """A request; *lines* are further ones of its head."""
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", *lines])
    return head.encode("latin-1") + b"\r\n\r\n" + body


def post(path: str, body: dict[str, Any], *lines: str) -> bytes:
    """A request with a body of JSON."""
    content = json.dumps(body).encode()
    return request("POST", path, f"content-length: {len(content)}", *lines, body=content)


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """A frame of a WebSocket client."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes([0x80 * last | opcode]) + length + b"\0\0\0\0" + payload
