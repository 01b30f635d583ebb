"""The scripts of API keys: read the keyring, put a key on it, revoke one."""

import struct
from collections.abc import Mapping

import msgspec
import structlog

from limiter_service.store.client import Client
from limiter_service.store.errors import StoreProtocol
from limiter_service.store.keys import FleetKeys
from limiter_service.store.packing import pack
from limiter_service.store.parcels import Argument
from limiter_service.store.scripts import load

MOST_FIELDS = 10_000
"""Of the keyring: every replica holds all of it."""

_KEEP = 30 * 86_400 * 1_000_000.0
_TIME = struct.Struct("<d")

_log = structlog.get_logger()


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored: never its secret, a digest of it. Times are microseconds."""

    id: str
    name: str
    roles: list[str]
    pools: list[str] | None = None
    tenants: list[str] | None = None
    salt: bytes
    digest: bytes
    created: float
    created_by: str
    expires: float | None = None


class Ring(msgspec.Struct, frozen=True, kw_only=True):
    """The keyring as it is stored: its version, every key, and when which was revoked."""

    version: bytes = b""
    records: dict[str, KeyRecord] = {}
    revoked: dict[str, float] = {}


class AccessCommands:
    """The scripts, as methods. Each raises StoreUnavailable or StoreProtocol."""

    def __init__(
        self, client: Client, prefix: str, replace: Mapping[str, str] | None = None
    ) -> None:
        self._client, self._keys = client, FleetKeys(prefix)
        self._keyring, self._key = load("keyring", replace), load("key", replace)

    async def keyring(self, known: bytes | None, tag: float) -> tuple[float, Ring | None]:
        """The store's time, and the keyring unless its version is *known*."""
        head = pack([tag])
        # No version is that long: it is read again.
        arguments = [head, b"none yet." if known is None else known]
        answer = await self._client.run(self._keyring, [self._keys.keyring()], arguments)
        if answer[0][:9] != head + b"G":
            raise StoreProtocol("the answer to keyring belongs to another call")
        (now,) = _TIME.unpack(answer[0][9:])
        return now, _ring(answer[1], answer[2:]) if len(answer) > 1 else None

    async def put(self, record: KeyRecord, actor: str, reason: str, tag: float) -> bool:
        """Put a key on the keyring; False when it has room for no more."""
        expires = -1.0 if record.expires is None else record.expires
        text = _TIME.pack(expires) + _encode(record)
        name = f"{record.name} ({record.id})"
        return await self._order(record.id, text, name, actor, reason, tag) == b"G"

    async def revoke(self, key_id: str, name: str, actor: str, reason: str, tag: float) -> bool:
        """Revoke a key; False when there is none."""
        name = f"{name} ({key_id})"
        return await self._order(key_id, b"", name, actor, reason, tag) == b"G"

    async def _order(
        self, key_id: str, record: bytes, name: str, actor: str, reason: str, tag: float
    ) -> bytes:
        head = pack([tag])
        texts: list[Argument] = [
            head,
            key_id,
            record,
            str(MOST_FIELDS),
            str(int(_KEEP)),
            name,
            actor,
            reason,
        ]
        names = [self._keys.keyring(), self._keys.events()]
        answer: bytes = await self._client.run(self._key, names, texts)
        if answer[:8] != head:
            raise StoreProtocol("the answer to key belongs to another call")
        return answer[8:]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeyRecord).decode


def _ring(version: bytes, fields: list[bytes]) -> Ring:
    """The keyring of the fields of a hash."""
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    found = [_record(value) for name, value in values.items() if name[:1] == b"k"]
    try:
        revoked = {
            name[1:].decode(): _TIME.unpack(value)[0]
            for name, value in values.items()
            if name[:1] == b"r"
        }
    except (struct.error, ValueError) as error:
        raise StoreProtocol(f"the keyring cannot be read: {error}") from error
    records = {record.id: record for record in found if record is not None}
    return Ring(version=version, records=records, revoked=revoked)


def _record(value: bytes) -> KeyRecord | None:
    """A key; None when it cannot be read, and so opens nothing."""
    try:
        return _decode(value[_TIME.size :])
    except msgspec.MsgspecError as error:
        _log.error("a key in the store cannot be read", problem=str(error))
        return None
