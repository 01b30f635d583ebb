"""uvicorn's WebSocket, with what the channel needs of it and it lacks."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_RESTARTING = 1012
_CLOSE_TIMEOUT = 1.0  # seconds that a client has to say goodbye in turn


class Protocol(WebSocketsSansIOProtocol):
    """Leaves the last word at a shutdown to the application, and ends every failed handshake."""

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

    async def send(self, message: Any) -> None:
        """Send, and know that a refusal completes a handshake too: uvicorn logs an error."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True
