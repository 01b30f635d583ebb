"""The judge of trials can condemn: evidence that was tampered with is found out."""

import struct
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from tests_support.trial import diary
from tests_support.trial.diary import Call
from tests_support.trial.evidence import Evidence, key_of
from tests_support.trial.journal import Entry
from tests_support.trial.scene import Outcome
from tests_support.trial.verdict import judge

from limiter_service.engine import ids
from limiter_service.store.keys import request_digest

pytestmark = pytest.mark.timeout(600)


def first(evidence: Evidence, name: str) -> int:
    """The place of the first entry by that name."""
    return next(n for n, entry in enumerate(evidence.entries) if entry.ran.name == name)


def granted(evidence: Evidence) -> list[Call]:
    """Calls that were told of a lease."""
    return [call for call in evidence.calls if call.told == diary.GRANTED]


def with_call(evidence: Evidence, call: Call, **end: object) -> Evidence:
    """Another end of one call."""
    assert call.end is not None
    changed = replace(call, end=replace(call.end, **end))
    return replace(evidence, calls=[changed if c is call else c for c in evidence.calls])


def with_entries(evidence: Evidence, entries: list[Entry]) -> Evidence:
    """Another journal, all of which stands."""
    return replace(evidence, entries=entries, kept=set(range(len(entries))))


def a_second_debit(evidence: Evidence) -> Evidence:
    """One request is granted again."""
    entry = evidence.entries[first(evidence, "acquire")]
    return with_entries(evidence, [*evidence.entries, replace(entry, at=evidence.entries[-1].at)])


def a_grant_that_was_none(evidence: Evidence) -> Evidence:
    """The store has never granted it."""
    key = evidence.entries[first(evidence, "acquire")].ran.key
    return with_entries(evidence, [e for e in evidence.entries if e.ran.key != key])


def an_answer_of_another(evidence: Evidence) -> Evidence:
    """Two answers are mixed up."""
    one, other = granted(evidence)[:2]
    assert other.end is not None
    return with_call(evidence, one, lease=other.end.lease)


def a_late_grant(evidence: Evidence) -> Evidence:
    """It was told before it happened."""
    call = granted(evidence)[-1]
    return with_call(evidence, call, at=call.begin.at - 100.0)


def a_call_that_hangs(evidence: Evidence) -> Evidence:
    """Nobody was told."""
    call = granted(evidence)[0]
    changed = replace(call, end=None)
    return replace(evidence, calls=[changed if c is call else c for c in evidence.calls])


def an_unheard_of_refusal(evidence: Evidence) -> Evidence:
    """A failure that is none of the callers'."""
    return with_call(evidence, granted(evidence)[0], told=diary.REFUSED, code="invalid")


def a_forgotten_lease(evidence: Evidence) -> Evidence:
    """A settle is told that there is no such lease."""
    call = next(call for call in evidence.calls if call.told == diary.SETTLED)
    return with_call(evidence, call, told=diary.REFUSED, code="unknown_lease")


def a_settle_that_was_none(evidence: Evidence) -> Evidence:
    """The caller was told that it is settled."""
    call = next(c for c in evidence.calls if c.told == diary.SETTLED and c.begin.settle)
    assert call.begin.settle is not None
    ref = ids.decode(call.begin.settle.lease)
    assert ref is not None
    key = request_digest(ref.tenant, ref.request_id).hex()
    names = {"settle", "told again"}
    entries = [e for e in evidence.entries if e.ran.key != key or e.ran.name not in names]
    return with_entries(evidence, entries)


def a_lost_grant(evidence: Evidence) -> Evidence:
    """The store has lost one that its caller was told of."""
    key = _key_of_a_told_grant(evidence)
    lost = {n for n, entry in enumerate(evidence.entries) if entry.ran.key == key}
    return replace(evidence, kept=evidence.kept - lost)


def _key_of_a_told_grant(evidence: Evidence) -> str:
    asked = granted(evidence)[0].begin.acquire
    assert asked is not None
    return key_of(asked)


def a_level_that_is_off(evidence: Evidence) -> Evidence:
    """The store says that fewer tokens were taken."""
    return replace(evidence, spent=evidence.spent - 5.0)


def a_slot_for_ever(evidence: Evidence) -> Evidence:
    """Something is still held when all is over."""
    return replace(evidence, left=["sg:{p}:c:model:m1:1"])


def a_limit_that_is_passed(evidence: Evidence) -> Evidence:
    """More calls at once than there are."""
    entries = list(evidence.entries)
    at = entries[-1].at
    for n, entry in enumerate(entries):
        if entry.ran.name == "acquire":
            entries[n] = replace(entry, at=at)
    return with_entries(evidence, entries)


def a_refund_that_is_too_large(evidence: Evidence) -> Evidence:
    """More comes back than was held."""
    entries = list(evidence.entries)
    place = first(evidence, "settle")
    ran = entries[place].ran
    moved = list(struct.unpack(f"<{len(ran.reply[9:]) // 8}d", ran.reply[9:]))
    moved[0] -= 1.0
    reply = ran.reply[:9] + struct.pack(f"<{len(moved)}d", *moved)
    entries[place] = replace(entries[place], ran=ran._replace(reply=reply))
    return with_entries(evidence, entries)


TAMPERED: dict[Callable[[Evidence], Evidence], str] = {
    a_second_debit: "granted twice",
    a_grant_that_was_none: "a grant that was none",
    an_answer_of_another: "somebody else's lease",
    a_late_grant: "when it was not asked for",
    a_call_that_hangs: "was never told what came of",
    an_unheard_of_refusal: "was refused: invalid",
    a_forgotten_lease: "its lease is unknown",
    a_settle_that_was_none: "told that it is settled, and is not",
    a_lost_grant: "has lost the grant",
    a_level_that_is_off: "granted less given back",
    a_slot_for_ever: "is still held",
    a_limit_that_is_passed: "is over by",
    a_refund_that_is_too_large: "moved by",
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
def test_what_is_wrong_is_found(
    ways_and_clock: Outcome,
    tamper: Callable[[Evidence], Evidence],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each by its name, among whatever else is wrong then."""
    monkeypatch.setattr("tests_support.trial.evidence._MOST_TOLD", 1_000_000)
    evidence = ways_and_clock.evidence
    assert judge(evidence).violations == []
    violations = judge(tamper(evidence)).violations
    assert any(TAMPERED[tamper] in text for text in violations), violations[:3]


# What a failover may cost, and nothing more than that.


def fetched(evidence: Evidence) -> tuple[int, Call]:
    """A grant that a pass has kept until its caller fetched it: the place of the fetch, and the
    settle of its lease.
    """
    settles: dict[str, Call] = {}
    for call in evidence.calls:
        ref = ids.decode(call.begin.settle.lease) if call.begin.settle else None
        if ref is not None and call.told == diary.SETTLED:
            settles.setdefault(request_digest(ref.tenant, ref.request_id).hex(), call)
    for place, entry in enumerate(evidence.entries):
        if entry.ran.name == "fetch" and entry.ran.key in settles:
            return place, settles[entry.ran.key]
    raise LookupError("nobody has waited")


def unknown(evidence: Evidence, call: Call) -> Evidence:
    """Its lease is not known."""
    evidence = replace(evidence, durable=False)
    return with_call(evidence, call, told=diary.REFUSED, code="unknown_lease")


def test_who_has_fetched_a_grant_that_the_store_forgot_may_be_told_so(
    ways_and_clock: Outcome,
) -> None:
    """The grant stands, and its lease is not known: only where the fetch is lost."""
    evidence = ways_and_clock.evidence
    place, call = fetched(evidence)
    lost = replace(evidence, kept=evidence.kept - {place})
    found = judge(unknown(lost, call))
    assert (found.violations, found.forgotten) == ([], 1)
    assert any("its lease is unknown" in text for text in judge(unknown(evidence, call)).violations)
    durable = judge(lost).violations
    assert any("has lost the grant" in text for text in durable), durable


def test_so_may_who_has_fetched_one_that_was_lost_and_made_anew(ways_and_clock: Outcome) -> None:
    """The next pass grants it once more, to who has it already."""
    evidence = ways_and_clock.evidence
    place, call = fetched(evidence)
    key = evidence.entries[place].ran.key
    granted = max(
        n
        for n, e in enumerate(evidence.entries[:place])
        if (e.ran.name, e.ran.key) == ("pass", key)
    )
    anew = replace(evidence.entries[granted], at=evidence.entries[place].at)
    entries = [*evidence.entries[: place + 1], anew, *evidence.entries[place + 1 :]]
    kept = {at + (at > place) for at in evidence.kept - {granted, place}} | {place + 1}
    lost = replace(evidence, entries=entries, kept=frozenset(kept))
    found = judge(unknown(lost, call))
    assert (found.violations, found.forgotten) == ([], 1)


def test_who_asks_again_for_what_was_taken_back_has_it(ways_and_clock: Outcome) -> None:
    """That a pass has granted it, and it was fetched, is no matter any more: it was granted anew
    before its caller was told.
    """
    evidence = ways_and_clock.evidence
    place, _ = fetched(evidence)
    fetch = evidence.entries[place]
    granted = next(
        e for e in evidence.entries if (e.ran.name, e.ran.key) == ("pass", fetch.ran.key)
    )
    back = fetch.ran._replace(name="cancel", reply=bytes(8) + b"R")
    anew = granted.ran._replace(name="acquire", at=fetch.ran.at)
    more = [replace(fetch, ran=back), replace(fetch, ran=anew)]
    entries = [*evidence.entries[: place + 1], *more, *evidence.entries[place + 1 :]]
    kept = {at + 2 * (at > place) for at in evidence.kept - {place}} | {place + 1, place + 2}
    found = judge(replace(evidence, entries=entries, kept=frozenset(kept)))
    assert (found.violations, found.lost_acknowledged) == ([], 0)


@pytest.mark.parametrize("stale", [True, False])
def test_one_whose_term_is_over_may_know_less(ways_and_clock: Outcome, stale: bool) -> None:
    """It answers by what it knows; whoever is primary has to know the lease."""
    evidence = ways_and_clock.evidence
    _, call = fetched(evidence)
    assert call.begin.settle is not None
    ref = ids.decode(call.begin.settle.lease)
    assert ref is not None
    key = request_digest(ref.tenant, ref.request_id).hex()
    after = next(n for n, e in enumerate(evidence.entries) if e.at > call.begin.at and e.nth > 0)
    before = evidence.entries[after]
    told = before.ran._replace(name="unknown", key=key, at=call.until)
    term = (1, 0) if stale else before.term
    said = replace(before, nth=-1, at=call.until, term=term, ran=told)
    entries = [*evidence.entries[: after + 1], said, *evidence.entries[after + 1 :]]
    kept = {place + (place > after) for place in evidence.kept}
    found = judge(unknown(replace(evidence, entries=entries, kept=kept), call))
    assert found.outdated == stale
    assert bool(found.violations) != stale
