"""A connection to a server of the store, which one trip at a time has for itself.

The client library connects: names, TLS, login, sentinels. Then its streams are left behind, which
cost a task, futures and a timer for each reply: commands are written in one piece, and replies are
handed over where they are read (docs/decisions/0024). Since a connection is asked by one trip
alone, a reply that is late, or that nobody has asked for, is never taken for another's: the
connection is closed.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis import exceptions
from redis._parsers import BaseParser

Command = tuple[Any, ...] | bytes
"""The words of a command, or the command as it travels."""

Then = Callable[[list[Any]], None]
"""Hears once what came of some commands: a reply or an error for each, in order."""

_MORE_TO_COME = object()


def _nothing(_replies: list[Any]) -> None:
    """Has been told."""


def packed(commands: Sequence[Command]) -> bytes:
    """The commands as they travel."""
    pack = hiredis.pack_command
    return b"".join([each if isinstance(each, bytes) else pack(each) for each in commands])


class Asked:
    """Commands whose replies are awaited; what `Deadlines` keeps."""

    __slots__ = ("count", "exchange", "replies", "then")

    def __init__(self, exchange: "Exchange", count: int, then: Then) -> None:
        self.exchange: Exchange | None = exchange
        self.count = count
        self.then: Then = then
        self.replies: list[Any] = []

    def done(self) -> bool:
        """Whether it is known what came of each."""
        return self.exchange is None

    def set_result(self, result: Any, /) -> None:
        """Nobody but the connection itself says so."""
        raise AssertionError(result)

    def set_exception(self, exception: Exception, /) -> None:
        """They take too long: what is to come yet comes to a closed door."""
        if self.exchange is not None:
            self.exchange.close(exception)

    def over(self, error: Exception | None = None) -> None:
        """Tell; those that have no reply have the *error*."""
        then, replies = self.then, self.replies
        self.exchange, self.then, self.replies = None, _nothing, []  # deadlines keep it for a while
        if len(replies) < self.count:
            replies += [error] * (self.count - len(replies))
        try:
            then(replies)
        except Exception as mistake:  # noqa: BLE001  # of ours: it must not cost a connection
            asyncio.get_running_loop().call_exception_handler(
                {"message": "what hears of replies has failed", "exception": mistake}
            )


class Exchange(asyncio.Protocol):
    """One connection. Whoever keeps it hears when it can be asked again, and when it cannot."""

    def __init__(
        self,
        connection: Any,
        *,
        rests: Callable[["Exchange"], None],
        ends: Callable[["Exchange"], None],
    ) -> None:
        """Take over what *connection*, of the client library, has connected. Raises
        ConnectionError where that is of no use any more.
        """
        stream, transport = connection._reader, connection._writer.transport  # noqa: SLF001
        if stream.at_eof() or stream.exception() or stream._buffer or transport.is_closing():  # noqa: SLF001
            raise exceptions.ConnectionError("the server has closed a new connection")
        self._connection = connection  # its writer would close the transport when it is forgotten
        self._transport = transport
        self.where = (getattr(connection, "host", ""), getattr(connection, "port", 0))
        self.loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self.loop.create_future()
        self._rests, self._ends = rests, ends
        self._asked: Asked | None = None
        self._closed = self._spoiled = False
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=self._error,
            notEnoughData=_MORE_TO_COME,
        )
        transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether it can be asked; its end may not have been told yet."""
        return not (self._closed or self._transport.is_closing())

    def ask(self, data: bytes, count: int, then: Then) -> Asked:
        """Write *count* packed commands; the replies to those before must have come."""
        assert self._asked is None
        asked = self._asked = Asked(self, count, then)
        self._transport.write(data)
        return asked

    def close(self, why: Exception) -> None:
        """At once. What has no reply yet fails with *why*."""
        if not self._closed:
            self._closed = True
            self._ends(self)
            self._transport.abort()
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.over(why)

    def data_received(self, data: bytes) -> None:
        """Take replies in; hand them over when all have come."""
        asked = self._asked
        if asked is None:
            self.close(exceptions.ConnectionError("the server says what nobody has asked for"))
            return
        reader, replies = self._reader, asked.replies
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _MORE_TO_COME:
                if type(reply) is not hiredis.PushNotification:
                    replies.append(reply)
        except Exception as error:  # noqa: BLE001  # whatever the parser says of what is no reply
            self.close(error)
            return
        if len(replies) >= asked.count:
            self._finish(asked)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has closed it, the network has, or we have."""
        why = f": {exc}" if exc else " by the server"
        self.close(exceptions.ConnectionError(f"the connection was closed{why}"))
        self._connection._reader = self._connection._writer = None  # noqa: SLF001
        del self._reader  # which knows this: the collector looks seldom
        if not self.lost.done():
            self.lost.set_result(None)

    def _finish(self, asked: Asked) -> None:
        self._asked = None
        if len(asked.replies) > asked.count or self._reader.has_data():
            del asked.replies[asked.count :]
            self._spoiled = True
        if self._spoiled:
            self.close(exceptions.ConnectionError("it can be asked no more"))
        else:
            self._rests(self)
        asked.over()

    def _error(self, text: str) -> Exception:
        """What the client library makes of an error. Some are about the connection: it is loading,
        or not logged in any more.
        """
        error: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
        if isinstance(error, exceptions.ConnectionError):
            self._spoiled = True
        return error
