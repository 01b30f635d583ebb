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
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from limiter_service import replies
from limiter_service.engine.begun import Begun
from limiter_service.guests import GUESTS, Guests, Manners, Rude
from limiter_service.hatch import HATCH, Hatch, Order
from limiter_service.heads import Head, Lines
from limiter_service.http import Scope
from limiter_service.page_policy import NO_SNIFFING, NOT_KEPT
from limiter_service.routes.swift import BEGUN
from limiter_wire import ErrorCode, problem

STOPPING = "sluicegate.stopping"
"""In the state of the lifespan: what to call when the server begins to stop."""

_MOST_PIPELINED = 32
"""Requests that a client may send ahead of the answers that it waits for."""

_FRAMING = 262_144
"""Bytes beside a body, for the sizes of its chunks: and no more than the network gives at once."""

_END_OF_HEAD = b"\r\n\r\n"

_GRACE = 0.25
"""Seconds for the application to refuse a slow body before the connection is closed."""

_LINGER = 1.0
"""Seconds in which a client must have read the last words."""


class _Part(IntEnum):
    """What of a message is still to come."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


_NOTHING = _Part.NOTHING
"""By itself: to look into an enumeration takes time, and each request does it."""


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
        self._answering: RequestResponseCycle | Order | None = None
        # Whatever is uvicorn's to do for each request, only uvicorn does.
        usual = self.config.access_log or self.root_path or self.limit_concurrency is not None
        self._hatch: Hatch | None = None if usual else self.app_state.get(HATCH)
        self._pieces: list[bytes] | None = None
        """Of a body that may go in at the hatch."""
        self._raw = b""
        """The head of what came at once, if there is a whole one."""
        self._idle_since = 0.0
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

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer be: there is one for all the pauses of a connection."""

    def _watch_pause(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing was asked for long."""
        self.timeout_keep_alive_task = None
        if self._is_busy() or self._part is not _Part.NOTHING:
            return  # the next answer watches again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch_pause(left)
        else:
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
        self._raw = b""
        hatch = self._hatch
        if hatch is not None and self._part is _NOTHING and not self._is_busy():
            end = data.find(_END_OF_HEAD)
            if end >= 0 and self._order_known(data, end + len(_END_OF_HEAD)):
                return
        self._size_of_chunk, self._earlier_in_chunk = len(data), False
        self._came += len(data)
        super().data_received(data)
        if self._pieces is not None and not self.transport.is_closing():
            pieces, self._pieces = self._pieces, None
            self._enter(self.url, self.headers, b"".join(pieces), more=True)
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
        self.url, self.headers = b"", []
        self._part = _Part.HEAD
        self._number += 1
        # Of a chunk with the end of another request nobody knows how much is of this one.
        self._came = 0 if self._earlier_in_chunk else self._size_of_chunk
        self._of_body = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head; those behind a body are none of the request."""
        if self._part is _Part.HEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is complete. Raises when its client does not wait for answers."""
        self._part = _Part.BODY
        if len(self.pipeline) >= _MOST_PIPELINED:
            raise ValueError("too many requests ahead of their answers")
        if self._is_for_hatch():
            self._pieces = []
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def _is_for_hatch(self) -> bool:
        """Whether the request may be ordered at the hatch, if its body comes with it."""
        hatch, parser = self._hatch, self.parser
        return (
            hatch is not None
            and self.url in hatch.heads.paths
            and not self._is_busy()
            and not self.flow.write_paused
            and parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
        )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Let the application answer; further requests wait for that."""
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._of_body += len(body)
        if self._pieces is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._part, self._earlier_in_chunk = _Part.NOTHING, True
        if self._pieces is None:
            super().on_message_complete()
        else:
            self._order_parsed(b"".join(self._pieces))

    # At the hatch

    def _order_known(self, data: bytes, end: int) -> bool:
        """Order what comes whole, under a head that ends at *end* and came before: what was read
        once says the same again. Whether it does.
        """
        assert self._hatch is not None
        self._raw = data[:end]
        head = self._hatch.heads.known.get(self._raw)
        if head is None or len(data) != end + head.length or self.flow.write_paused:
            return False
        self._number += 1
        if self._deadline is not None:
            self._expect(_NOTHING)
        self._order(head, data[end:])
        return True

    def _order_parsed(self, body: bytes) -> None:
        """Order what the parser has read."""
        assert self._hatch is not None
        self._pieces = None
        head = self._hatch.heads.read(self.url, self.headers)
        if head is None:
            self._enter(self.url, self.headers, body)
            return
        whole = self._raw and self._size_of_chunk == len(self._raw) + head.length
        if self._order(head, body) and whole:
            self._hatch.heads.met(self._raw, head)

    def _order(self, head: Head, body: bytes) -> bool:
        """Order what is asked for, or let the application answer it; whether it was ordered."""
        assert self._hatch is not None
        order = self._hatch.order(head, body, self._heard)
        if order is None:
            self._enter(head.path, head.headers, body)
            return False
        self._answering = order
        self.cycle = order  # type: ignore[assignment]  # uvicorn asks of it what it asks of its own
        return True

    def _heard(self, order: Order) -> None:
        """Hand out what was ordered, or let the application go on with it."""
        assert self._hatch is not None
        answer = self._hatch.answer(order)
        gone = order.disconnected or self.transport.is_closing()
        if answer is None and gone:
            self._hatch.finish(order)
        elif answer is None:
            self._enter(order.head.path, order.head.headers, order.body, begun=order.begun)
        if answer is None or gone:
            return
        order.response_started = order.response_complete = True
        if order.keep_alive:
            self.transport.write(answer)
        else:  # the server stops
            self.transport.write(replies.parting(answer))
            self.transport.close()
        self.on_response_complete()

    def _enter(
        self,
        path: bytes,
        headers: Lines,
        body: bytes,
        *,
        more: bool = False,
        begun: Begun | None = None,
    ) -> None:
        """Let the application answer a request that was meant for the hatch."""
        scope: Scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": "POST",
            "root_path": "",
            "path": path.decode(),
            "raw_path": path,
            "query_string": b"",
            "headers": [*headers],
            "state": self.app_state.copy(),
            BEGUN: begun,
        }
        cycle = RequestResponseCycle(
            scope=scope,  # type: ignore[arg-type]  # with a key of ours
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=any(
                name == b"expect" and value.lower() == b"100-continue" for name, value in headers
            ),
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        cycle.body += body
        cycle.more_body = more
        if body or not more:
            cycle.message_event.set()
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        if self.cycle is self._answering:  # no further request waits for its turn
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_pause(self.timeout_keep_alive)

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
        timers = (self._deadline, self._unread, self._last_words, self.timeout_keep_alive_task)
        for timer in timers:
            if timer is not None:
                timer.cancel()
        self._deadline = self._unread = self._last_words = self.timeout_keep_alive_task = None

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
