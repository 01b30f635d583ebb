"""The WebSocket of a channel for tasks: each message is handed on as it comes, and sent at once.

The connection of websockets opens, keeps alive and closes it. What is left out is its way of
waiting: a queue and a future for each message that comes, a lock for each that goes. Imported by
who opens a channel, since websockets takes its time.
"""

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import DATA_OPCODES
from websockets.protocol import OPEN

from client_sdk import _dial


class Socket(ClientConnection):
    """*heard* is told every message, *writable* when there is room to write again."""

    def __init__(
        self,
        *args: Any,
        heard: Callable[[bytes], None],
        writable: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._heard, self._writable = heard, writable
        self._parts: list[bytes] = []

    @property
    def ready(self) -> bool:
        """Whether something can be sent now."""
        return self.protocol.state is OPEN and not self.paused and not self.transport.is_closing()

    def say(self, message: bytes) -> None:
        """Send *message*, when it is ready."""
        self.protocol.send_binary(message)
        self.send_data()

    @property
    def closed_with(self) -> int | None:
        """The code with which the service has closed it."""
        told = self.protocol.close_rcvd
        return None if told is None else told.code

    def process_event(self, event: Any) -> None:
        """Hand on what is a message, or the end of one."""
        if self.response is None or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and not self._parts:
            self._heard(bytes(event.data))
        else:
            self._parts.append(event.data)
            if event.fin:
                message = b"".join(self._parts)
                self._parts.clear()
                self._heard(message)

    def resume_writing(self) -> None:
        """Say so."""
        super().resume_writing()
        self._writable()


async def opened(
    address: _dial.Address,
    timeout: float,  # of websockets
    heard: Callable[[bytes], None],
    writable: Callable[[], None],
) -> Socket:
    """A connection to *address*. Raises what websockets raises."""

    def made(*args: Any, **options: Any) -> Socket:
        return Socket(*args, heard=heard, writable=writable, **options)

    connection = await connect(
        address.uri,
        create_connection=made,  # type: ignore[arg-type]  # a factory does, as its guide says
        additional_headers=address.headers,
        ssl=address.tls,
        compression=None,
        proxy=None,
        open_timeout=timeout,
        ping_interval=_dial.PING_INTERVAL,
        ping_timeout=_dial.PING_TIMEOUT,
        close_timeout=_dial.CLOSE_TIMEOUT,
        max_size=_dial.MOST_BYTES,
    )
    assert isinstance(connection, Socket)
    return connection
