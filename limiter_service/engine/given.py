"""Leases that were given out here, by their ids: most are settled where they were granted. Pure.

An id says all of it. To read it, and to make the name of its key, costs a settle more than to look
here; what is not known here is read.
"""

import msgspec

from limiter_service.engine.policy import Policy
from limiter_service.store.keys import Key

MOST = 20_000
"""Leases that are known; then all are forgotten."""


class Lease(msgspec.Struct, frozen=True, gc=False):
    """What a settle needs of a lease."""

    policy: Policy
    key: Key
    nonce: float
    route: str | None


class Given:
    """The leases of one replica."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: dict[str, Lease] = {}

    def note(self, name: str, lease: Lease) -> None:
        """Know a lease by its id."""
        if len(self._known) >= self._most:
            self._known.clear()
        self._known[name] = lease

    def take(self, name: str) -> Lease | None:
        """The lease of that id, if it is known here; then it is not any more."""
        return self._known.pop(name, None)
