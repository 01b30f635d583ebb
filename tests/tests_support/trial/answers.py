"""Everybody was told what happened, and nothing else: the diaries against the journal.

Two things are easily overlooked where a failover loses changes. That a caller has fetched what
a pass has granted is a change: where it is lost, the grant stands, or is made anew, and its lease
is not known until it is fetched again or comes back. And a primary that does not know that its
term is over answers by what it knows.
"""

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from limiter_service.engine import ids
from limiter_service.store.keys import request_digest
from limiter_wire import Acquire, ErrorCode
from tests_support.trial import diary, rules
from tests_support.trial.balance import HEAD, LIFE, numbers
from tests_support.trial.diary import Call
from tests_support.trial.evidence import GRANTS, Evidence, Found, key_of
from tests_support.trial.journal import LONE, Entry

_NEAR = 0.005  # seconds by which two readings of the host's clock may differ in order
_A_WHILE = 15.0  # seconds in which a server that decides writes something down
_REFUSALS = frozenset(
    {
        ErrorCode.RATE_LIMITED, ErrorCode.WAIT_TIMEOUT, ErrorCode.WAIT_TOO_LONG,
        ErrorCode.QUEUE_FULL, ErrorCode.BREAKER_OPEN, ErrorCode.COOLDOWN, ErrorCode.RETRY_BUDGET,
    }
)  # fmt: skip
_OVER: dict[str, str] = {"unknown_lease": "unknown", "lease_expired": "expired"}


class _Held(msgspec.Struct):
    """A lease, and until when it lives at least; when its caller has fetched it, as far as the
    store knows, and when it has forgotten that.
    """

    nonce: float
    until: float
    ahead: float
    stands: bool
    at: float
    waited: bool
    alone: bool
    fetched: list[float] = []
    unheard: list[float] = []

    def forgotten(self, at: float) -> bool:
        """Whether the store does not know at that time that its caller has it."""
        heard = any(fetched <= at for fetched in self.fetched)
        return self.waited and not heard and any(lost <= at for lost in self.unheard)


class _Happened(msgspec.Struct):
    """Grants of each request; when its lease was settled; when it was told, by one whose term
    was over, that it is unknown or expired.
    """

    grants: dict[str, list[_Held]] = msgspec.field(default_factory=lambda: defaultdict(list))
    moves: dict[str, list[float]] = msgspec.field(default_factory=lambda: defaultdict(list))
    outdated: dict[tuple[str, str], list[float]] = msgspec.field(
        default_factory=lambda: defaultdict(list)
    )

    def lease(self, key: str, nonce: float, until: float) -> _Held | None:
        """The lease of that nonce that was granted until then; where there are several, one that
        stands, and rather one of which the store knows that its caller has it.
        """
        found = [held for held in self.grants.get(key, []) if held.nonce == nonce]
        found = [held for held in found if held.at <= until + _NEAR] or found
        order = {id(h): (not h.stands, h.forgotten(until), h.alone) for h in found}
        return min(found, key=lambda held: order[id(held)], default=None)


def check(evidence: Evidence, requests: Mapping[str, Acquire], found: Found) -> None:
    """Look at every call."""
    happened = _happened(evidence)
    begun: dict[str, float] = {}
    for call in evidence.calls:
        if call.begin.acquire is not None:
            begun.setdefault(key_of(call.begin.acquire), call.begin.at)
    leases: dict[str, set[int | None]] = defaultdict(set)  # their nonces
    for call in evidence.calls:
        if call.end is None and call.worker not in evidence.killed:
            found.wrong(f"{call.worker} was never told what came of {call.begin}")
        found.unknown += call.told == diary.UNKNOWN
        asked = call.begin.acquire
        if asked is not None:
            key = key_of(asked)
            if call.told == diary.GRANTED and call.end is not None:
                if call.end.lease.startswith(rules.BLOCK):
                    continue
                ref = ids.decode(call.end.lease)
                leases[key].add(ref.nonce if ref else None)
                _granted(evidence, call, happened, begun[key], found)
            elif call.told == diary.REFUSED and call.end.code not in _REFUSALS:
                found.wrong(f"{asked.request_id} was refused: {call.end.code}", call.until)
        elif call.end is not None:
            _reported(evidence, call, happened, found)
    for key, told in leases.items():
        # A service without the store cannot know that the request has a lease there.
        known = (held.stands and not held.alone for held in happened.grants.get(key, []))
        if len(told) > 1 and all(known):
            found.wrong(f"{requests[key].request_id} was told of {len(told)} leases")


def _happened(evidence: Evidence) -> _Happened:
    happened = _Happened()
    last: dict[tuple[int, int], int] = {}  # of each term, the last change that is known
    for place in evidence.kept:
        term = evidence.entries[place].term
        last[term] = max(place, last.get(term, 0))
    now: tuple[int, int] | None = None
    for place, entry in enumerate(evidence.entries):
        ran, stands = entry.ran, place in evidence.kept or entry.ran.name == "alone"
        if place in evidence.kept:
            now = entry.term
        _note(happened, entry, stands=stands)
        if ran.name in _OVER.values() and entry.term != now and place > last.get(entry.term, -1):
            happened.outdated[ran.key, ran.name].append(entry.at)
    return happened


def _note(happened: _Happened, entry: Entry, *, stands: bool) -> None:
    ran, grants = entry.ran, happened.grants[entry.ran.key]
    if ran.name in GRANTS or ran.name == "alone":
        told = numbers(ran.reply[HEAD:])
        if not stands:  # by one who had not heard that a pass has granted it
            _unheard(grants, told[0], entry.at)
        until, how = entry.at + told[LIFE] / 1e6, (ran.name == "pass", ran.name == "alone")
        held = _Held(told[0], until, entry.ahead, stands, entry.at, *how)
        # Where the grant is lost as well, the next pass makes it anew, for whom it had been made.
        held.unheard = [at for each in grants if each.nonce == told[0] for at in each.unheard]
        grants.append(held)
    elif ran.name == "fetch":
        nonce = numbers(ran.reply[HEAD:])[0]
        if not stands:
            _unheard(grants, nonce, entry.at)
        for lease in (lease for lease in grants if lease.nonce == nonce and stands):
            lease.fetched.append(entry.at)
    elif ran.name == "longer" and grants:
        grants[-1].until = grants[-1].at + numbers(ran.request)[0] / 1e6
    elif ran.name == "renew" and grants:
        until = entry.at + numbers(ran.request[16:24])[0] / 1e6
        grants[-1].until = max(grants[-1].until, until)
    elif ran.name in {"settle", "told again", "ended"}:
        happened.moves[ran.key].append(entry.at)


def _unheard(grants: list[_Held], nonce: float, at: float) -> None:
    for lease in (lease for lease in grants if lease.nonce == nonce):
        lease.unheard.append(at)


def _granted(
    evidence: Evidence, call: Call, happened: _Happened, begun: float, found: Found
) -> None:
    asked, told = call.begin.acquire, call.end
    assert asked is not None
    assert told is not None
    ref = ids.decode(told.lease)
    pool, _, model = asked.resource.partition("/")
    mine = (pool, model, asked.tenant, asked.request_id, asked.request_id)
    if ref is None or (ref.pool, ref.model, ref.tenant, ref.request_id, told.request) != mine:
        found.wrong(f"{asked.request_id} was told of somebody else's lease: {ref}")
        return
    held = happened.lease(key_of(asked), ref.nonce, told.at)
    if held is None:
        found.wrong(f"{asked.request_id} was told of a grant that was none", told.at)
    elif not begun - _NEAR <= held.at <= told.at + _NEAR:
        found.wrong(f"{asked.request_id} was granted when it was not asked for", told.at)
    elif not held.stands or held.forgotten(told.at):
        found.lost_acknowledged += 1
        if evidence.durable:
            found.wrong(f"the store has lost the grant of {asked.request_id}", told.at)


def _reported(evidence: Evidence, call: Call, happened: _Happened, found: Found) -> None:
    lease = call.begin.settle.lease if call.begin.settle else call.begin.renew
    if lease.startswith(rules.BLOCK):  # its own process has answered
        return
    ref = ids.decode(lease)
    if ref is None:
        found.wrong(f"{lease} is no lease")
        return
    key = request_digest(ref.tenant, ref.request_id).hex()
    assert call.end is not None
    held = happened.lease(key, ref.nonce, call.begin.at)
    moves = happened.moves.get(key, [])
    if call.told == diary.SETTLED and not any(at <= call.until + _NEAR for at in moves):
        found.wrong(f"{ref.request_id} was told that it is settled, and is not", call.until)
    elif call.told == diary.REFUSED and held is not None and held.stands:
        _refused(evidence, call, key, held, happened, found)


def _refused(
    evidence: Evidence, call: Call, key: str, held: _Held, happened: _Happened, found: Found
) -> None:
    assert call.end is not None
    name = _OVER.get(call.end.code, "")
    told = happened.outdated.get((key, name), [])
    if any(call.begin.at - _NEAR <= at <= call.until + _NEAR for at in told):
        found.outdated += 1
        return
    if name == "unknown":
        if held.forgotten(call.begin.at):
            found.forgotten += 1
            return
        tale = f"asked {call.begin.at:.3f}, told {call.until:.3f}; {_tale(evidence, key)}"
        found.wrong(f"{key} was told that its lease is unknown: {tale}", call.until)
        return
    alive = call.until < held.until - _NEAR and not _stepped(evidence, held, call.until)
    settled = any(at <= call.until for at in happened.moves.get(key, []))
    if alive and not (call.begin.renew and settled):
        found.wrong(f"{key} was told that its lease is over: {call.end.code}", call.until)


def _tale(evidence: Evidence, key: str) -> str:
    """What the stores have written down of a request: number, what, when; lost changes in
    brackets.
    """
    told = (
        (f"{entry.nth} {entry.ran.name} {entry.at:.3f}", place in evidence.kept or entry.nth < 0)
        for place, entry in enumerate(evidence.entries)
        if entry.ran.key == key
    )
    return ", ".join(text if stands else f"[{text}]" for text, stands in told)


def _stepped(evidence: Evidence, held: _Held, until: float) -> bool:
    """Whether the store's clock went forward while the lease lived, as far as can be seen from
    what was written down until a while after; of a lease that was granted without the store,
    whether it was moved at all since a while before, as one service may know and another not.
    """
    aheads = {
        entry.ahead
        for entry in evidence.entries
        if entry.nth != LONE
        and held.at - (_A_WHILE if held.alone else 0.0) <= entry.at <= until + _A_WHILE
    }
    return len(aheads) > 1 if held.alone else any(ahead > held.ahead for ahead in aheads)
