"""The framing of AWS event streams.

A message is its total length, the length of its headers, a CRC-32 of those two, the headers,
the payload, and a CRC-32 of everything before. Numbers are big-endian.
"""

import struct
import zlib
from collections.abc import Mapping

MEDIA_TYPE = "application/vnd.amazon.eventstream"

_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_AROUND = 16  # prelude, its checksum, and the checksum of the message
_STRING = 7


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message with headers that are strings."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = _PRELUDE.pack(len(head) + len(payload) + _AROUND, len(head))
    sealed = prelude + _CRC.pack(zlib.crc32(prelude)) + head + payload
    return sealed + _CRC.pack(zlib.crc32(sealed))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack(f">B{len(key)}sBH", len(key), key, _STRING, len(text)) + text
