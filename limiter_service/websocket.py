"""uvicorn's WebSocket, with what the channel needs of it and it lacks."""

from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from limiter_service.connection import LOGGER
from limiter_service.guests import GUESTS, Guests

_RESTARTING = 1012
_TOO_LARGE = 1009
_MOST_PIECES = 1024
"""Frames of one message: empty ones are no bytes, and kept all the same."""

_MOST_UNSENT = 4_194_304
"""Bytes that a client leaves unread: answers wait for it, what replies to its pings does not."""

_CLOSE_TIMEOUT = 1.0  # seconds that a client has to say goodbye in turn


class Protocol(WebSocketsSansIOProtocol):
    """Leaves the last word at a shutdown to the application, ends every failed handshake, and
    bounds what a client can make it keep.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.logger = LOGGER
        self._guests: Guests = self.app_state[GUESTS]
        self._unread: TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, which was counted when it came over HTTP."""
        self._guests.leave(self.transport)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        if self._unread is None:
            timeout = self._guests.manners.unread_timeout
            self._unread = self.loop.call_later(timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

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
            self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        """Take a further piece of a message, which has not any number of them."""
        if len(self.frames) >= _MOST_PIECES:
            self.conn.fail(_TOO_LARGE, f"a message has at most {_MOST_PIECES} frames")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    async def send(self, message: Any) -> None:
        """Send, and know that a refusal completes a handshake too: uvicorn logs an error."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True
