"""Lease ids and nonces.

A lease id says which pool, model, tenant and request it belongs to, so that any replica
finds the lease's key without a lookup, and a key bound to a tenant can be checked. The
nonce keeps an id that is remembered for too long from touching a later lease of the
same request id. A lease that was granted while the store was lost says so, and what it costs.
"""

import binascii
import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

import msgspec

from limiter_wire.naming import drawing, hexadecimal

_NONCE_BITS = 52  # a whole number in a double


class Owed(msgspec.Struct, frozen=True, array_like=True):
    """What a lease that was granted without the store says of itself, so that any replica can
    charge it: when it was granted and for how long, in the store's microseconds, the fingerprint
    of its request, and its charges by limit id (-1: a shadow had no room).
    """

    taken: int
    ttl: int
    fingerprint: int
    charges: dict[int, float]


class LeaseRef(msgspec.Struct, frozen=True, array_like=True):
    """What a lease id stands for."""

    pool: str
    model: str
    tenant: str
    request_id: str
    nonce: int
    route: str | None = None
    owed: Owed | None = None


_encode = msgspec.msgpack.Encoder().encode
_URL_SAFE, _PLAIN = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")
_PADDING = b"==="
_decoder = msgspec.msgpack.Decoder(LeaseRef)


def _numbers(fresh: bytes) -> Iterable[int]:
    return [number >> (64 - _NONCE_BITS) for (number,) in struct.iter_unpack("<Q", fresh)]


new_nonce = drawing(8, _numbers)
"""A random number that names one call."""

new_short_id = drawing(8, hexadecimal(8))
"""A name to find a request by in logs: 16 hexadecimal digits."""


def encode(ref: LeaseRef) -> str:
    """The lease id of *ref*: URL-safe text."""
    return _text(_encode(ref))


class Stem:
    """What the lease ids of one chain have in common."""

    __slots__ = ("_bytes",)

    def __init__(self, pool: str, model: str, tenant: str) -> None:
        whole = _encode(LeaseRef(pool, model, tenant, "", 0))
        self._bytes = whole[: -len(_encode(["", 0, None, None])) + 1]

    def encode(self, request_id: str, nonce: int, route: str | None) -> str:
        """The lease id of a request: as `encode` makes it of its LeaseRef."""
        return _text(self._bytes + _encode((request_id, nonce, route, None))[1:])


def _text(data: bytes) -> str:
    return b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=").decode("ascii")


def decode(lease: str) -> LeaseRef | None:
    """What *lease* stands for; None when it was not made by `encode`."""
    try:
        text = lease.encode("ascii").translate(_PLAIN) + _PADDING[: -len(lease) % 4]
        return _decoder.decode(a2b_base64(text))
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        return None


@lru_cache(4096)
def fingerprint(*parts: object) -> int:
    """A number that is equal for equal parameters of a request."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big")
