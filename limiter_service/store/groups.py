"""Ordinary calls that go to the store as one.

Calls of one script that meet the same limits differ in their leases and in what they ask. A
script that decides over ordinary ones, one or many in a row, takes the keys and arguments that
they share once; it decides in the order in which they came, and leaves over what is not
ordinary, which then travels as it was (docs/decisions/0020). Groups of one pool go as one call
too, which decides over one after the other (docs/decisions/0025). So do calls of a pool that are
not ordinary, in a row (docs/decisions/0028).
"""

from collections.abc import Sequence
from typing import Any

from limiter_service.store.errors import StoreProtocol
from limiter_service.store.ordinary import READERS, TAG, terms
from limiter_service.store.packing import doubles
from limiter_service.store.parcels import Argument, Call, Common, Form, Kin, Words, variant
from limiter_service.store.scripts import Script

MOST_IN_A_GROUP = 64
"""Calls that one script decides over: it holds everybody up."""

MOST_IN_A_ROW = 16
"""The same of calls that are not ordinary, each of which takes several times as long."""


Said = tuple[Common, list[str], bytes]
"""What a group tells a script: what its calls have in common, their leases, and what they ask, one
behind the other.
"""


class Group:
    """Calls of one kin as one, in the order in which they came; also of a single one."""

    __slots__ = ("asked", "calls", "kin", "mark", "together")

    def __init__(self, first: Call) -> None:
        assert first.asked is not None
        assert first.kin is not None
        assert first.together is not None
        self.calls, self.asked, self.mark = [first], [first.asked], None
        self.kin, self.together = first.kin, first.together

    def add(self, call: Call) -> None:
        """One more."""
        assert call.asked is not None
        self.calls.append(call)
        self.asked.append(call.asked)

    def said(self) -> Said:
        """What it tells a script."""
        calls, common = self.calls, self.kin.common
        if common is None:
            common = self.kin.common = _common(calls[0])
        if len(calls) == 1:  # as most are
            return common, [calls[0].own[0]], self.asked[0]
        return common, [call.own[0] for call in calls], b"".join(self.asked)

    def by_digest(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVALSHA", variant(self.together.group, plain=plain).sha, *self._words())

    def packed(self, *, plain: bool) -> Words | bytes:
        """The same, perhaps as it travels."""
        kin = self.kin
        if plain or len(self.calls) > 1:
            return self.by_digest(plain=plain)
        lease, asked = self.calls[0].own[0], self.asked[0]
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
        calls, asked = self.calls, self.asked
        if not isinstance(reply, Exception) and reply[:TAG] != asked[0][:TAG]:
            reply = StoreProtocol("the answer to a group belongs to another call")
        if isinstance(reply, Exception):
            for call in calls:
                call.take(reply, now)
            return ()
        self.kin.learn(now, of_use=len(reply) > TAG)
        read_alone, read = READERS[self.together.group.name]
        if len(calls) == 1:
            answer = read_alone(reply, asked[0])
            if answer is None:
                return [call for call in calls if not call.done()]
            return calls[0].take(answer, now)
        left = []
        for call, answer in zip(calls, read(reply, asked), strict=True):
            if answer is not None:
                call.take(answer, now)
            elif not call.done():
                left.append(call)
        return left

    def _words(self) -> Words:
        """One count, the keys, what the policies say, and what everybody asks."""
        common, leases, asked = self.said()
        keys = (*common.scopes, common.pin, common.queue, *leases, common.circuit)
        return (len(keys), *keys, common.terms, asked)


class Mixed:
    """Groups of one pool as one call, in the order in which their first calls came."""

    __slots__ = ("groups", "mark", "room")

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.mark, self.room = None, MOST_IN_A_GROUP

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
        left: list[Call] = []
        for group, part in zip(self.groups, reply, strict=True):
            left += group.take(part, now)
        return left

    @property
    def _script(self) -> Script:
        return self.groups[0].together.mixed

    def _words(self) -> Words:
        return mixed_words([group.said() for group in self.groups])


class Row:
    """Calls of one pool that are not ordinary, as one, in the order in which they came."""

    __slots__ = ("calls", "mark")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.mark = None

    def simplest(self) -> "Row | Call":
        """The same; a single call is itself."""
        return self if len(self.calls) > 1 else self.calls[0]

    def by_digest(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVALSHA", variant(self._script, plain=plain).sha, *row_words(self.calls))

    packed = by_digest

    def by_text(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVAL", variant(self._script, plain=plain).text, *row_words(self.calls))

    def take(self, reply: Any, now: float) -> Sequence[Call]:
        """Hand each call its part of the reply. An error is everybody's."""
        if not isinstance(reply, Exception) and len(reply) != len(self.calls):
            reply = StoreProtocol(f"{len(reply)} answers to {len(self.calls)} calls")
        if isinstance(reply, Exception):
            reply = [reply] * len(self.calls)
        for call, part in zip(self.calls, reply, strict=True):
            call.take(part, now)
        return ()

    @property
    def _script(self) -> Script:
        together = self.calls[0].together
        assert together is not None
        return together.row


Parcel = Call | Group | Mixed | Row


def parcels(calls: Sequence[Call], now: float) -> list[Parcel]:
    """The same calls, those that go as one in the place of the first of them."""
    found: list[Call | Mixed | Row] = []
    groups: dict[Kin, tuple[Group, Mixed]] = {}
    pools: dict[tuple[str, int], Mixed] = {}
    rows: dict[tuple[str, int], Row] = {}
    for call in calls:
        kin = call.kin
        if call.together is None:
            found.append(call)
            continue
        if kin is None or kin.apart_until > now:
            pool = call.own[1], id(call.together)
            row = rows.get(pool)
            if row is None or len(row.calls) == MOST_IN_A_ROW:
                row = rows[pool] = Row()
                found.append(row)
            row.calls.append(call)
            continue
        group, mixed = groups.get(kin, _NONE)
        if group is not None and mixed.room > 0:
            group.add(call)
        else:
            pool = call.own[1], id(call.together)
            mixed = pools.get(pool, _FULL)
            if mixed.room == 0:
                mixed = pools[pool] = Mixed()
                found.append(mixed)
            group = Group(call)
            mixed.groups.append(group)
            groups[kin] = group, mixed
        mixed.room -= 1
    return [each if isinstance(each, Call) else each.simplest() for each in found]


_FULL = Mixed()
_FULL.room = 0
_NONE = None, _FULL


def mixed_words(groups: Sequence[Said]) -> Words:
    """Keys and arguments of a call about several chains (lua/lib/mixed)."""
    kinds: dict[bytes, int] = {}
    scopes: dict[str, int] = {}
    circuits: dict[str, int] = {}
    leases: list[str] = []
    asked: list[bytes] = []
    plan: list[int] = []
    for common, names, what in groups:
        plan.append(kinds.setdefault(common.terms, len(kinds) + 1))
        plan.append(len(names))
        plan.append(circuits.setdefault(common.circuit, len(circuits) + 1))
        for scope in common.scopes:  # mostly one
            plan.append(scopes.setdefault(scope, len(scopes) + 1))  # noqa: PERF401
        leases += names
        asked.append(what)
    head = doubles(3 + len(plan))(len(scopes), len(leases), len(kinds), *plan)
    common, _, _ = groups[0]
    keys = (*scopes, common.pin, common.queue, *leases, *circuits)
    return (len(keys), *keys, head, *kinds, *asked)


def row_words(calls: Sequence[Call]) -> Words:
    """Keys and arguments of a call about several that are not ordinary (lua/lib/row)."""
    keys: dict[str, int] = {calls[0].own[1]: 1}
    arguments: dict[Argument, int] = {}
    chains: dict[tuple[int, int], int] = {}
    plan: list[int] = []
    whose: list[int] = []
    for call in calls:
        chain = id(call.keys), id(call.arguments)  # those of a policy are the same objects
        nth = chains.get(chain)
        if nth is None:
            nth = chains[chain] = len(chains) + 1
            plan += (len(call.keys), len(call.arguments))
            plan += [keys.setdefault(key, len(keys) + 1) for key in call.keys]
            plan += [arguments.setdefault(each, len(arguments) + 2) for each in call.arguments]
        whose.append(nth)
    head = doubles(2 + len(plan) + len(whose))(len(chains), len(calls), *plan, *whose)
    leases = [call.own[0] for call in calls]
    asked = [call.asked for call in calls]
    return (len(keys) + len(leases), *keys, *leases, head, *arguments, *asked)


def _common(call: Call) -> Common:
    *scopes, circuit, pin, _ = call.keys
    *policies, breaker = call.arguments
    told = terms(policies, breaker)  # type: ignore[arg-type]  # bytes, as chains are
    return Common(tuple(scopes), circuit, pin, call.own[1], told)
