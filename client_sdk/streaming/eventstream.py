"""The binary framing of AWS (`application/vnd.amazon.eventstream`), checksums verified.

A message is: total length, length of the headers, CRC of these eight bytes, headers,
payload, CRC of everything before. Lengths and sums are big-endian 32-bit numbers.
"""

import struct
import zlib

import msgspec

from client_sdk.errors import ProtocolError
from client_sdk.streaming.sse import Event, Heartbeat

_PRELUDE = struct.Struct(">III")
_U16 = struct.Struct(">H")
_CRC = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size
_MAX_HEADERS = 128 * 1024
_MAX_PAYLOAD = 24 * 1024 * 1024
# Sizes of header values by type: true, false, byte, short, int, long, -, -, time, uuid.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_SIZED = frozenset({6, 7})  # bytes and string: a length of two bytes in front
EXCEPTION = "exception:"
"""How the `event` of an exception or error frame begins; its type follows."""


class EventStreamDecoder:
    """Decodes one AWS event stream; an exception frame is an event named `exception:type`.

    Messages before a damaged one are still delivered; then `broken` says what is wrong, and
    `feed` raises ProtocolError. `max_event_bytes` bounds the payload, at most 24 MiB.
    """

    stray = b""

    def __init__(self, max_event_bytes: int | None = None) -> None:
        self.broken: str | None = None
        self._limit = min(max_event_bytes or _MAX_PAYLOAD, _MAX_PAYLOAD)
        self._parts: list[bytes] = []
        self._held = 0
        self._need = _PRELUDE.size

    def feed(self, data: bytes) -> list[Event | Heartbeat]:
        """Take the next bytes; return the messages that they complete."""
        if self.broken is not None:
            raise ProtocolError(self.broken)
        self._parts.append(data)
        self._held += len(data)
        # Nothing is joined before a message can be whole: linear for tiny chunks.
        if self._held < self._need:
            return []
        buffer = memoryview(b"".join(self._parts))
        out: list[Event | Heartbeat] = []
        at = 0
        while len(buffer) - at >= self._need:
            head = buffer[at : at + _PRELUDE.size]
            total, size, crc = _PRELUDE.unpack(head)
            self.broken = self._fault_of_prelude(head[:8], total, size, crc)
            if self.broken is not None:
                break
            self._need = total
            if len(buffer) - at < total:
                break
            self._message(buffer[at : at + total], size, out)
            if self.broken is not None:
                break
            at += total
            self._need = _PRELUDE.size
        rest = bytes(buffer[at:])
        self._parts, self._held = ([rest], len(rest)) if self.broken is None else ([], 0)
        return out

    def flush(self) -> list[Event | Heartbeat]:
        """End the stream: a message that was cut is not worth anything."""
        if self.broken is not None:
            raise ProtocolError(self.broken)
        self._parts, self._held, self._need = [], 0, _PRELUDE.size
        return []

    def _fault_of_prelude(self, head: memoryview, total: int, size: int, crc: int) -> str | None:
        if zlib.crc32(head) != crc:
            return "the checksum of a prelude is wrong"
        if size > _MAX_HEADERS or total < size + _OVERHEAD:
            return "a message has impossible lengths"
        if total - size - _OVERHEAD > self._limit:
            return f"a payload is larger than {self._limit} bytes"
        return None

    def _message(self, message: memoryview, size: int, out: list[Event | Heartbeat]) -> None:
        (crc,) = _CRC.unpack(message[-_CRC.size :])
        if zlib.crc32(message[: -_CRC.size]) != crc:
            self.broken = "the checksum of a message is wrong"
            return
        start = _PRELUDE.size
        headers = _headers(message[start : start + size])
        if headers is None:
            self.broken = "the headers of a message are malformed"
            return
        payload = bytes(message[start + size : -_CRC.size])
        kind = headers.get(":message-type", "event")
        if kind == "exception":
            out.append(Event(EXCEPTION + headers.get(":exception-type", ""), payload))
        elif kind == "error":
            said = msgspec.json.encode({"message": headers.get(":error-message", "")})
            out.append(Event(EXCEPTION + headers.get(":error-code", ""), said))
        else:
            out.append(Event(headers.get(":event-type", "message"), payload))


def _headers(block: memoryview) -> dict[str, str] | None:
    """The headers whose value is text, or None when they cannot be read."""
    found: dict[str, str] = {}
    at, end = 0, len(block)
    while at < end:
        name_end = at + 1 + block[at]
        if name_end >= end:
            return None
        name, kind = bytes(block[at + 1 : name_end]), block[name_end]
        at = name_end + 1
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _SIZED and at + 2 <= end:
            (length,) = _U16.unpack(block[at : at + 2])
            value = bytes(block[at + 2 : at + 2 + length])
            at += 2 + length
            if at <= end:
                found[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        else:
            return None
        if at > end:
            return None
    return found


def encode(event: str, payload: bytes, *, message_type: str = "event") -> bytes:
    """One message, for tests and simulators."""
    kind = ":exception-type" if message_type == "exception" else ":event-type"
    pairs = {":message-type": message_type, kind: event, ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + _U16.pack(len(value)) + value
        for name, value in ((name, text.encode()) for name, text in pairs.items())
    )
    lengths = struct.pack(">II", _OVERHEAD + len(headers) + len(payload), len(headers))
    message = lengths + _CRC.pack(zlib.crc32(lengths)) + headers + payload
    return message + _CRC.pack(zlib.crc32(message))
