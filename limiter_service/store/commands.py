"""One typed method per script: values in, an answer out."""

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from limiter_service.store.client import Client
from limiter_service.store.errors import StoreProtocol
from limiter_service.store.keys import Key
from limiter_service.store.scripts import NAMES, load

KEEP = -1.0
"""In place of an amount: leave the charge as it was reserved."""

NEVER = -1.0
"""In place of a time to wait: the amount can never fit."""


class Verdict(StrEnum):
    """The letter in front of a script's answer."""

    DONE = "G"
    REPEATED = "R"
    ALREADY = "A"
    DENIED = "D"
    CONFLICT = "C"
    UNKNOWN = "U"
    EXPIRED = "X"
    STALE = "B"


class Chain(msgspec.Struct, frozen=True):
    """What a call decides over: its scopes, their policies, and the slots that they name."""

    scopes: tuple[Key, ...]
    policies: tuple[bytes, ...]
    slots: tuple[Key, ...]


class Reply(msgspec.Struct, frozen=True):
    """A script's verdict, and its numbers (lua/lib/layout)."""

    verdict: Verdict
    numbers: Sequence[float]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What an acquire asks for; times in microseconds."""

    nonce: float
    fingerprint: float
    ttl: float
    remember: float
    amounts: Sequence[float]


class Commands:
    """The scripts, as methods. Each raises StoreUnavailable or StoreProtocol."""

    def __init__(self, client: Client, replace: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._scripts = {name: load(name, replace) for name in NAMES}

    async def acquire(self, chain: Chain, lease: Key, claim: Claim) -> Reply:
        """Take from every limit of the chain, or from none."""
        request = _pack(
            claim.nonce,
            claim.fingerprint,
            claim.ttl,
            claim.remember,
            0.0,
            len(claim.amounts),
            *claim.amounts,
        )
        return await self._run("acquire", chain, (lease,), request)

    async def settle(
        self, chain: Chain, lease: Key, tag: float, nonce: float, used: Sequence[float]
    ) -> Reply:
        """Replace what a lease reserved by what was used."""
        return await self._run("settle", chain, (lease,), _pack(tag, nonce, *used))

    async def renew(
        self, chain: Chain, lease: Key, tag: float, nonce: float, ttl: float, used: Sequence[float]
    ) -> Reply:
        """Let a lease live for *ttl* microseconds from now and charge *used* beyond it."""
        return await self._run("renew", chain, (lease,), _pack(tag, nonce, ttl, *used))

    async def check(self, chain: Chain, tag: float, amounts: Sequence[float]) -> Reply:
        """Ask what an acquire would answer; change nothing."""
        return await self._run("check", chain, (), _pack(tag, *amounts))

    async def snapshot(self, chain: Chain, tag: float) -> Reply:
        """Read every limit of the chain as it is now; change nothing."""
        return await self._run("snapshot", chain, (), _pack(tag))

    async def _run(self, name: str, chain: Chain, more: tuple[Key, ...], request: bytes) -> Reply:
        keys = chain.scopes + chain.slots + more
        answer = await self._client.run(self._scripts[name], keys, (*chain.policies, request))
        if answer[:8] != request[:8]:
            raise StoreProtocol(f"the answer to {name} belongs to another call")
        return _unpack(answer)


def pack(values: Iterable[float]) -> bytes:
    """Numbers as scripts take them: little-endian doubles."""
    numbers = array("d", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _pack(*values: float) -> bytes:
    return pack(values)


def _unpack(answer: bytes) -> Reply:
    numbers = array("d")
    numbers.frombytes(answer[9:])
    if sys.byteorder == "big":
        numbers.byteswap()
    return Reply(Verdict(chr(answer[8])), numbers)
