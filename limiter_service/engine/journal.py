"""What a replica has granted while its store was lost: kept until it is charged. Pure."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from limiter_service.engine.local import Window
from limiter_service.engine.policy import Limit, Policy
from limiter_service.store.messages import Claim
from limiter_wire import Granted, Settle, Settled

MOST = 100_000
"""Leases that a replica remembers; it grants no more than that without the store."""

REMEMBERED = 3_600_000_000
"""Microseconds that the store remembers what it has charged, so that nothing is charged twice."""

_REFUSED = -1.0
_MICRO = 1_000_000
_LEAST_TTL = 1.0  # a lease that has ended is charged, and known to have ended


class Entry(msgspec.Struct, kw_only=True):
    """One lease: what was granted, when (µs of the store), and how it was settled since.

    `net` is what each limit should have been charged by now, `debits` what it is charged, fixed
    when that was first sent.
    """

    policy: Policy
    request_id: str
    claim: Claim
    taken: float
    granted: Granted
    net: list[float]
    moved: list[float] | None = None
    settled: Settled | None = None
    debits: list[float] | None = None

    def until(self) -> float:
        """When the lease ends, in the store's microseconds."""
        return self.taken + self.claim.ttl

    def spent(self) -> list[float]:
        """What it has taken of each limit: all it should be charged; slots, if it holds them."""
        return [
            debit if limit.window == "concurrency" else net
            for limit, net, debit in zip(
                self.policy.limits, self.net, self.debits or self.net, strict=True
            )
        ]

    def late_claim(self, now: float) -> Claim:
        """What the store is to remember of it."""
        return late(self.claim, self.taken, now)


def late(claim: Claim, taken: float, now: float) -> Claim:
    """A claim that was granted at *taken* and is charged at *now*."""
    left = min(claim.ttl, max(_LEAST_TTL, taken + claim.ttl - now))
    remember = max(claim.remember, REMEMBERED)
    return msgspec.structs.replace(claim, ttl=left, remember=remember)


def still_counts(policy: Policy, limit: Limit, taken: float, now: float) -> bool:
    """Whether what *limit* was charged at *taken* may still count in it."""
    match limit.window:
        case "bucket":
            return now - taken < limit.capacity / limit.rate
        case "sliding":
            return now - taken < (limit.per or 0.0) * _MICRO
        case "calendar":
            return policy.window_start(limit, now) <= taken
        case _:
            return True


class Journal:
    """Entries by tenant and request id, and reports on leases that are none of ours."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        self.reports: dict[str, Settle] = {}

    def __len__(self) -> int:
        return len(self._entries) + len(self.reports)

    @property
    def full(self) -> bool:
        """Whether nothing more can be remembered."""
        return len(self) >= MOST

    def find(self, tenant: str, request_id: str) -> Entry | None:
        """The lease of a request."""
        return self._entries.get((tenant, request_id))

    def add(self, entry: Entry) -> None:
        """Remember a lease."""
        self._entries[entry.policy.tenant, entry.request_id] = entry

    def done(self, entry: Entry) -> None:
        """Forget a lease that is charged."""
        self._entries.pop((entry.policy.tenant, entry.request_id), None)

    def due(self, windows: Mapping[tuple[str, int], Window], now: float, most: int) -> list[Entry]:
        """The newest entries, at most *most* of them, with their debits.

        A bucket owes what time has not given back, which the newest have spent last; other
        windows owe what still counts in them.
        """
        found = list(_newest(self._entries, most))
        for entry in found:
            if entry.debits is None:
                entry.debits = list(_debits(entry, windows, now))
        return found


def _newest(entries: dict[tuple[str, str], Entry], most: int) -> Iterator[Entry]:
    for entry, _ in zip(reversed(entries.values()), range(most), strict=False):
        yield entry


def _debits(entry: Entry, windows: Mapping[tuple[str, int], Window], now: float) -> Iterator[float]:
    ended = entry.settled is not None or entry.until() <= now
    for (place, limit), net in zip(entry.policy.placed, entry.net, strict=True):
        window = windows[place]
        window.advance(now)
        if net <= 0 or not window.counts(entry.taken, now):
            yield 0.0
        elif limit.window == "concurrency":
            yield 0.0 if ended else net
        else:
            debit = min(net, window.owed(now))
            window.paid(debit)
            yield debit


def charges_of(amounts: Sequence[float], refused: frozenset[int]) -> list[float]:
    """What a lease is charged: *refused* are shadows that had no room."""
    return [_REFUSED if i in refused else amount for i, amount in enumerate(amounts)]
