"""uvicorn's HTTP connection, with what callers that wait need of it, and what it lacks against
callers that mean no good: deadlines for heads and bodies, bounds on what is not yet a request.

A request that arrives whole, as nearly all do, costs no timer.
"""

import asyncio
import logging
from asyncio import TimerHandle
from enum import IntEnum
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from limiter_service.guests import GUESTS, Guests, Manners, Rude
from limiter_service.page_policy import NO_SNIFFING, NOT_KEPT
from limiter_wire import ErrorCode, problem

STOPPING = "sluicegate.stopping"
"""In the state of the lifespan: what to call when the server begins to stop."""

_MOST_PIPELINED = 32
"""Requests that a client may send ahead of the answers that it waits for."""

_FRAMING = 262_144
"""Bytes beside a body, for the sizes of its chunks: and no more than the network gives at once."""

_GRACE = 0.25
"""Seconds for the application to refuse a slow body before the connection is closed."""

_LINGER = 1.0
"""Seconds in which a client must have read the last words."""


class _Part(IntEnum):
    """What of a message is still to come."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class Seldom(logging.Filter):
    """Lets one line a second pass, but for errors that nobody provokes."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is told."""
        provoked = record.levelno < logging.ERROR or "from client" in str(record.msg)
        if provoked and record.created < self._next:
            return False
        if provoked:
            self._next = record.created + 1
        return True


LOGGER = logging.getLogger("uvicorn.error.connections")
"""What bad requests are told to: whoever sends many cannot fill the log."""
LOGGER.addFilter(Seldom())


class Protocol(HttpToolsProtocol):
    """Closes what is too slow, too large or one too many, and tells the application that the
    server stops.

    uvicorn itself says that it stops when every request is answered, and one that waits is not:
    its caller would be broken off when the time for that is over.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.logger = LOGGER
        self._guests: Guests = self.app_state[GUESTS]
        self._manners: Manners = self._guests.manners
        self._part, self._number = _Part.NOTHING, 0
        self._came, self._of_body = 0, 0
        self._size_of_chunk, self._earlier_in_chunk = 0, False
        self._answering: RequestResponseCycle | None = None
        self._deadline: TimerHandle | None = None
        self._deadline_of = (0, _Part.NOTHING)
        self._unread: TimerHandle | None = None
        self._last_words: TimerHandle | None = None

    # Coming and going

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection, unless there are too many."""
        super().connection_made(transport)
        if not self._guests.enter(transport, self.client[0] if self.client else ""):
            self.logger.warning("too many connections: one of %s is closed", self.client)
            transport.abort()
            return
        self._expect(_Part.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._guests.leave(self.transport)
        self._settle_down()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """The client has said everything; the connection ends with that."""
        self._nobody_listens()

    def shutdown(self) -> None:
        """Let the application answer what it holds, then close."""
        super().shutdown()
        self.app_state[STOPPING]()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on, which stays counted until the other protocol loses it."""
        self._settle_down()
        super().handle_websocket_upgrade()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing was asked for long."""
        self._end()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        if self._unread is None:
            timeout = self._manners.unread_timeout
            self._unread = self.loop.call_later(timeout, self._break_off)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Read, and judge what is not whole."""
        self._size_of_chunk, self._earlier_in_chunk = len(data), False
        self._came += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._part is not _Part.NOTHING:
            if self._is_too_large():
                self._refuse_size()
            else:
                self._expect(self._part)
        elif not self._is_busy():
            self._expect(_Part.HEAD)  # line ends between requests, which are none
        else:
            self._expect(_Part.NOTHING)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._part = _Part.HEAD
        self._number += 1
        # Of a chunk with the end of another request nobody knows how much is of this one.
        self._came = 0 if self._earlier_in_chunk else self._size_of_chunk
        self._of_body = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those behind a body are none of the request."""
        if self._part is _Part.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete. Raises when its client does not wait for answers."""
        self._part = _Part.BODY
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError("too many requests ahead of their answers")
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Let the application answer; further requests wait for that."""
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._of_body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._part, self._earlier_in_chunk = _Part.NOTHING, True
        super().on_message_complete()

    def _is_busy(self) -> bool:
        """Whether a request waits for its answer, or is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        return cycle is not None and not cycle.response_complete

    # Deadlines

    def _expect(self, part: _Part) -> None:
        """Give this part of this message its time, once."""
        if part is _Part.NOTHING:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            self._deadline_of = (self._number, part)
            return
        if self._deadline_of == (self._number, part) and self._deadline is not None:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline_of = (self._number, part)
        self._deadline = self.loop.call_later(self._time_of(part), self._too_slow)

    def _time_of(self, part: _Part) -> float:
        manners = self._manners
        return manners.head_timeout if part is _Part.HEAD else manners.body_timeout + _GRACE

    def _too_slow(self) -> None:
        _, part = self._deadline_of
        self._deadline = None
        if self.flow.read_paused:  # it is us who do not read
            self._deadline = self.loop.call_later(self._time_of(part), self._too_slow)
        elif part is _Part.HEAD and self._part is _Part.HEAD:
            detail = f"the head did not arrive within {self._manners.head_timeout:g} s"
            self._guests.closed[Rude.SLOW_HEAD] += 1
            self._refuse(ErrorCode.REQUEST_TIMEOUT, detail)
        else:
            self._guests.closed[Rude.SLOW_BODY] += 1
            self._end()

    def _settle_down(self) -> None:
        for timer in (self._deadline, self._unread, self._last_words):
            if timer is not None:
                timer.cancel()
        self._deadline = self._unread = self._last_words = None

    # Refusals of what is no request

    def _is_too_large(self) -> bool:
        """Whether more has come than a head and a body are made of."""
        beside = self._came - self._of_body
        most = self._manners.head + 4096
        if self._part is _Part.BODY:  # a head that is too large is the application's to refuse
            most += _FRAMING + self._of_body
        return beside > most

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn names it
        """Refuse what is no HTTP."""
        self._guests.closed[Rude.MALFORMED] += 1
        self._refuse(ErrorCode.MALFORMED, "this is no HTTP request")

    def _refuse_size(self) -> None:
        self._guests.closed[Rude.TOO_LARGE] += 1
        if self._part is _Part.HEAD:
            detail = f"path and headers have at most {self._manners.head} bytes"
            self._refuse(ErrorCode.HEADERS_TOO_LARGE, detail)
        else:
            self._end()

    def _refuse(self, code: ErrorCode, detail: str) -> None:
        """Answer, where no other answer is under way, and close."""
        answering = self._answering
        if answering is None or answering.response_complete or not answering.response_started:
            told = problem(code, detail)
            body = msgspec.json.encode(told)
            head = [
                f"HTTP/1.1 {told.status} {told.title}".encode(),
                b"content-type: application/problem+json",
                f"content-length: {len(body)}".encode(),
                *(b": ".join(each) for each in (NO_SNIFFING, NOT_KEPT)),
                b"connection: close",
            ]
            self.transport.write(b"\r\n".join([*head, b"", body]))
        self._end()

    def _end(self) -> None:
        """Close; whoever does not read the last words is broken off."""
        if not self.transport.is_closing():
            self._nobody_listens()
            self.transport.close()
            self._last_words = self.loop.call_later(_LINGER, self.transport.abort)

    def _break_off(self) -> None:
        self._guests.closed[Rude.UNREAD] += 1
        self._nobody_listens()
        self.transport.abort()

    def _nobody_listens(self) -> None:
        """Tell the application at once: uvicorn does when the loop turns, and writes till then."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
            self.flow.resume_writing()
