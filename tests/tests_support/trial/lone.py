"""The `sitecustomize` of a service in a trial: what it grants without the store, and what it
hears of the end of calls then, is written down beside the journal of the scripts.

Nothing is decided otherwise. `LONE`, when, what, whose lease, and what tests_support.ledger has
to know: ALONE and the lease; what has moved; or its new life and what it holds.
"""

import os
import struct
import time
from typing import Any

from limiter_service.engine.degraded import Degraded
from limiter_service.store.keys import request_digest

_JOURNAL = "TRIAL_JOURNAL"
_TRIES, _AT_ONCE = 5, 0.0001  # seconds in which a clock is read when nobody is in the way


def _write(  # what tests_support.trial.journal reads
    name: str, tenant: str, request_id: str, request: bytes, reply: bytes, age: float = 0.0
) -> None:
    key = request_digest(tenant, request_id).hex()
    line = f"LONE {time.time_ns() // 1000 - age:.0f} {name} {key} {request.hex()}. {reply.hex()}.\n"
    file = os.open(os.environ[_JOURNAL], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line.encode())  # one call, so that lines of several writers stay whole
    finally:
        os.close(file)


def _doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _seconds_since_a_look(pool: Any, now: float) -> float:
    levels = [level.wall for level in pool.sights._levels.values()]
    known = [wall for wall in levels if wall >= pool.presence.wall - 10_000_000]
    return max(0.0, (now - min(known, default=now)) / 1e6)


def _age(self: Any, pool: Any, taken: float) -> float:
    """Microseconds since *taken*, by the clock that it is of."""
    for _ in range(_TRIES):
        began = time.monotonic()
        age: float = self._outages.now_us(pool) - taken
        if time.monotonic() - began < _AT_ONCE:
            break
    return age


def _told_of_grants(take: Any) -> Any:
    def told(self: Any, pool: Any, policy: Any, request: Any, request_id: str, claim: Any) -> Any:
        before = pool.journal.find(policy.tenant, request_id)
        granted = take(self, pool, policy, request, request_id, claim)
        entry = pool.journal.find(policy.tenant, request_id)
        if entry is not before:
            known = entry.claim
            parts = 0.0
            if self._outages.mode(policy.pool) == "degrade":
                parts = 1 / pool.presence.part
            looked = time.time() - _seconds_since_a_look(pool, entry.taken)
            unseen = 0.0  # every service has calls of every limit, and so looks at it
            said = _doubles(self._outages._replica, pool.since, looked, parts, unseen)
            head = (known.nonce, known.fingerprint, known.ttl, known.remember, 0, 0, 0, 0)
            lease = _doubles(*head, len(known.amounts), *known.amounts)
            told, age = lease[:8] + b"G" + lease, _age(self, pool, entry.taken)
            _write("alone", policy.tenant, request_id, said, told, age)
        return granted

    return told


def _told_of_ends(settle: Any) -> Any:
    def told(self: Any, policy: Any, ref: Any, report: Any) -> Any:
        settled = settle(self, policy, ref, report)
        if settled is not None and settled.settled and not settled.already_settled:
            pool = self._outages.pool(policy.pool)
            entry = pool.journal.find(ref.tenant, ref.request_id)
            mine = entry is not None and entry.claim.nonce == ref.nonce
            moved = _doubles(*entry.moved) if mine and entry.moved else b""
            _write("ended", ref.tenant, ref.request_id, moved, b"")
        return settled

    return told


def _told_of_renewals(renew: Any) -> Any:
    def told(self: Any, policy: Any, ref: Any, report: Any) -> Any:
        renewed = renew(self, policy, ref, report)
        if renewed is not None:
            entry = self._outages.pool(policy.pool).journal.find(ref.tenant, ref.request_id)
            life = _doubles(entry.claim.ttl, *entry.claim.amounts)
            _write("longer", ref.tenant, ref.request_id, life, b"")
        return renewed

    return told


if _JOURNAL in os.environ:
    Degraded._take = _told_of_grants(Degraded._take)  # type: ignore[method-assign]
    Degraded.renew = _told_of_renewals(Degraded.renew)  # type: ignore[method-assign]
    Degraded.settle = _told_of_ends(Degraded.settle)  # type: ignore[method-assign]
