"""Grants as msgpack: what all grants of a chain have in common is encoded once. Pure.

What is left of a limit, and when it is full again, are doubles: their place is known, and nothing
around them changes.
"""

import struct
from functools import lru_cache

import msgspec

from limiter_service.engine.breaking import CIRCUITS
from limiter_service.engine.shape import Shape, Taken

_encode = msgspec.msgpack.Encoder().encode
_pack = struct.Struct(">d").pack
_DOUBLE = b"\xcb"
_MAP, _ARRAY, _SMALL = 0x80, 0x90, 16

_OF_A_GRANT = 12  # fields; a frame has id and status beside them
_HEAD = bytes((_MAP + 2 + _OF_A_GRANT,)) + _encode("id")
_STATUS = _encode("status") + _encode(200)
_BEFORE_LEASE = b"".join(map(_encode, ("granted", True, "lease")))
_BEFORE_EXPIRY = b"".join(map(_encode, ("waited", 0.0, "expires_in"))) + _DOUBLE
_CHARGED = _encode("charged")
_TAIL = b"".join(map(_encode, ("degraded", False, "settled", False, "block", None)))
_CIRCUITS = tuple(
    b"".join(map(_encode, ("breaker", state, "probe", probe, "suggested_max_tokens")))
    for state, probe in CIRCUITS
)
_UNSUGGESTED = tuple(circuit + _encode(None) + _TAIL for circuit in _CIRCUITS)


class Stencil:
    """The limits of a chain, with room for what changes."""

    def __init__(self, shape: Shape) -> None:
        self._parts: list[bytes] = []
        text = _encode("limits") + _array(len(shape.faces))
        for name, meter, limit, per, scope in shape.faces:
            before = ("name", name, "meter", meter, "limit", limit, "remaining")
            after = ("per", per, "window", "bucket", "scope", scope, "shadow", False)
            text += bytes((_MAP + 10,)) + b"".join(map(_encode, before)) + _DOUBLE
            self._parts += [text, _encode("reset_after") + _DOUBLE]
            text = b"".join(map(_encode, (*after, "refused", False)))
        self._rest = text
        form = "".join(f"{len(part)}sd" for part in self._parts)
        self._pack = struct.Struct(">" + form).pack

    def limits(self, left: list[float]) -> bytes:
        """The field, with what is *left*, and when it is full again, of each."""
        values: list[bytes | float] = [b""] * (2 * len(left))
        values[::2], values[1::2] = self._parts, left
        return self._pack(*values) + self._rest


_stencil = lru_cache(4096)(Stencil)


def grant(taken: Taken) -> bytes:
    """A grant, as `Granted` is encoded."""
    return bytes((_MAP + _OF_A_GRANT,)) + _fields(taken)


def frame(name: int | str, taken: Taken) -> bytes:
    """The frame of a channel that tells a grant to the request *name*."""
    return b"".join((_HEAD, _encode(name), _STATUS, _fields(taken)))


def _fields(taken: Taken) -> bytes:
    return b"".join(
        (
            _BEFORE_LEASE,
            _encode(taken.lease),
            _BEFORE_EXPIRY,
            _pack(taken.expires_in),
            _CHARGED,
            taken.told,
            _stencil(taken.shape).limits(taken.left),
            _end(taken),
        )
    )


def _end(taken: Taken) -> bytes:
    if taken.suggested is None:
        return _UNSUGGESTED[taken.circuit]
    return _CIRCUITS[taken.circuit] + _encode(taken.suggested) + _TAIL


def _array(count: int) -> bytes:
    """How an array of so many begins."""
    return _encode([None] * count)[: 1 if count < _SMALL else 3]
