"""Names of requests whose callers give them none."""

import os

_PIECES, _PIECE = 256, 16
_drawn: list[bytes] = []
if hasattr(os, "register_at_fork"):  # else there are no forks
    os.register_at_fork(after_in_child=_drawn.clear)  # no two processes have the same


def new_request_id() -> str:
    """32 hexadecimal digits, of random bytes of the system: it is asked for many at once, since
    each time takes as long as a tenth of an acquire.
    """
    while True:
        try:
            return _drawn.pop().hex()
        except IndexError:
            fresh = os.urandom(_PIECES * _PIECE)
            _drawn.extend(fresh[at : at + _PIECE] for at in range(0, len(fresh), _PIECE))
