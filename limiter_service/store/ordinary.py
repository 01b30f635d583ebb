"""What scripts take and answer that decide over ordinary calls of one chain (lua/lib/ordinary).

They are told of policies what is needed once and for all, and answer so that what calls have in
common is said once. Here stands how their answers become those that the scripts give which decide
over a single call.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

from limiter_service.store.errors import StoreProtocol

TAG = 8
"""Bytes of the nonce or tag that a request and the answer to it begin with."""

Answers = list[bytes | None]
"""To each of some calls in their order; None: it must be asked alone."""

_POLICY, _RECORD = struct.Struct("<6d"), struct.Struct("<4d")
_BREAKER = struct.Struct("<5d")
_EPOCH = 6 * 8
"""Where a lease names the generation of the circuit (lua/lib/lease)."""
_FIRST = struct.pack("<d", 1)
_VERDICT = 16
_SCOPE = 11
"""Numbers of a scope of four limits in the terms: scripts read so many of each."""
_LEFT = (b"", b"?")


def terms(policies: Sequence[bytes], breaker: bytes) -> bytes:
    """What the policies of a chain and of its breaker say, if all its limits are buckets."""
    return _terms(tuple(policies), breaker)


@lru_cache(4096)
def _terms(policies: tuple[bytes, ...], breaker: bytes) -> bytes:
    found: list[float] = []
    limits = last = 0
    for policy in policies:
        version, count, keep, *_ = _POLICY.unpack_from(policy)
        records = list(_RECORD.iter_unpack(policy[_POLICY.size :]))
        assert len(records) == count
        last = len(found)
        found += (version, keep, count)
        for _, _, capacity, rate in records:
            found += (capacity, rate)
        limits += len(records)
    life, ratio, floor, memory, span = _BREAKER.unpack_from(breaker) if breaker else (0.0,) * 5
    head = (len(policies), limits, bool(breaker), ratio, floor * memory, memory, life, span)
    found += [0.0] * (last + _SCOPE - len(found))
    return struct.pack(f"<{len(head) + len(found)}d", *head, *found)


def granted_alone(reply: bytes, asked: bytes) -> bytes | None:
    """The answer that a reply of acquire_group has for a single one who asked."""
    if len(reply) > TAG and len(reply) % 8 == 0:
        return asked[:TAG] + b"G" + reply
    return granted(reply, (asked,))[0]


def granted(reply: bytes, asked: Sequence[bytes]) -> Answers:
    """The answers that a reply of acquire_group has for those who asked."""
    if len(reply) == TAG:
        return [None] * len(asked)
    if reply[TAG:] == b"?":
        return [None] * len(asked)
    if reply[TAG:] == b"Q":
        return [request[:TAG] + b"Q" for request in asked]
    end = TAG + len(asked)
    letters, epoch = reply[TAG:end], reply[end : end + 8]
    at, after = end + 8, reply[end + 8 + _VERDICT * letters.count(b"D") :]
    found: Answers = []
    for letter, request in zip(letters, asked, strict=True):
        if letter == ord("G"):
            if epoch != _FIRST:
                request = request[:_EPOCH] + epoch + request[_EPOCH + 8 :]  # noqa: PLW2901
            found.append(request[:TAG] + b"G" + request + after)
        elif letter == ord("D"):
            found.append(request[:TAG] + b"D" + reply[at : at + _VERDICT] + after)
            at += _VERDICT
        else:
            found.append(None)
    return found


def settled(reply: bytes, asked: Sequence[bytes]) -> Answers:
    """The answers that a reply of settle_group has for those who have reported."""
    letters, texts = reply[TAG : TAG + len(asked)], reply[TAG + len(asked) :]
    done = len(letters) - letters.count(b"?")
    if done == 0:
        return [None] * len(asked)
    size, rest = divmod(len(texts), done)
    if rest:
        raise StoreProtocol("the leases of a group are of different sizes")
    found: Answers = []
    at = 0
    for nth, report in enumerate(asked):
        letter = letters[nth : nth + 1]
        if letter == b"?":
            found.append(None)
            continue
        found.append(report[:TAG] + letter + texts[at : at + size])
        at += size
    return found


def settled_alone(reply: bytes, report: bytes) -> bytes | None:  # noqa: ARG001  # as of acquires
    """The answer that a reply of settle_group has for a single one who has reported."""
    return None if reply[TAG : TAG + 1] in _LEFT else reply


READERS = {
    "acquire_group": (granted_alone, granted),
    "settle_group": (settled_alone, settled),
}
"""By script: what reads its answer to a single call, and to several."""
