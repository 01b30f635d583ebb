"""Names of requests, which either side gives where nobody did, and the bytes for them."""

import os
from array import array

_PIECES, _PIECE, _NUMBER = 256, 16, 8
_drawn: list[bytes] = []
_numbers: list[int] = []
if hasattr(os, "register_at_fork"):  # else there are no forks
    for stock in (_drawn, _numbers):
        os.register_at_fork(after_in_child=stock.clear)  # no two processes have the same


def draw() -> bytes:
    """16 random bytes of the system. It is asked for many at once: each time takes as long as a
    tenth of an acquire.
    """
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            fresh = os.urandom(_PIECES * _PIECE)
            _drawn.extend(fresh[at : at + _PIECE] for at in range(0, len(fresh), _PIECE))


def number() -> int:
    """64 random bits of the system, drawn in the same way."""
    while True:
        try:
            return _numbers.pop()
        except IndexError:
            _numbers.extend(array("Q", os.urandom(_PIECES * _NUMBER)))


def new_request_id() -> str:
    """A name for a request whose caller gives it none: 32 hexadecimal digits."""
    return draw().hex()
