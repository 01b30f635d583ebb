"""Every Redis key, from typed names: nobody else formats one.

Each key of a pool carries the hash tag `{pool}`, so that a cluster keeps the pool on one
node and a script may touch all of them.
"""

from hashlib import blake2b
from typing import NewType

Key = NewType("Key", str)

DEFAULT_PREFIX = "sg:"


class Keys:
    """The names of one pool's keys."""

    def __init__(self, pool: str, prefix: str = DEFAULT_PREFIX) -> None:
        self._base = f"{prefix}{{{pool}}}:"

    def pool_scope(self) -> Key:
        """State of the limits on the whole pool: string."""
        return Key(f"{self._base}s:pool")

    def model_scope(self, model: str) -> Key:
        """State of the limits on one model: string."""
        return Key(f"{self._base}s:model:{model}")

    def tenant_scope(self, tenant: str) -> Key:
        """State of the limits on one tenant: string."""
        return Key(f"{self._base}s:tenant:{tenant}")

    def tenant_model_scope(self, tenant: str, model: str) -> Key:
        """State of the limits on one tenant's use of one model: string.

        The length keeps `a` on `b:c` apart from `a:b` on `c`.
        """
        return Key(f"{self._base}s:both:{len(tenant)}:{tenant}:{model}")

    def slots(self, scope: Key, limit_id: int) -> Key:
        """Live leases of one concurrency limit: sorted set, nonce -> deadline."""
        return Key(f"{self._base}c:{scope.removeprefix(self._base)}:{limit_id:x}")

    def lease(self, tenant: str, request_id: str) -> Key:
        """One lease and its answers: string. A digest, so that long ids cost no memory."""
        digest = blake2b(f"{len(tenant)}:{tenant}{request_id}".encode(), digest_size=16)
        return Key(f"{self._base}l:{digest.hexdigest()}")
