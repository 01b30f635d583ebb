"""Whether diaries, journal and store agree, and no promise was broken. Nothing is asked of anyone.

What may differ is itemised: changes that a failover has lost, and steps of the store's clock
forward. Everything else is a violation. A change that is easily overlooked is that a caller has
fetched what a pass has granted: where it is lost, the grant stands and its lease is not known,
until it is fetched again or comes back.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from limiter_service.engine import ids
from limiter_service.engine.policy import Policies, Policy
from limiter_service.store.keys import request_digest
from limiter_wire import Acquire, ErrorCode
from tests_support.ledger import Broken, Held, Ledger, Ran
from tests_support.trial import diary, rules
from tests_support.trial.diary import Call
from tests_support.trial.journal import Entry

_NEAR = 0.005  # seconds by which two readings of the host's clock may differ in order
_A_WHILE = 15.0  # seconds in which a server that decides writes something down
_HEAD, _LIFE, _COUNT, _CHARGES = 9, 2, 8, 9  # bytes before a lease; places in it (lua/lib/lease)
_MOST_TOLD = 20
_GRANTS = frozenset({"acquire", "pass"})
_BACK = frozenset({"cancel", "leave"})
_REFUSALS = frozenset(
    {
        ErrorCode.RATE_LIMITED, ErrorCode.WAIT_TIMEOUT, ErrorCode.WAIT_TOO_LONG,
        ErrorCode.QUEUE_FULL, ErrorCode.BREAKER_OPEN, ErrorCode.COOLDOWN, ErrorCode.RETRY_BUDGET,
    }
)  # fmt: skip


class Evidence(msgspec.Struct, kw_only=True):
    """What a trial leaves behind. `count` is how many changes the store knows of, `spent` what
    it says was taken from the budget, `left` what is still held when everything is over.
    `killed` are workers that were. A `durable` store keeps what it has acknowledged.
    """

    entries: list[Entry]
    kept: set[int]
    calls: list[Call]
    policies: Policies
    spent: float
    left: Sequence[str] = ()
    killed: frozenset[str] = frozenset()
    durable: bool = True


class Found(msgspec.Struct, kw_only=True):
    """What it comes to. Slack: changes that were lost, and tokens granted by them; grants
    of which a caller had been told; seconds that clocks went forward. `repeats` are grants that the
    store has told again, `twice` requests that were debited more than once. `forgotten` are
    reports on leases of which the store has lost that their callers have them.
    """

    violations: list[str] = []
    calls: int = 0
    grants: int = 0
    settles: int = 0
    unknown: int = 0
    twice: int = 0
    repeats: int = 0
    lost: int = 0
    lost_tokens: float = 0.0
    lost_acknowledged: int = 0
    forgotten: int = 0
    leaps: float = 0.0

    def wrong(self, text: str) -> None:
        """A promise was not kept."""
        if len(self.violations) < _MOST_TOLD:
            self.violations.append(text)


def judge(evidence: Evidence) -> Found:
    """Look at all of it."""
    found = Found(calls=len(evidence.calls))
    requests = _requests(evidence.calls)
    policies = {key: _policy(evidence.policies, asked) for key, asked in requests.items()}
    for entry in evidence.entries:
        if entry.ran.key not in policies:
            found.wrong(f"{entry.ran.name} of {entry.ran.key}, which nobody asked for")
            return found
    _replay(evidence, policies, found)
    _balance(evidence, policies, found)
    _answers(evidence, requests, found)
    for name in evidence.left:
        found.wrong(f"{name} is still held")
    return found


def _requests(calls: Iterable[Call]) -> dict[str, Acquire]:
    asked = (call.begin.acquire for call in calls if call.begin.acquire is not None)
    return {request_digest(each.tenant, each.request_id or "").hex(): each for each in asked}


def _policy(policies: Policies, asked: Acquire) -> Policy:
    return policies.policy(asked.resource, asked.tenant)


# The journal by itself.


def _replay(evidence: Evidence, policies: Mapping[str, Policy], found: Found) -> None:
    """No limit is passed, nothing is granted or settled twice: what the simulation checks too."""
    ledger = Ledger(dict(policies), rules.PROBE_TTL, rules.PROBES)
    journal: list[Ran] = []
    away: dict[str, tuple[int, Held]] = {}
    lost_from: int | None = None
    ahead: float | None = None
    start = evidence.entries[0].at if evidence.entries else 0.0
    for place, entry in enumerate(evidence.entries):
        if entry.nth < 0:
            found.repeats += entry.ran.name == "again"
            continue
        stands, at = place in evidence.kept, entry.at - start
        if stands and lost_from is not None:
            for key, (place_of, lease) in away.items():
                if place_of >= lost_from:  # the heir does not know that it was taken back
                    lease.settled, lease.moved = False, True
                    ledger.leases.setdefault(key, lease)
            ledger.lose(journal, lost_from, at)
            lost_from = None
        if stands and ahead != entry.ahead:
            step = entry.ahead - (entry.ahead if ahead is None else ahead)
            ahead, found.leaps = entry.ahead, found.leaps + max(0.0, step)
            if step:
                ledger.step(step, at)
        if not stands:
            found.lost += 1
            if entry.ran.name in _GRANTS and entry.ran.key in ledger.leases:
                continue  # granted by one who did not know that it is primary no more
            lost_from = len(journal) if lost_from is None else lost_from
        try:
            _read(ledger, journal, entry, at, away)
        except Broken as broken:
            ledger._read = len(journal)
            if stands:
                found.wrong(f"{broken} (number {entry.nth})")
    found.grants, found.settles = ledger.grants, ledger.settles


def _read(
    ledger: Ledger,
    journal: list[Ran],
    entry: Entry,
    at: float,
    away: dict[str, tuple[int, Held]],
) -> None:
    ran, lease = entry.ran, ledger.leases.get(entry.ran.key)
    if ran.name in _BACK:
        if lease is None:
            return
        if ran.name == "leave":
            ledger.left.add(ran.key)
        away[ran.key] = len(journal), lease  # the store forgets it
        ran = ran._replace(name="cancel")
    elif ran.name == "fetch":
        ran = ran._replace(name="enqueue")
    journal.append(ran._replace(at=at))
    ledger.read(journal)


# The journal and the store.


class _Held(msgspec.Struct):
    """A lease, and until when it lives at least; when its caller has fetched it, as far as the
    store knows, and when it has forgotten that.
    """

    nonce: float
    until: float
    ahead: float
    stands: bool
    at: float
    fetched: list[float] = []
    unheard: list[float] = []

    def forgotten(self, at: float) -> bool:
        """Whether the store does not know at that time that its caller has it."""
        return any(lost <= at for lost in self.unheard) and all(f > at for f in self.fetched)


def _numbers(data: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(data) // 8}d", data)


def _balance(evidence: Evidence, policies: Mapping[str, Policy], found: Found) -> None:
    """Granted less given back is what the store says was taken."""
    booked = 0.0
    held: dict[str, float] = {}
    granted, unheard = Counter[str](), set[str]()
    for place, entry in enumerate(evidence.entries):
        ran, policy = entry.ran, policies[entry.ran.key]
        if entry.nth < 0:
            continue
        nth = next(n for n, limit in enumerate(policy.limits) if limit.name.endswith(rules.BUDGET))
        stands = place in evidence.kept
        if ran.name in _GRANTS:
            taken = _numbers(ran.reply[_HEAD:])[_CHARGES + nth]
            if not stands:
                found.lost_tokens += taken
                continue
            granted[ran.key] += 1
            held[ran.key], booked = taken, booked + taken
        elif not stands:
            if ran.name == "fetch":
                unheard.add(ran.key)
        elif ran.name == "renew":
            now = _numbers(ran.reply[_HEAD:])[_CHARGES + nth]
            booked, held[ran.key] = booked + now - held[ran.key], now
        elif ran.name == "settle" and _numbers(ran.request[16:24])[0] % 2 == 0:
            booked += _numbers(ran.reply[_HEAD:])[nth]
        elif ran.name == "fetch":
            unheard.discard(ran.key)
        elif ran.name in _BACK:
            back = held.pop(ran.key, 0.0)
            booked, found.lost_tokens = booked - back, found.lost_tokens + back * (ran.key in unheard)
            granted[ran.key] -= 1
            unheard.discard(ran.key)
    for key, times in granted.items():
        if times > 1:
            found.twice += 1
            found.wrong(f"{key} was debited {times} times")
    lasted = evidence.entries[-1].at - evidence.entries[0].at if evidence.entries else 0.0
    refilled = rules.REFILL * (lasted + found.leaps + 600.0)
    if not -1e-6 <= booked - evidence.spent <= refilled:
        found.wrong(f"granted less given back is {booked:g}, and the store has {evidence.spent:g}")


# The diaries and the journal.


def _answers(evidence: Evidence, requests: Mapping[str, Acquire], found: Found) -> None:
    """Everybody was told what happened, and nothing else."""
    grants, moves = _happened(evidence)
    begun: dict[str, float] = {}
    for call in evidence.calls:
        if call.begin.acquire is not None:
            begun.setdefault(_key(call.begin.acquire), call.begin.at)
    leases: dict[str, set[str]] = defaultdict(set)
    for call in evidence.calls:
        if call.end is None and call.worker not in evidence.killed:
            found.wrong(f"{call.worker} was never told what came of {call.begin}")
        found.unknown += call.told == diary.UNKNOWN
        asked = call.begin.acquire
        if asked is not None:
            key = _key(asked)
            if call.told == diary.GRANTED and call.end is not None:
                leases[key].add(call.end.lease)
                _granted(evidence, call, grants.get(key, []), begun[key], found)
            elif call.told == diary.REFUSED and call.end.code not in _REFUSALS:
                found.wrong(f"{asked.request_id} was refused: {call.end.code}")
        elif call.end is not None:
            _reported(evidence, call, grants, moves, found)
    for key, told in leases.items():
        if len(told) > 1 and all(held.stands for held in grants.get(key, [])):
            found.wrong(f"{requests[key].request_id} was told of {len(told)} leases")


def _key(asked: Acquire) -> str:
    return request_digest(asked.tenant, asked.request_id or "").hex()


def _happened(evidence: Evidence) -> tuple[dict[str, list[_Held]], dict[str, list[float]]]:
    """Grants of each request, and when its lease was settled."""
    grants: dict[str, list[_Held]] = defaultdict(list)
    moves: dict[str, list[float]] = defaultdict(list)
    for place, entry in enumerate(evidence.entries):
        ran, stands = entry.ran, place in evidence.kept
        if ran.name in _GRANTS:
            numbers = _numbers(ran.reply[_HEAD:])
            until = entry.at + numbers[_LIFE] / 1e6
            lease = _Held(numbers[0], until, entry.ahead, stands, entry.at)
            grants[ran.key].append(lease)
        elif ran.name == "fetch":
            nonce = _numbers(ran.reply[_HEAD:])[0]
            for lease in (lease for lease in grants[ran.key] if lease.nonce == nonce):
                (lease.fetched if stands else lease.unheard).append(entry.at)
        elif ran.name == "renew" and grants[ran.key]:
            until = entry.at + _numbers(ran.request[16:24])[0] / 1e6
            grants[ran.key][-1].until = max(grants[ran.key][-1].until, until)
        elif ran.name in {"settle", "told again"}:
            moves[ran.key].append(entry.at)
    return grants, moves


def _granted(
    evidence: Evidence, call: Call, happened: list[_Held], begun: float, found: Found
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
    held = next((each for each in happened if each.nonce == ref.nonce), None)
    if held is None:
        found.wrong(f"{asked.request_id} was told of a grant that was none")
    elif not begun - _NEAR <= held.at <= told.at + _NEAR:
        found.wrong(f"{asked.request_id} was granted when it was not asked for")
    elif not held.stands or held.forgotten(told.at):
        found.lost_acknowledged += 1
        if evidence.durable:
            found.wrong(f"the store has lost the grant of {asked.request_id}")


def _reported(
    evidence: Evidence,
    call: Call,
    grants: Mapping[str, list[_Held]],
    moves: Mapping[str, list[float]],
    found: Found,
) -> None:
    lease = call.begin.settle.lease if call.begin.settle else call.begin.renew
    ref = ids.decode(lease)
    if ref is None:
        found.wrong(f"{lease} is no lease")
        return
    key = request_digest(ref.tenant, ref.request_id).hex()
    held = next((each for each in grants.get(key, []) if each.nonce == ref.nonce), None)
    assert call.end is not None
    if call.told == diary.SETTLED and not any(
        at <= call.until + _NEAR for at in moves.get(key, [])
    ):
        found.wrong(f"{ref.request_id} was told that it is settled, and is not")
    elif call.told == diary.REFUSED and held is not None and held.stands:
        alive = call.until < held.until - _NEAR and not _stepped(evidence, held, call.until)
        settled = any(at <= call.until for at in moves.get(key, []))
        if call.end.code == ErrorCode.UNKNOWN_LEASE and held.forgotten(call.begin.at):
            found.forgotten += 1
        elif call.end.code == ErrorCode.UNKNOWN_LEASE:
            tale = f"asked {call.begin.at:.3f}, told {call.until:.3f}; {_tale(evidence, key)}"
            found.wrong(f"{ref.request_id} was told that its lease is unknown: {tale}")
        elif alive and not (call.begin.renew and settled):
            found.wrong(f"{ref.request_id} was told that its lease is over: {call.end.code}")


def _tale(evidence: Evidence, key: str) -> str:
    """What the stores have written down of a request: number, what, when; lost changes in
    brackets.
    """
    told = (
        (f"{entry.nth} {entry.ran.name} {entry.at:.3f}", place in evidence.kept)
        for place, entry in enumerate(evidence.entries)
        if entry.ran.key == key
    )
    return ", ".join(text if stands else f"[{text}]" for text, stands in told)


def _stepped(evidence: Evidence, held: _Held, until: float) -> bool:
    """Whether the store's clock went forward while the lease lived, as far as can be seen from
    what was written down until a while after.
    """
    return any(
        entry.ahead > held.ahead
        for entry in evidence.entries
        if held.at <= entry.at <= until + _A_WHILE
    )
