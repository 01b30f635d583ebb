"""Heads of requests for the hatch: what they say, and those that are known from before.

A client sends the same few heads again and again, by turns and over many connections. One that is
known is not parsed again (docs/decisions/0023).
"""

from collections.abc import Callable

import msgspec

from limiter_service import http
from limiter_service.door import HOT_ROLES, shown_in
from limiter_service.engine.credentials import Credential
from limiter_service.front import Bounds
from limiter_service.http import JSON, MSGPACK, Media
from limiter_wire import Acquire, Role, Settle

Lines = list[tuple[bytes, bytes]]
"""Headers as they were sent, with names in lower case."""

MOST_KNOWN = 2048
LONGEST_KNOWN = 2048

_MOST_MET = 4096
_NOT_PLAIN = {b"expect", b"idempotency-key", b"origin", b"transfer-encoding"}
_KINDS = {b"/v1/acquire": Acquire, b"/v1/settle": Settle}
_DECODE: dict[tuple[bytes, str], Callable[[bytes], Acquire | Settle]] = {
    (path, media): decoder(kind).decode
    for path, kind in _KINDS.items()
    for media, decoder in ((JSON, msgspec.json.Decoder), (MSGPACK, msgspec.msgpack.Decoder))
}


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a head says that is plain. *length* is that of the body, which *decode* reads."""

    path: bytes
    headers: Lines
    length: int
    kind: Media
    decode: Callable[[bytes], Acquire | Settle]
    shown: Credential | None
    identity: str | None
    roles: tuple[Role, ...]


class Heads:
    """Reads heads, and keeps in mind those that come again."""

    paths = frozenset(_KINDS)
    """Of the requests that may go in at the hatch."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.known: dict[bytes, Head] = {}
        """Heads as they come from the network: what they say."""
        self._met: set[int] = set()

    def read(self, path: bytes, headers: Lines) -> Head | None:
        """What the head of a request says; None where it is not plain."""
        said = dict(headers)
        length, sent = said.get(b"content-length"), said.get(b"authorization")
        size = len(path) + sum([len(name) + len(value) + 4 for name, value in headers])
        if length is None or not length.isdigit() or said.keys() & _NOT_PLAIN:
            return None
        if size > self._bounds.head or int(length) > self._bounds.body:
            return None
        shown = None if sent is None else shown_in(sent.decode("latin-1"))
        if sent is not None and shown is None:
            return None
        kind = http.media_of(_text(said.get(b"content-type")), _text(said.get(b"accept")))
        decode = _DECODE.get((path, kind.body))
        if decode is None:
            return None
        return Head(
            path=path,
            headers=headers,
            length=int(length),
            kind=kind,
            decode=decode,
            shown=shown,
            identity=http.usable_id(_text(said.get(b"x-request-id"))),
            roles=HOT_ROLES[path.decode()],
        )

    def met(self, raw: bytes, head: Head) -> None:
        """Know from now on what *raw* says, if it was met before: one that never comes again
        takes no place. Of those that are met once only numbers are kept.
        """
        name = hash(raw)
        if name not in self._met:
            if len(self._met) >= _MOST_MET:
                self._met.clear()
            self._met.add(name)
        elif len(raw) <= LONGEST_KNOWN:
            if len(self.known) >= MOST_KNOWN:
                del self.known[next(iter(self.known))]
            self.known[raw] = head


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
