"""Whether diaries, journal and store agree, and no promise was broken. Nothing is asked of anyone.

What may differ is itemised in `Found`: changes that a failover has lost, steps of the store's
clock forward, what services have granted without the store and could not charge. Everything else
is a violation.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from limiter_service.engine.policy import Policies, Policy
from limiter_wire import Acquire
from tests_support.ledger import _BLUR, ALONE, Broken, Held, Ledger, Ran, _places
from tests_support.trial import answers, balance, lending, rules
from tests_support.trial.diary import Call
from tests_support.trial.evidence import BACK, GRANTS, Evidence, Found, key_of
from tests_support.trial.journal import LONE, Entry
from tests_support.trial.lending import ENDED, stage_and_amounts
from tests_support.trial.times import in_order

_EPISODE = 3.0  # seconds in which every service that decides alone grants something


def judge(evidence: Evidence) -> Found:
    """Look at all of it."""
    found = Found(calls=len(evidence.calls))
    evidence = replace(evidence, calls=[_with_name(call) for call in evidence.calls])
    requests = asked_for(evidence.calls)
    policies = {key: _policy(evidence.policies, asked) for key, asked in requests.items()}
    for entry in evidence.entries:
        if entry.ran.key in policies:
            continue
        if evidence.usual is None:
            found.wrong(f"{entry.ran.name} of {entry.ran.key}, which nobody asked for")
            return found
        policies[entry.ran.key] = evidence.policies.policy(*evidence.usual)
    _replay(evidence, policies, found)
    balance.check(evidence, policies, found)
    answers.check(evidence, requests, found)
    lending.check(evidence, policies, found)
    for name in evidence.left:
        found.wrong(f"{name} is still held")
    return found


def asked_for(calls: Iterable[Call]) -> dict[str, Acquire]:
    """Requests that have a name, by what stands for them in the journal."""
    asked = (call.begin.acquire for call in calls if call.begin.acquire is not None)
    return {key_of(each): each for each in asked if each.request_id is not None}


def _with_name(call: Call) -> Call:
    """The same under the name that the limiter has made up, where it says so."""
    asked = call.begin.acquire
    if asked is None or asked.request_id is not None or call.end is None or not call.end.request:
        return call
    if call.end.lease.startswith(rules.BLOCK):
        return call
    named = replace(asked, request_id=call.end.request)
    return Call(call.worker, replace(call.begin, acquire=named), call.end)


def _policy(policies: Policies, asked: Acquire) -> Policy:
    return policies.policy(asked.resource, asked.tenant)


class _Reader:
    """Reads the journal into a ledger."""

    def __init__(self, evidence: Evidence, policies: Mapping[str, Policy]) -> None:
        probes, torn = (rules.PROBE_TTL, rules.PROBES), evidence.torn
        self.ledger = Ledger(dict(policies), *probes, torn=torn)
        self.journal: list[Ran] = []

    def lose(self, lost_from: int, at: float) -> None:
        """What was read from there on is lost."""
        self.ledger.lose(self.journal, lost_from, at)

    def read(self, ran: Ran) -> None:
        """Take in what has run. Raises Broken."""
        lease = self.ledger.leases.get(ran.key)
        if ran.name in BACK:
            if lease is None:
                return
            if ran.name == "leave":
                self.ledger.left.add(ran.key)
            ran = ran._replace(name="cancel")
        elif ran.name == "fetch":
            ran = ran._replace(name="enqueue")
        elif ran.name == "lend":
            ran = ran._replace(name="acquire")
        elif ran.name == "repay":
            self._repaid(ran, lease)
            return
        elif ran.name == "longer":
            self._lives_on(ran, lease)
            return
        self.journal.append(ran)
        try:
            self.ledger.read(self.journal)
        finally:
            self.ledger._read = len(self.journal)

    def _repaid(self, ran: Ran, lease: Held | None) -> None:
        """What of a block stays charged once it is not held any more."""
        stage, amounts = stage_and_amounts(ran.request)
        if lease is None:
            raise Broken(f"{ran.key} is given back and was never lent")
        if not stage:
            return
        places, limits = _places(lease.policy), lease.policy.limits
        for n, (place, limit, amount) in enumerate(zip(places, limits, amounts, strict=True)):
            if amount >= 0:
                self.ledger._move(place, limit, lease, ran.at, amount - lease.charges[n])
                lease.charges[n] = amount
        lease.settled = lease.settled or stage == ENDED

    def _lives_on(self, ran: Ran, lease: Held | None) -> None:
        """A lease that was granted without the store, and what it holds now."""
        if lease is None or not lease.alone:
            return  # the store has granted it, too, and that is what counts
        life, *charges = balance.numbers(ran.request)
        lease.until = lease.at + life / 1e6 - _BLUR
        lease.latest = lease.at + life / 1e6 + _BLUR
        places, limits = _places(lease.policy), lease.policy.limits
        for n, (place, limit, now) in enumerate(zip(places, limits, charges, strict=True)):
            self.ledger._window(place, limit).move(ran.at, now - lease.charges[n], lease)
            lease.charges[n] = now


def _looks(entries: list[Entry]) -> dict[int, float]:
    """For each grant without the store since when all services have looked at the limits, as far
    as they say so by what they grant a moment later.
    """
    lone = [place for place, entry in enumerate(entries) if entry.ran.name == "alone"]
    found: dict[int, float] = {}
    later: deque[tuple[float, float]] = deque()
    for place in reversed(lone):
        entry = entries[place]
        later.append((entry.at, ALONE.unpack(entry.ran.request)[2]))
        while later[0][0] > entry.at + _EPISODE:
            later.popleft()
        found[place] = min(looked for _, looked in later)
    return found


def _replay(evidence: Evidence, policies: Mapping[str, Policy], found: Found) -> None:
    """No limit is passed, nothing is granted or settled twice: what the simulation checks too."""
    reader = _Reader(evidence, policies)
    ledger = reader.ledger
    lost_from: int | None = None
    ahead: float | None = None
    start = evidence.entries[0].at if evidence.entries else 0.0
    looks, times = _looks(evidence.entries), in_order(evidence.entries, evidence.kept)
    for place, (entry, at) in enumerate(zip(evidence.entries, times, strict=True)):
        lone = entry.nth == LONE
        if entry.nth < 0 and not lone:
            found.repeats += entry.ran.name == "again"
            continue
        stands = place in evidence.kept or lone
        if stands and not lone and lost_from is not None:
            reader.lose(lost_from, at)
            lost_from = None
        if stands and not lone and ahead != entry.ahead:
            step = entry.ahead - (entry.ahead if ahead is None else ahead)
            ahead, found.leaps = entry.ahead, found.leaps + max(0.0, step)
            if step:
                ledger.step(step, at)
        if not stands:
            found.lost += 1
            found.losses.append(entry.at)
            if entry.ran.name in GRANTS and entry.ran.key in ledger.leases:
                continue  # granted by one who did not know that it is primary no more
            lost_from = len(reader.journal) if lost_from is None else lost_from
        found.grouped += entry.grouped
        ran = entry.ran._replace(at=at)
        if place in looks:
            replica, since, _, *more = ALONE.unpack(ran.request)
            said = ALONE.pack(replica, since, looks[place] - start, *more)
            ran = ran._replace(request=said)
        try:
            reader.read(ran)
        except Broken as broken:
            if stands:
                found.wrong(f"{broken} (number {entry.nth})", entry.at)
    found.grants, found.settles = ledger.grants, ledger.settles
    found.alone, found.charged = ledger.alone, ledger.charged
    for lease in ledger.owing.values():
        found.uncharged += 1
        found.uncharged_tokens += max(lease.charges)
    if found.uncharged and not evidence.deaths:
        found.wrong(f"{found.uncharged} leases that were granted alone are not charged")
