"""Acquires and settles that nobody awaits yet."""

from typing import Any, Protocol

from limiter_service.store.claims import reply_of
from limiter_service.store.client import Posted as PostedCall
from limiter_service.store.errors import StoreProtocol
from limiter_service.store.messages import Reply


class Listener(Protocol):
    """Who is told, once, that an answer has come, or a failure."""

    @property
    def gone(self) -> bool:
        """Whether nobody wants to know any more: what is not yet sent never is."""

    def hear(self) -> None:
        """It has come."""


class Posted(PostedCall):
    """An acquire or a settle that nobody awaits yet: what came of its first attempt."""

    __slots__ = ("_listener", "error", "reply")

    def __init__(self, listener: Listener) -> None:
        self._done = False  # here, to save a step of every call
        self._listener: Listener | None = listener
        self.reply: Reply | None = None
        self.error: Exception | None = None

    def done(self) -> bool:
        """Whether it has come to an end, or nobody wants to know."""
        return self._done or (self._listener is not None and self._listener.gone)

    def came(self, reply: Any) -> None:
        """Take in the reply, and tell that it is there."""
        assert self.asked is not None
        try:
            self.reply = reply_of(self.script.name, self.asked, reply)
        except StoreProtocol as strange:
            self.error = strange
        self._tell()

    def failed(self, error: Exception) -> None:
        """Tell that there is none."""
        self.error = error
        self._tell()

    def _tell(self) -> None:
        """Once, and keep no hold of who is told, who has hold of this."""
        listener, self._listener = self._listener, None
        assert listener is not None
        listener.hear()

    async def outcome(self) -> Reply:
        """The reply, also where the first attempt has failed. Raises as `Commands` does."""
        if self.error is None:
            assert self.reply is not None
            return self.reply
        return self._read(await self.client.insist(self, self.error))

    def _read(self, reply: bytes) -> Reply:
        assert self.asked is not None
        return reply_of(self.script.name, self.asked, reply)
