"""Names that callers make up, told apart up to a number: the others are counted together. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

REST = "*"
"""Whoever comes when as many are told apart as can be."""

MOST = 1000


class Names(Generic[K]):
    """The first names that come keep theirs; all further ones are called *rest*."""

    def __init__(self, rest: K, most: int = MOST) -> None:
        self._rest, self._most = rest, most
        self._known: set[K] = set()

    def of(self, name: K) -> K:
        """What a name is called here."""
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return self._rest
        self._known.add(name)
        return name
