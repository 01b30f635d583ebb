"""An extension of ASGI: messages of a WebSocket past the queues and tasks of the server.

A message costs a server a queue, two turns of the loop and a pause of its reading on the way in,
and a task's turn on the way out: more than an acquire does. Where a scope has a line, messages are
heard where they are read, and said where they are made; whatever has to wait takes the usual way
(docs/decisions/0029).
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from limiter_service.http import Message

LINE = "sluicegate.line"
"""The name of the extension."""

Hear = Callable[[bytes | str], bool]
"""Takes a message, or returns False: then it is to be received in its turn."""


class Line(Protocol):
    """One WebSocket."""

    def listen(self, hear: Hear) -> None:
        """Offer each message to *hear*, unless one before it is still to be received."""

    def say(self, messages: Iterable[Message]) -> bool:
        """Send at once, and return True. False: nothing is sent, `send` has to be awaited."""
