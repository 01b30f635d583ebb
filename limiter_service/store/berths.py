"""Connections to one place: those that wait to be asked, and how there come to be more."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis import exceptions

from limiter_service.store.deadlines import Deadlines
from limiter_service.store.exchange import Asked, Command, Exchange, Then, packed
from limiter_service.store.faults import FAILURES

_MOST_IDLE = 4


class Berths:
    """Connections to one server, or to whoever is the primary now."""

    def __init__(
        self,
        connection: Callable[[], Any],
        patience: float,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """*connection* makes one of the client library; commands are answered within *patience*
        seconds, or their connection is closed. *failed* hears of every failure to be answered.
        """
        self._connection, self._patience, self._failed = connection, patience, failed
        self._idle: list[Exchange] = []
        self._open: set[Exchange] = set()
        self._deadlines = Deadlines()
        self._where: tuple[str, int] | None = None
        self._retired = False

    def post(self, commands: Sequence[Command], then: Then) -> bool:
        """Send *commands* at once, where a connection is idle; else return False. *then* hears a
        reply or an error for each.
        """
        return self._ask_idle(commands, then) is not None

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """A reply or an error for each command, over a new connection if need be. Whoever is
        cancelled leaves no connection behind on which replies are to come.
        """
        replied: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        then = partial(_tell, replied)
        asked = self._ask_idle(commands, then)
        if asked is None:
            try:
                exchange = await self._connect()
            except FAILURES as error:
                self._failed()
                return [error] * len(commands)
            asked = self._ask(exchange, commands, then)
        try:
            return await replied
        except asyncio.CancelledError:
            asked.set_exception(exceptions.ConnectionError("it was called off"))
            raise

    def close_idle(self) -> None:
        """Those that come next are made anew."""
        for exchange in tuple(self._idle):
            exchange.close(exceptions.ConnectionError("it is idle"))

    def move(self) -> None:
        """It is another server now: what is under way ends, and then its connection."""
        self._where = None
        self.close_idle()

    def retire(self) -> None:
        """There is no such place any more: what is under way ends, and then its connection."""
        self._retired = True
        self.close_idle()

    async def aclose(self) -> None:
        """Close every connection; return when they are closed."""
        lost = [exchange.lost for exchange in self._open]
        for exchange in tuple(self._open):
            exchange.close(exceptions.ConnectionError("the connections are closed"))
        if lost:
            await asyncio.wait(lost)

    def _ask_idle(self, commands: Sequence[Command], then: Then) -> Asked | None:
        idle = self._idle
        while idle and not idle[-1].usable:
            idle.pop()  # it is about to hear of its end
        return self._ask(idle.pop(), commands, then) if idle else None

    def _ask(self, exchange: Exchange, commands: Sequence[Command], then: Then) -> Asked:
        try:
            data = packed(commands)
        except BaseException:  # no command, and so a mistake of ours
            self._rest(exchange)
            raise
        asked = exchange.ask(data, len(commands), then)
        self._deadlines.add(asked, exchange.loop.time() + self._patience)
        return asked

    async def _connect(self) -> Exchange:
        """A connection that is logged in. Raises FAILURES."""
        connection = self._connection()
        try:
            await connection.connect()
            exchange = Exchange(connection, rests=self._rest, ends=self._forget)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._open.add(exchange)
        exchange.lost.add_done_callback(lambda _: self._open.discard(exchange))
        if exchange.where != self._where:  # sentinels name another primary
            self._where = exchange.where
            self.close_idle()
        return exchange

    def _rest(self, exchange: Exchange) -> None:
        self._idle.append(exchange)
        gone = self._retired or exchange.where != self._where
        if gone or len(self._idle) > _MOST_IDLE:
            exchange.close(exceptions.ConnectionError("it is one too many"))

    def _forget(self, exchange: Exchange) -> None:
        if exchange in self._idle:
            self._idle.remove(exchange)
        else:
            self._failed()


def _tell(replied: "asyncio.Future[list[Any]]", replies: list[Any]) -> None:
    if not replied.done():
        replied.set_result(replies)
