"""The WebSocket of a channel for tasks: each message is handed on as it comes, and sent at once.

The connection of websockets opens, keeps alive and closes it. What is left out is its way of
waiting: a queue and a future for each message that comes, a lock for each that goes; and where a
message is one plain frame, as nearly all are, its way of reading and writing it. Imported by who
opens a channel, since websockets takes its time.
"""

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import DATA_OPCODES
from websockets.protocol import OPEN

from client_sdk import _dial
from client_sdk._plain_frames import PLAIN, extent, framed

_MASKED = 0x80
_END_OF_HEAD = b"\r\n\r\n"


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
        self._rest = bytearray()  # the beginning of a frame
        self._wanted = 0
        self._by_the_book = self.debug  # then the protocol says what it reads and writes

    @property
    def ready(self) -> bool:
        """Whether something can be sent now."""
        return self.protocol.state is OPEN and not self.paused and not self.transport.is_closing()

    def say(self, message: bytes) -> None:
        """Send *message*, when it is ready."""
        if self._by_the_book:
            self.protocol.send_binary(message)
            self.send_data()
        else:
            self.transport.write(framed(message))

    def data_received(self, data: bytes) -> None:
        """Hand on what is a message in one frame; the protocol takes the others, each whole."""
        before = self.protocol.state
        if before is OPEN and not self._by_the_book:
            if self._rest:
                self._rest += data
                if len(self._rest) < self._wanted:
                    return
                data = bytes(self._rest)
                self._rest.clear()
            self._read(data)
            return
        self._give(data)
        if before is not OPEN and self.protocol.state is OPEN:
            # Where it is in the middle of a frame, it goes on reading.
            self._by_the_book = self._by_the_book or not data.endswith(_END_OF_HEAD)

    def _read(self, data: bytes) -> None:
        """Take every whole frame of *data*, and keep the rest."""
        at, protocol = 0, self.protocol
        while at < len(data):
            begin, end = extent(data, at)
            if end - begin > _dial.MOST_BYTES or protocol.state is not OPEN:
                self._by_the_book = True  # which ends the connection
                self._give(data[at:])
                return
            if end > len(data):
                self._rest += data[at:]
                self._wanted = end - at
                return
            if data[at] == PLAIN and data[at + 1] < _MASKED and protocol.current_size is None:
                self._heard(data[begin:end])
            else:
                super().data_received(data[at:end])
            at = end

    def _give(self, data: bytes) -> None:
        """Let the protocol read *data*, after what came of the frame before."""
        begun = bytes(self._rest)
        self._rest.clear()
        super().data_received(begun + data)

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
