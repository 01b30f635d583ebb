"""Streams in gzip whose messages are packed once, however many read them. Pure.

A message is packed by itself, up to the edge of a byte, and refers to nothing before it: so the
same bytes fit into every stream. Only the checksum at the end is a stream's own.
"""

import struct
import zlib

_LEVEL = 2  # of a moment of 200 resources a fiftieth is left, and further levels gain little
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"
_SIZE = 2**32


def pack(text: bytes) -> bytes:
    """*text* as a piece of any stream."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)


def accepts(header: str | None) -> bool:
    """Whether a reader says in `Accept-Encoding` that it reads gzip."""
    for part in (header or "").lower().split(","):
        name, _, options = part.partition(";")
        if name.strip() == "gzip":
            return options.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


class Squeezed:
    """One stream."""

    def __init__(self) -> None:
        self._checksum, self._size = 0, 0

    def begin(self) -> bytes:
        """What comes first."""
        return _HEAD

    def add(self, text: bytes, packed: bytes | None = None) -> bytes:
        """*text* in its place in the stream; *packed* where that is done already."""
        self._checksum = zlib.crc32(text, self._checksum)
        self._size += len(text)
        return pack(text) if packed is None else packed

    def end(self) -> bytes:
        """What comes last."""
        return _LAST_BLOCK + struct.pack("<II", self._checksum, self._size % _SIZE)
