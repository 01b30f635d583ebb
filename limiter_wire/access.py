"""API keys: who may do what."""

from enum import StrEnum
from typing import Annotated

import msgspec

from limiter_wire._base import Name, Wire


class Role(StrEnum):
    """What a key allows: spend and report, look, or change things; `admin` contains the others."""

    ACQUIRE = "acquire"
    READ = "read"
    ADMIN = "admin"


KeyName = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[!-~]+(?!\n)$")]
PoolName = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(?!\n)$")
]
Reason = Annotated[str, msgspec.Meta(max_length=500)]

_Roles = Annotated[list[Role], msgspec.Meta(min_length=1, max_length=3)]
_Pools = Annotated[list[PoolName], msgspec.Meta(min_length=1, max_length=100)]
_Tenants = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=100)]


class NewKey(Wire, frozen=True, kw_only=True):
    """A key to be made. Without `pools` or `tenants` it is bound to none; `ttl` is in seconds,
    null for a key that lives until it is revoked.
    """

    name: KeyName
    roles: _Roles
    pools: _Pools | None = None
    tenants: _Tenants | None = None
    ttl: Annotated[float, msgspec.Meta(gt=0, le=315_360_000)] | None = None
    reason: Reason = ""


class KeyView(Wire, frozen=True, kw_only=True):
    """What is known of a key; times are seconds since 1970. Its secret is known to nobody."""

    id: str
    name: str
    roles: list[str]
    pools: list[str] | None = None
    tenants: list[str] | None = None
    created: float
    created_by: str
    expires: float | None = None
    revoked: float | None = None
    state: str


class CreatedKey(KeyView, frozen=True, kw_only=True):
    """A key that was just made: `key` is said this once, and kept nowhere."""

    key: str


class KeyList(Wire, frozen=True, kw_only=True):
    """Every key of the store, and those that this replica was given beside it."""

    keys: list[KeyView]
