"""The frames that nearly all messages of a channel are: binary, and whole. Pure.

The protocol of websockets can read and write any frame, and calls twenty functions for each.
Imported by who opens a channel, since websockets takes its time.
"""

import struct
from collections.abc import Iterator

from websockets.utils import apply_mask

from limiter_wire.naming import drawing

PLAIN = 0x82
"""The first byte of a binary frame with all of its message."""

_MASKED, _TWO_BYTES, _EIGHT_BYTES = 0x80, 126, 127  # in the second byte, beside a short length
_HEAD, _LONG_HEAD = 4, 10
_MOST_OF_TWO = 0xFFFF
_pack, _pack_long = struct.Struct("!BBH").pack, struct.Struct("!BBQ").pack


def _fours(fresh: bytes) -> Iterator[bytes]:
    return (fresh[at : at + 4] for at in range(0, len(fresh), 4))


_new_mask = drawing(4, _fours)


def framed(message: bytes) -> bytes:
    """*message* as a client sends it."""
    mask, size = _new_mask(), len(message)
    if size < _TWO_BYTES:
        head = bytes((PLAIN, _MASKED | size))
    elif size <= _MOST_OF_TWO:
        head = _pack(PLAIN, _MASKED | _TWO_BYTES, size)
    else:
        head = _pack_long(PLAIN, _MASKED | _EIGHT_BYTES, size)
    return b"".join((head, mask, apply_mask(message, mask)))


def extent(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Where in *data* the frame of a service that begins at *at* has its payload, and where it
    ends. Where it ends is beyond *data* while that lacks a part of it, and at least so far.
    """
    here = len(data) - at
    if here < 2:  # noqa: PLR2004  # the least that says how long it is
        return at + 2, at + 2
    size = data[at + 1] & ~_MASKED
    if size < _TWO_BYTES:
        return at + 2, at + 2 + size
    head = _HEAD if size == _TWO_BYTES else _LONG_HEAD
    if here < head:
        return at + head, at + head
    return at + head, at + head + int.from_bytes(data[at + 2 : at + head], "big")
