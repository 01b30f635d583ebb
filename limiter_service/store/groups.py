"""Ordinary calls that go to the store as one.

Calls of one script that meet the same limits differ in their leases and in what they ask. A
script that decides over ordinary ones, one or many in a row, takes the keys and arguments that
they share once; it decides in the order in which they came, and leaves over what is not
ordinary, which then travels as it was (docs/decisions/0020). Groups of one pool go as one call
too, which decides over one after the other (docs/decisions/0025).
"""

from collections.abc import Sequence
from typing import Any

from limiter_service.store.errors import StoreProtocol
from limiter_service.store.ordinary import READERS, TAG, terms
from limiter_service.store.packing import doubles
from limiter_service.store.parcels import Call, Form, Kin, Words, variant
from limiter_service.store.scripts import Script

MOST_IN_A_GROUP = 64
"""Calls that one script decides over: it holds everybody up."""


class Group:
    """Calls of one kin as one, in the order in which they came; also of a single one."""

    __slots__ = ("calls", "kin", "mark", "together")

    def __init__(self, first: Call, kin: Kin) -> None:
        assert first.together is not None
        self.calls, self.kin, self.mark, self.together = [first], kin, None, first.together

    @property
    def pool(self) -> str:
        """The key of the queue in which its calls would wait."""
        return self.calls[0].own[1]

    @property
    def terms(self) -> bytes:
        """What the policies of its chain say of ordinary calls."""
        kin = self.kin
        if kin.terms is None:
            *policies, breaker = self.calls[0].arguments
            kin.terms = terms(policies, breaker)  # type: ignore[arg-type]  # bytes, as chains are
        return kin.terms

    @property
    def leases(self) -> list[str]:
        """The keys of its leases."""
        return [call.own[0] for call in self.calls]

    def asked(self) -> bytes:
        """What is asked, one behind the other."""
        calls = self.calls
        return _asked(calls[0]) if len(calls) == 1 else b"".join(map(_asked, calls))

    def by_digest(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVALSHA", variant(self.together.group, plain=plain).sha, *self._words())

    def packed(self, *, plain: bool) -> Words | bytes:
        """The same, perhaps as it travels."""
        kin, first = self.kin, self.calls[0]
        if plain or len(self.calls) > 1:
            return self.by_digest(plain=plain)
        lease, asked = first.own[0], _asked(first)
        if kin.form is None:
            kin.form = Form(self.by_digest(plain=False), lease, asked)
        return kin.form.filled(lease, asked) or self.by_digest(plain=False)

    def by_text(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVAL", variant(self.together.group, plain=plain).text, *self._words())

    def take(self, reply: Any, now: float) -> Sequence[Call]:
        """Hand everybody the reply that the call alone would have had. Returns the calls that the
        group has left over. An error is everybody's.
        """
        calls = self.calls
        asked = [_asked(call) for call in calls]
        if not isinstance(reply, Exception) and reply[:TAG] != asked[0][:TAG]:
            reply = StoreProtocol("the answer to a group belongs to another call")
        if isinstance(reply, Exception):
            for call in calls:
                call.take(reply, now)
            return ()
        self.kin.learn(now, of_use=len(reply) > TAG)
        left = []
        read = READERS[self.together.group.name]
        for call, answer in zip(calls, read(reply, asked), strict=True):
            if answer is not None:
                call.take(answer, now)
            elif not call.done():
                left.append(call)
        return left

    def _words(self) -> Words:
        """One count, the keys, what the policies say, and what everybody asks."""
        *scopes, circuit, pin, _ = self.calls[0].keys
        leases, count = self.leases, len(scopes) + len(self.calls) + 3
        return (count, *scopes, pin, self.pool, *leases, circuit, self.terms, self.asked())


class Mixed:
    """Groups of one pool as one call, in the order in which their first calls came."""

    __slots__ = ("groups", "mark", "room")

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.mark, self.room = None, MOST_IN_A_GROUP

    def add(self, group: Group) -> None:
        """Take in one more."""
        self.groups.append(group)
        self.room -= len(group.calls)

    def simplest(self) -> "Mixed | Group":
        """The same; a single group is itself."""
        return self if len(self.groups) > 1 else self.groups[0]

    def by_digest(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVALSHA", variant(self._script, plain=plain).sha, *self._words())

    packed = by_digest

    def by_text(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVAL", variant(self._script, plain=plain).text, *self._words())

    def take(self, reply: Any, now: float) -> Sequence[Call]:
        """Hand each group its part of the reply. An error is everybody's."""
        if not isinstance(reply, Exception) and len(reply) != len(self.groups):
            reply = StoreProtocol(f"{len(reply)} answers to {len(self.groups)} groups")
        if isinstance(reply, Exception):
            reply = [reply] * len(self.groups)
        answered = zip(self.groups, reply, strict=True)
        return [call for group, part in answered for call in group.take(part, now)]

    @property
    def _script(self) -> Script:
        return self.groups[0].together.mixed

    def _words(self) -> Words:
        """As lua/lib/mixed has it."""
        kinds: dict[bytes, int] = {}
        scopes: dict[str, int] = {}
        circuits: dict[str, int] = {}
        leases: list[str] = []
        asked: list[bytes] = []
        plan: list[int] = []
        pin = self.groups[0].calls[0].keys[-2]
        for group in self.groups:
            *own, circuit, _, _ = group.calls[0].keys
            plan += (
                kinds.setdefault(group.terms, len(kinds) + 1),
                len(group.calls),
                circuits.setdefault(circuit, len(circuits) + 1),
                *[scopes.setdefault(scope, len(scopes) + 1) for scope in own],
            )
            leases += group.leases
            asked.append(group.asked())
        head = doubles(3 + len(plan))(len(scopes), len(leases), len(kinds), *plan)
        keys = (*scopes, pin, self.groups[0].pool, *leases, *circuits)
        return (len(keys), *keys, head, *kinds, *asked)


Parcel = Call | Group | Mixed


def parcels(calls: Sequence[Call], now: float) -> list[Parcel]:
    """The same calls, those that go as one in the place of the first of them."""
    found: list[Call | Group] = []
    places: dict[int, Group] = {}
    groups = 0
    for call in calls:
        kin = call.kin
        if kin is None or kin.apart_until > now:
            found.append(call)
            continue
        group = places.get(id(kin))
        if group is None:
            group = places[id(kin)] = Group(call, kin)
            found.append(group)
            groups += 1
            continue
        group.calls.append(call)
        if len(group.calls) == MOST_IN_A_GROUP:
            del places[id(kin)]
    return _mixed(found) if groups > 1 else [*found]


def _mixed(parcels: Sequence[Call | Group]) -> list[Parcel]:
    """Groups of the same pool as one."""
    found: list[Call | Mixed] = []
    last: dict[tuple[str, int], Mixed] = {}
    for parcel in parcels:
        if isinstance(parcel, Call):
            found.append(parcel)
            continue
        name = (parcel.pool, id(parcel.together))
        mixed = last.get(name)
        if mixed is None or mixed.room < len(parcel.calls):
            mixed = last[name] = Mixed()
            found.append(mixed)
        mixed.add(parcel)
    return [each.simplest() if isinstance(each, Mixed) else each for each in found]


def _asked(call: Call) -> bytes:
    asked = call.asked
    assert asked is not None
    return asked
