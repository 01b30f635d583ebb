"""A client that costs next to nothing: the same bytes over HTTP/1.1, whoever answers them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from contestant import Call

BUDGETS = 100
_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One kept alive, with one request under way at most."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[None] | None = None
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport: Any = transport  # uvloop's is of no class of asyncio

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def ask(self, request: bytes) -> "asyncio.Future[None]":
        """Send; the future is done when the answer is whole, and failed when it is not 200."""
        self._heard = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Collect an answer."""
        self._heard += data
        head, end, body = self._heard.partition(_END)
        if not end or self._answer is None:
            return
        _, _, rest = head.lower().partition(b"content-length:")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return
        answer, self._answer = self._answer, None
        if self._heard.startswith(b"HTTP/1.1 200"):
            answer.set_result(None)
        else:
            answer.set_exception(RuntimeError(self._heard[:200].decode("latin-1")))

    def connection_lost(self, _error: Exception | None) -> None:
        """Nobody answers any more."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server hung up"))


def requests(host: str) -> list[bytes]:
    """A request for each budget."""
    found = []
    for n in range(BUDGETS):
        body = json.dumps({"resource": f"bench/m{n}", "tokens": 100}).encode()
        head = f"POST /v1/acquire HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        head += f"X-Budget: m{n}\r\nContent-Length: {len(body)}\r\n\r\n"
        found.append(head.encode() + body)
    return found


@contextlib.asynccontextmanager
async def acquiring(url: str) -> AsyncIterator[Call]:
    """POST /v1/acquire, a connection for each that is under way."""
    where = urlsplit(url)
    asked = requests(where.netloc)
    every: list[Connection] = []
    idle: list[Connection] = []

    async def call(n: int) -> None:
        if idle:
            connection = idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, where.hostname, where.port)
            every.append(connection)
        await connection.ask(asked[n % BUDGETS])
        idle.append(connection)

    try:
        yield call
    finally:
        for connection in every:
            connection.close()


CONTESTANTS = {"wire": acquiring}
