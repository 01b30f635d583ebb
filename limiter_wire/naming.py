"""Names of requests, which either side gives where nobody did, and the bytes for them."""

import os

_PIECES, _PIECE = 256, 16
_drawn: list[bytes] = []
_names: list[str] = []
if hasattr(os, "register_at_fork"):  # else there are no forks
    for each in (_drawn, _names):
        os.register_at_fork(after_in_child=each.clear)  # no two processes have the same


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


def new_request_id() -> str:
    """A name for a request whose caller gives it none: 32 hexadecimal digits."""
    while True:
        try:
            return _names.pop()
        except IndexError:
            fresh, digits = os.urandom(_PIECES * _PIECE).hex(), 2 * _PIECE
            _names.extend(fresh[at : at + digits] for at in range(0, len(fresh), digits))
