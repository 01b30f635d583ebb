"""Whether blocks keep their promises, told from what was lent, handed out and reported.

All of them together hold no more of a limit than its share; nobody hands out more than was lent,
nor later than it may be held; a report is taken in once; nothing of a block is left when it is
over.
"""

import struct
from collections.abc import Mapping, Sequence

import msgspec
from tests_support.ledger import Broken
from world import Ran

from limiter_service.engine.policy import Policy
from limiter_wire import Meter

HANDED = struct.Struct("<3d")
"""Calls and tokens that were handed out, and until when the holder may do so; tokens that come
back, and those of calls that have failed, are less than none.
"""

_LENT, _CHARGES, _COUNT, _WAITED = 65536, 9, 8, 4
_LITTLE = 1e-6


class Loan(msgspec.Struct):
    """A block. What it holds counts until `until` by the store's clock, `ends` by its holder's."""

    policy: Policy
    calls: float
    tokens: float
    amounts: list[float]
    until: float
    ends: float
    number: float = 0.0
    back: bool = False
    handed: float = 0.0
    handed_tokens: float = 0.0


class Loans:
    """Reads a journal as it grows. Raises Broken."""

    def __init__(self, policies: Mapping[str, Policy], share: float) -> None:
        self._policies, self._share = policies, share
        self._loans: dict[str, Loan] = {}
        self._read = 0
        self.lent = self.calls = self.reports = 0

    def read(self, journal: Sequence[Ran]) -> None:
        """Take in what has happened since."""
        for place in range(self._read, len(journal)):
            ran, letter = journal[place], journal[place].reply[8:9]
            if ran.name == "lend" and letter == b"G":
                self._lend(ran)
            elif ran.name == "repay" and letter in {b"G", b"g"}:
                self._report(ran)
            elif ran.name == "handed":
                self._handed(ran)
        self._read = len(journal)

    def lose(self, journal: Sequence[Ran], kept: int) -> None:
        """What ran after the first *kept* is forgotten by the store."""
        self.read(journal)
        for ran in journal[kept:]:
            loan = self._loans.get(ran.key)
            if loan is not None and ran.name == "lend":
                loan.back = True
            elif loan is not None and ran.name == "repay":
                loan.number = 0.0  # an earlier one may be the last that is known

    def step(self, seconds: float) -> None:
        """The store's clock goes forward, or back: then what is held counts for longer."""
        for loan in self._loans.values():
            loan.until -= max(0.0, seconds)

    def _lend(self, ran: Ran) -> None:
        policy = self._policies[ran.key]
        numbers = struct.unpack(f"<{(len(ran.reply) - 9) // 8}d", ran.reply[9:])
        count = int(numbers[_COUNT])
        asked, least, hold, tokens = struct.unpack_from("<4d", ran.request, 8 * (_CHARGES + count))
        calls = numbers[_WAITED] // _LENT
        known = self._loans.get(ran.key)
        if known is not None and not known.back:
            raise Broken(f"{ran.key} was lent twice")
        if not least <= calls <= asked:
            raise Broken(f"{calls:g} calls were lent where {asked:g} were asked for")
        self._loans[ran.key] = loan = Loan(
            policy=policy,
            calls=calls,
            tokens=calls * tokens,
            amounts=list(numbers[_CHARGES : _CHARGES + count]),
            until=ran.at + hold / 1e6,
            ends=ran.at + hold / 1e6,
        )
        for limit, amount in zip(policy.limits, loan.amounts, strict=True):
            due = calls if limit.meter is Meter.REQUESTS else loan.tokens
            if abs(amount - due) > _LITTLE:
                raise Broken(f"{amount:g} of {limit.name} for {calls:g} calls of {tokens:g}")
        self.lent += 1
        self.calls += int(calls)
        held: dict[tuple[str, str], float] = {}
        for each in self._loans.values():
            if not each.back and each.until > ran.at:
                for (place, _), amount in zip(each.policy.placed, each.amounts, strict=True):
                    held[place] = held.get(place, 0.0) + amount
        for place, limit in loan.policy.placed:
            most = self._share * min(limit.capacity, limit.limit * limit.unit)
            if held[place] > most + _LITTLE:
                raise Broken(f"blocks hold {held[place]:g} of {limit.name} at {ran.at:.3f}")

    def _report(self, ran: Ran) -> None:
        loan = self._loans.get(ran.key)
        if loan is None:
            raise Broken(f"{ran.key} is reported and was never lent")
        count = len(loan.amounts)
        _, _, number, stage, *stays = struct.unpack_from(f"<{4 + count}d", ran.request)
        if number <= loan.number:
            raise Broken(f"report {number:g} on {ran.key} was taken in at {ran.at:.3f} again")
        self.reports += 1
        loan.number = number
        loan.back |= stage > 0
        for limit, amount in zip(loan.policy.limits, stays, strict=True):
            if stage and limit.meter is Meter.TOKENS and amount < loan.handed_tokens - _LITTLE:
                raise Broken(f"{amount:g} of {limit.name} stay of {loan.handed_tokens:g}")

    def _handed(self, ran: Ran) -> None:
        loan = self._loans.get(ran.key)
        calls, tokens, until = HANDED.unpack(ran.request)
        if loan is None:
            raise Broken(f"{ran.key} is handed out and was never lent")
        loan.handed += calls
        loan.handed_tokens += tokens
        if calls and (ran.at >= until or ran.at > loan.ends):
            raise Broken(f"{ran.key} is handed out at {ran.at:.3f}, when it is over")
        if loan.handed > loan.calls or loan.handed_tokens > loan.tokens + _LITTLE:
            raise Broken(f"{loan.handed:g} calls of {ran.key} are handed out, of {loan.calls:g}")
