"""Numbers as scripts take and answer them: little-endian doubles."""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

_SWAPPED = sys.byteorder == "big"


def pack(values: Iterable[float]) -> bytes:
    """Numbers as scripts take them."""
    numbers = array("d", values)
    if _SWAPPED:
        numbers.byteswap()
    return numbers.tobytes()


def unpack(text: bytes) -> Sequence[float]:
    """Numbers as scripts answer them."""
    numbers = array("d", text)
    if _SWAPPED:
        numbers.byteswap()
    return numbers


@lru_cache(256)
def doubles(count: int) -> Callable[..., bytes]:
    """What packs so many numbers as scripts take them: a third of what `pack` costs."""
    return struct.Struct(f"<{count}d").pack
