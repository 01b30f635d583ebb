"""uvicorn's WebSocket, with what the channel needs of it and it lacks."""

from asyncio import TimerHandle
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request
from websockets.protocol import State

from limiter_service.connection import LOGGER
from limiter_service.guests import GUESTS, Guests, Rude
from limiter_service.http import Message
from limiter_service.line import LINE, Hear

_SWITCHING = 101  # protocols: the handshake is accepted
_RESTARTING = 1012
_UNREADABLE = 1007
_MISUSED = 1008
_TOO_LARGE = 1009
_MOST_PIECES = 1024
"""Frames of one message: empty ones are no bytes, and kept all the same."""

_MOST_UNSENT = 4_194_304
"""Bytes that a client leaves unread: answers wait for it, what replies to its pings does not."""

_CLOSE_TIMEOUT = 1.0  # seconds that a client has to say goodbye in turn


class Protocol(WebSocketsSansIOProtocol):
    """Leaves the last word at a shutdown to the application, ends every failed handshake, bounds
    what a client can make it keep, and is the application's line (limiter_service/line).
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.logger = LOGGER
        self._guests: Guests = self.app_state[GUESTS]
        self._unread: TimerHandle | None = None
        self._slow: TimerHandle | None = None
        self._hear: Hear | None = None
        self._offered: dict[Any, Any] | None = None
        """The extensions of the scope, once there is one."""

    def handle_connect(self, event: Request) -> None:
        """Begin a handshake, whose application is to know its line."""
        super().handle_connect(event)
        if self.response.status_code == _SWITCHING:
            offered: dict[Any, Any] | None = self.scope["extensions"]
            assert offered is not None
            offered[LINE] = self
            self._offered = offered

    def listen(self, hear: Hear) -> None:
        """Offer it each message, unless one before it is still to be received."""
        self._hear = hear

    def say(self, messages: Iterable[Message]) -> bool:
        """Send at once, if the client is there and reads."""
        connection = self.conn
        if connection.state is not State.OPEN or self.disconnected or not self.writable.is_set():
            return False
        for message in messages:
            data = message.get("bytes")
            if data is None:
                connection.send_text(message["text"].encode())
            else:
                connection.send_binary(data)
        self.transport.write(b"".join(connection.data_to_send()))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, which was counted when it came over HTTP."""
        self._guests.leave(self.transport)
        self._hear = None
        if self._offered is not None:
            self._offered.pop(LINE, None)  # which is this
        self.resume_writing()
        self._expect(rest=False)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        if self._unread is None:
            timeout = self._guests.manners.unread_timeout
            self._unread = self.loop.call_later(timeout, self._break_off)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _break_off(self) -> None:
        self._guests.closed[Rude.UNREAD] += 1
        self.transport.abort()

    def shutdown(self) -> None:
        """Tell the application, which answers what it holds and closes.

        uvicorn itself closes at once: operations under way would end without an answer.
        """
        if self.handshake_complete and not self.close_sent:
            self.close_timeout = _CLOSE_TIMEOUT
            self.queue.put_nowait({"type": "websocket.disconnect", "code": _RESTARTING})
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        """Read, and send the refusal of a head that cannot be read: uvicorn leaves it unsent,
        and the connection open.
        """
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        if self.transport.get_write_buffer_size() > _MOST_UNSENT:
            self._break_off()
        self._expect(rest=bool(self.conn.reader.buffer or self.frames))

    def _expect(self, *, rest: bool) -> None:
        """Give the rest of a message its time, once."""
        if not rest and self._slow is not None:
            self._slow.cancel()
            self._slow = None
        elif rest and self._slow is None and not self.transport.is_closing():
            timeout = self._guests.manners.body_timeout
            self._slow = self.loop.call_later(timeout, self._too_slow)

    def _too_slow(self) -> None:
        self._slow = None
        if self.read_paused:  # it is us who do not read
            self._expect(rest=True)
            return
        self._guests.closed[Rude.SLOW_BODY] += 1
        timeout = self._guests.manners.body_timeout
        self._fail(_MISUSED, f"a message did not arrive within {timeout:g} s")

    def handle_cont(self, event: Frame) -> None:
        """Take a further piece of a message, which has not any number of them."""
        if len(self.frames) >= _MOST_PIECES:
            self._fail(_TOO_LARGE, f"a message has at most {_MOST_PIECES} frames")
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand a message on, if it is text where it says so: uvicorn logs an error, and breaks
        when the connection is closing.
        """
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(_UNREADABLE, "text is UTF-8")
                return
        if not self._is_heard():
            super().send_receive_event_to_app()

    def _is_heard(self) -> bool:
        """Whether the application takes the message from the line."""
        if self._hear is None or self.close_sent or not self.queue.empty():
            return False
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        if not self._hear(data.decode() if self.curr_msg_data_type == "text" else data):
            return False
        self.frames = []
        return True

    def _fail(self, code: int, reason: str) -> None:
        """Close for a reason."""
        self.frames = []
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if not self.transport.is_closing():
            self.conn.fail(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.transport.close()

    async def send(self, message: Any) -> None:
        """Send, and know that a refusal completes a handshake too: uvicorn logs an error."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True
