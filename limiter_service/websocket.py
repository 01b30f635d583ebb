"""uvicorn's WebSocket, which at a shutdown lets the application have the last word."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_RESTARTING = 1012


class Protocol(WebSocketsSansIOProtocol):
    """Closes when the application has said goodbye, not before it can.

    uvicorn itself closes at once: operations under way would end without an answer.
    """

    def shutdown(self) -> None:
        """Tell the application, which answers what it holds and closes."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": _RESTARTING})
        else:
            super().shutdown()

    async def send(self, message: Any) -> None:
        """Send, and know that a refusal completes a handshake too: uvicorn logs an error."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True
