"""Straight to a store: for histories that ask it many thousand times, one after another."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import redis

Command = Sequence[Any]
"""A command's words."""

_lines: WeakKeyDictionary[redis.Redis, redis.Connection] = WeakKeyDictionary()


def say(client: redis.Redis, *commands: Command) -> list[Any]:
    """What the store of *client* replies to each, sent at once: a pipeline of the client's costs
    several times as much. Raises the first error among them, when all have been replied to. One
    connection of the client's is kept for this, which ends with the client.
    """
    line = _lines.get(client)
    if line is None:
        line = _lines[client] = client.connection_pool.get_connection()
    line.send_packed_command(line.pack_commands(commands))
    replies = [_reply(line) for _ in commands]
    for reply in replies:
        if isinstance(reply, redis.ResponseError):
            raise reply
    return replies


def _reply(line: redis.Connection) -> Any:
    try:
        return line.read_response()
    except redis.ResponseError as error:
        return error
