"""Granted less given back is what the store says was taken."""

import struct
from collections import Counter
from collections.abc import Mapping

from limiter_service.engine.policy import Policy
from tests_support.trial import rules
from tests_support.trial.evidence import BACK, GRANTS, Evidence, Found
from tests_support.trial.lending import stage_and_amounts

HEAD, LIFE, CHARGES = 9, 2, 9  # bytes before a lease; places in it (lua/lib/lease)

_ROUNDED = 1e-3
"""A level of a billion is kept to a ten-millionth, by each of many thousand changes."""


def numbers(data: bytes) -> tuple[float, ...]:
    """Doubles as scripts have them."""
    return struct.unpack(f"<{len(data) // 8}d", data)


class _Books:
    """What the budget was charged, by the journal."""

    def __init__(self) -> None:
        self.booked = self.lost = 0.0
        self.granted = Counter[str]()
        self._held: dict[str, float] = {}
        self._unheard: set[str] = set()

    def lose(self, name: str, key: str, taken: float) -> None:
        """The store has forgotten a change."""
        if name in GRANTS:
            self.lost += taken
        elif name == "fetch":
            self._unheard.add(key)

    def grant(self, key: str, held: float, taken: float) -> None:
        """So much is taken, and so much is held."""
        self.granted[key] += 1
        self._held[key], self.booked = held, self.booked + taken

    def hold(self, key: str, now: float) -> None:
        """What a lease holds has changed."""
        self.booked, self._held[key] = self.booked + now - self._held[key], now

    def fetch(self, key: str) -> None:
        """Its caller has it."""
        self._unheard.discard(key)

    def take_back(self, key: str) -> None:
        """All of it; of a lease whose caller has it, which the store has lost, to be granted
        again.
        """
        back = self._held.pop(key, 0.0)
        self.booked -= back
        if key in self._unheard:
            self.lost += back
            self._unheard.discard(key)
        self.granted[key] -= 1


def check(evidence: Evidence, policies: Mapping[str, Policy], found: Found) -> None:
    """Add up; nobody is debited twice."""
    books = _Books()
    for place, entry in enumerate(evidence.entries):
        ran, policy = entry.ran, policies[entry.ran.key]
        if entry.nth < 0:
            continue
        nth = next(n for n, limit in enumerate(policy.limits) if limit.name.endswith(rules.BUDGET))
        reply = numbers(ran.reply[HEAD:])
        if place not in evidence.kept:
            books.lose(ran.name, ran.key, reply[CHARGES + nth] if ran.name in GRANTS else 0.0)
        elif ran.name in GRANTS:
            books.grant(ran.key, reply[CHARGES + nth], reply[CHARGES + nth])
        elif ran.name == "charge":
            debit = numbers(ran.request)[CHARGES + len(policy.limits) + nth]
            books.grant(ran.key, reply[CHARGES + nth], max(0.0, debit))
        elif ran.name == "renew":
            books.hold(ran.key, reply[CHARGES + nth])
        elif ran.name == "settle" and numbers(ran.request[16:24])[0] % 2 == 0:
            books.booked += reply[nth]
        elif ran.name == "repay":
            stage, amounts = stage_and_amounts(ran.request)
            if stage:
                books.hold(ran.key, amounts[nth])
        elif ran.name == "fetch":
            books.fetch(ran.key)
        elif ran.name in BACK:
            books.take_back(ran.key)
    found.lost_tokens += books.lost
    for key, times in books.granted.items():
        if times > 1:
            found.twice += 1
            found.wrong(f"{key} was debited {times} times")
    lasted = evidence.entries[-1].at - evidence.entries[0].at if evidence.entries else 0.0
    refilled = rules.REFILL * (lasted + found.leaps + 600.0)
    if not -_ROUNDED <= books.booked - evidence.spent <= refilled:
        has = f"{evidence.spent:.6f}"
        found.wrong(f"granted less given back is {books.booked:.6f}, and the store has {has}")
