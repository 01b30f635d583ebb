"""A conversation over a channel, frame by frame."""

import asyncio
import functools
import json
from typing import Any

import msgspec
from websockets.asyncio import client as websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

connect = functools.partial(websockets.connect, open_timeout=60)


class Talk:
    """A connection that speaks frames: text for JSON, bytes for msgpack."""

    def __init__(self, connection: ClientConnection, *, text: bool) -> None:
        self.connection, self._text = connection, text

    async def say(self, frame: Any) -> None:
        """Send one frame, or an array of them."""
        data = msgspec.json.encode(frame).decode() if self._text else msgspec.msgpack.encode(frame)
        await self.connection.send(data)

    async def hear(self) -> Any:
        """The next message."""
        async with asyncio.timeout(30):
            message = await self.connection.recv()
        assert isinstance(message, str) is self._text
        return json.loads(message) if self._text else msgspec.msgpack.decode(message)

    async def ask(self, op: str, name: object = 1, **fields: object) -> dict[str, Any]:
        """The answer to one frame."""
        await self.say({"id": name, "op": op, **fields})
        answer: dict[str, Any] = await self.hear()
        assert answer.pop("id") == name
        return answer

    async def end(self) -> ConnectionClosed:
        """How the service closes."""
        try:
            while True:
                await self.hear()
        except ConnectionClosed as closed:
            return closed


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what another moment changes."""
    limits = [
        {**limit, "reset_after": 0, "remaining": round(limit["remaining"])}
        for limit in answer["limits"]
    ]
    return {**answer, "limits": limits, "retry_after": 0}


def take(name: int, tokens: int = 1, resource: str = "p/m", **more: object) -> dict[str, Any]:
    """A frame that takes tokens."""
    return {"id": name, "op": "acquire", "resource": resource, "tokens": tokens} | more
