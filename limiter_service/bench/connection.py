"""One HTTP/1.1 connection that stays open: little enough that what is measured is the service."""

import asyncio
import json
import ssl
from typing import Any, Self
from urllib.parse import urlsplit

_MOST_HEAD = 65_536


class Broken(Exception):  # what happened
    """The connection could not be made, or has ended in the middle of an answer."""


class Connection:
    """Sends JSON and reads JSON; an async context manager."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._base = parts.path.rstrip("/")
        self._timeout = timeout
        self._head = f"host: {parts.netloc.rpartition('@')[2]}\r\ncontent-type: application/json"
        if key:
            self._head += f"\r\nauthorization: Bearer {key}"

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout):
                self._reader, self._writer = await asyncio.open_connection(
                    self._host,
                    self._port,
                    limit=_MOST_HEAD,
                    ssl=ssl.create_default_context() if self._secure else None,
                )
        except (OSError, TimeoutError) as error:
            raise Broken(str(error) or "no connection in time") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """Status and answer. Raises Broken."""
        data = json.dumps(body).encode()
        head = f"POST {self._base}{path} HTTP/1.1\r\n{self._head}\r\ncontent-length: {len(data)}"
        try:
            async with asyncio.timeout(self._timeout):
                self._writer.write(f"{head}\r\n\r\n".encode() + data)
                lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                text = await self._reader.readexactly(int(fields.get("content-length", "0")))
            return int(lines[0].split()[1]), json.loads(text or b"{}")
        except (OSError, TimeoutError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise Broken(str(error) or "no answer in time") from error
