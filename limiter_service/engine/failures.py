"""How often somebody may fail: a bucket for each address, in bounded memory. Pure."""

from collections import OrderedDict

import msgspec


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """So many failures at once, one more every so many seconds; so many addresses known."""

    burst: int = 20
    every: float = 3.0
    addresses: int = 10_000


class Failures:
    """Counts failures. An address that is forgotten for others begins anew."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._spent_until: OrderedDict[str, float] = OrderedDict()

    def note(self, address: str, now: float) -> float:
        """Count one failure; the seconds until another is allowed, 0 while this one was."""
        every = self._allowance.every
        spent_until = max(now, self._spent_until.pop(address, now)) + every
        wait = spent_until - now - self._allowance.burst * every
        # What is refused does not count: who goes on failing is let through in between.
        self._spent_until[address] = spent_until if wait <= 0 else spent_until - every
        while len(self._spent_until) > self._allowance.addresses:
            self._spent_until.popitem(last=False)
        return max(0.0, wait)
