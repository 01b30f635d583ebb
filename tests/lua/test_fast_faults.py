"""The comparison can fail: each fault below, planted in what decides at once, is found by it."""

import contextlib
import struct
from collections.abc import Callable, Iterator

import pytest
import redis
from twins import Twins, Two, run, two_of

from limiter_service.store.scripts import part

# What is broken: part, text, its replacement.
FAULTS = {
    "a state of another policy is taken": ("lib/few", "v == version and elapsed >= 0", "elapsed >= 0"),
    "a clock that has stepped back is not seen": ("lib/few", "v == version and elapsed >= 0", "v == version"),
    "the skew of a clock is forgotten": ("lib/few", "wall + skew, l1 + elapsed * r1", "wall, l1 + elapsed * r1"),
    "a bucket does not refill": ("lib/few", "wall + skew, l1 + elapsed * r1", "wall + skew, l1"),
    "a bucket refills above its capacity": ("lib/few", "if own > 1 and l2 > c2 then", "if false then"),
    "a bucket has three tokens too much": ("lib/few_granted", "a2 - l2 > 1e-6", "a2 - l2 > 3"),
    "an empty bucket still grants": ("lib/few_granted", "or a3 - l3 > 1e-6", ""),
    "a retry costs nothing": ("lib/few_granted", "marks % 1024 >= 512 and gated > 0 or ", ""),
    "one of a group is charged for": ("lib/few_granted", "l1, l2, l3, l4, at = l1 - a1, l2 - a2, l3 - a3, l4 - a4, at + size", "if n == 1 then l1, l2, l3, l4 = l1 - a1, l2 - a2, l3 - a3, l4 - a4 end at = at + size"),
    "samples earn nothing": ("lib/few_granted", "if nonce % SAMPLE == 0 then", "if false then"),
    "how long a state is kept is never set anew": ("lib/few_packed", "kept - wall < needed", "false"),
    "the other limits are not written": ("lib/few_packed", "i1, l1, i2, l2, i3, l3, i4, l4)", "i1, l1, i2, o2 or 5, i3, 5, i4, 5)"),
    "a lease has the first generation": ("lib/few_leases", "if generation ~= 1 then", "if false then"),
    "a lease is not remembered": ("lib/few_leases", "math.ceil(span / 1000)", "math.ceil(span / 9000)"),
    "the same request charges twice": ("lib/few_leases", ', expiry, "NX")', ", expiry)"),
    "a lease of nobody stays": ("lib/few_leases", 'call("UNLINK", keys[first + before])', "span = before"),
    "what is learned is lost": ("lib/few_saved", 'behind == "" and state or state .. behind', "state"),
    "a group earns as one": ("lib/earned", "for n = 1, #earns do", "for n = 1, math.min(1, #earns) do"),
    "a first attempt earns nothing": ("lib/earned", "if #earns > 0 then", "if false then"),
    "where there is plenty nobody earns": ("lib/earned", ">= PLENTY and samples or 0", ">= PLENTY and 0 or 0"),
    "a circuit that is not calm lets pass": ("lib/gate", "wall + shift < calm or", ""),
    "a group goes past those who wait": ("lib/acquire_ordinary", "if queued then", "if false then"),
    "whoever has a lease is told to wait": ("lib/acquire_ordinary", 'known and "?" or "Q"', '"Q"'),
    "long chains: a state of another policy is taken": ("lib/many", "s[VERSION] ~= q[p] or elapsed < 0", "elapsed < 0"),
    "long chains: a clock that has stepped back is not seen": ("lib/many", "s[VERSION] ~= q[p] or elapsed < 0", "s[VERSION] ~= q[p]"),
    "long chains: the time is not written": ("lib/many", "s[TIME], p = wall + s[SKEW], p + 3", "p = p + 3"),
    "long chains: a bucket does not refill": ("lib/many", "s[at] + elapsed * q[p + 1], q[p]", "s[at], q[p]"),
    "long chains: a bucket refills above its capacity": ("lib/many", "level > capacity and capacity or level", "level"),
    "long chains: how long a state is kept is never set anew": ("lib/many", "s[KEPT] - wall < needed", "false"),
    "long chains: what is learned is lost": ("lib/many", "if #old > #state then", "if false then"),
    "who is denied is told of another limit": ("lib/granted", "worst, longest = i - CHARGES, wait", "worst, longest = i - CHARGES + 1, wait"),
    "who is denied is told of the shortest wait": ("lib/granted", "wait > longest or wait == NEVER", "longest == 0 or wait == NEVER"),
    "what never fits is told to wait": ("lib/granted", "amount > q[p] and NEVER or", ""),
    "long chains: an empty bucket still grants": ("lib/granted", "fits = false", "fits = fits"),
    "long chains: a retry costs nothing": ("lib/granted", "ask[MARKS] % 1024 >= 512 and gated > 0", "false"),
    "long chains: nothing is charged": ("lib/granted", "s[at] = s[at] - ask[i]", "s[at] = s[at] - 0"),
    "long chains: samples earn nothing": ("lib/granted", "if ask[1] % SAMPLE == 0 then", "if false then"),
    "long chains: a lease has the first generation": ("lib/granted", 'generation ~= 1 and packed("<d", generation)', "false"),
    "long chains: a lease is not remembered": ("lib/granted", "math.ceil(kept_for / 1000)", "math.ceil(kept_for / 9000)"),
    "long chains: the same request charges twice": ("lib/granted", ', px, "NX")', ", px)"),
    "a request twice in a group takes from those behind it": ("lib/granted", "known[n] = seen[key] or", "known[n] ="),
    "a denial hides a lease": ("lib/granted", 'refused and call("EXISTS", keys[first + n]) > 0', "false"),
    "any nonce settles": ("lib/few_reported", "nonce ~= token\n      or ", ""),
    "a settled lease settles again": ("lib/few_reported", "#text ~= length", "#text < length"),
    "a lease never expires": ("lib/few_reported", "or wall >= began - moved + ttl", ""),
    "a first token settles": ("lib/few_reported", "or more ~= 0", ""),
    "a lease of another policy is settled": ("lib/few_reported", "      or then_version ~= version\n", ""),
    "a failure is a success": ("lib/few_reported", "class ~= SUCCESS\n        or ", ""),
    "a slow success is as any other": ("lib/few_reported", "or late ~= 0", ""),
    "the vote of a probe is a success": ("lib/few_reported", "or marks % 512 >= 32", ""),
    "a success of an older generation is counted": ("lib/few_reported", "or epoch ~= watched.generation", ""),
    "a settle charges on top of the reservation": ("lib/few_reported", "u2 >= 0 and u2 - a2 or 0", "u2 >= 0 and u2 or 0"),
    "what is not known is given back": ("lib/few_reported", "u1 >= 0 and u1 - a1 or 0", "u1 - a1"),
    "a refund fills above the capacity": ("lib/few_reported", "  if l2 > c2 then\n    l2 = c2\n  end\n", ""),
    "the same lease settles twice in a group": ("lib/few_reported", " or known and known[key]", ""),
    "successes are of the first worker": ("lib/few_reported", "with_worker(busy, marks % 32)", "with_worker(busy, 0)"),
    "a settled lease is not remembered": ("lib/few_settled", "math.ceil(span / 1000)", "math.ceil(span / 9000)"),
    "long chains: any nonce settles": ("lib/settled", "lease[1] == report[2] and", ""),
    "long chains: a settled lease settles again": ("lib/settled", "lease[SETTLED] == 0 and", ""),
    "long chains: a lease never expires": ("lib/settled", "wall < granted + lease[TTL]", "true"),
    "long chains: a first token settles": ("lib/settled", "report[3] == 0", "true"),
    "long chains: a failure is a success": ("lib/settled", "report[4] == SUCCESS", "true"),
    "long chains: a slow success is as any other": ("lib/settled", "report[6] == 0", "true"),
    "long chains: a settle charges on top of the reservation": ("lib/settled", "used - lease[CHARGES + i]", "used"),
    "long chains: the same lease settles twice in a group": ("lib/settled", " or known and known[key]", ""),
    "a success is not written": ("lib/settle_ordinary", "elseif watched then", "elseif false then"),
    "the time of a success is not written": ("lib/success", "c.now, c.span, 1,", "0, c.span, 1,"),
    "those who wait are not told of": ("lib/settle_ordinary", '"g" or "G"', '"G" or "G"'),
    "several scopes: all are asked for what the first is": ("lib/few_granted", "local at, size = 8 * ahead + 1,", "local at, size = 1,"),
    "several scopes: all have the amounts of the first": ("lib/few", "  of_state, of_asked =", '  c1, r1 = unpacked("<dd", terms, 8 * (TERMS_OF_SCOPES + 2) + 1)\n  of_state, of_asked ='),
    "several scopes: all have the levels of the first": ("lib/few", "local old = texts[place]", "local old = texts[place]\nif scopes > 1 and old then\n  old = sub(old, 1, 8) .. sub(texts[places[1]] or old, 9)\nend"),
    "several scopes: room in the last is enough": ("lib/acquire_ordinary", "    if not few then\n      break", "    if false then\n      break"),
    "several scopes: how long each is kept is forgotten": ("lib/few_packed", "= state, longer", "= state, false"),
    "several scopes: a lease tells of the last": ("lib/few_leases", "if scopes > 1 then", "if false then"),
    "several scopes: a lease tells of those of another chain": ("lib/few_leases", 'to_write, "", 1, scopes', "to_write"),
    "several scopes: the last is written alone": ("lib/few_saved", "for scope = 1, scopes do", "for scope = scopes, scopes do"),
    "several scopes: all get the state of the last": ("lib/few_saved", "place, state, longer = places[scope], to_write[scope],", "place, longer = places[scope],"),
    "several scopes: what is used is told of the first": ("lib/few_reported", "size * (n - 1) + 8 * ahead + 1", "size * (n - 1) + 1"),
    "several scopes: a lease holds what the first has given": ("lib/few_reported", "unpacked(of_asked, text, 8 * ahead + 1)", "unpacked(of_asked, text)"),
    "several scopes: the second may be of another policy": ("lib/few_reported", "    if then_version ~= version then\n      few = false\n      break\n    end\n", ""),
    "several scopes: what has moved is of the last": ("lib/few_reported", "scope > 1 and settled[n] .. changes or changes", "changes"),
    "several scopes: what is left over is settled in the second": ("lib/few_reported", "scope > 1 and #settled or all", "all"),
    "several scopes: who looks at length takes leases for settled": ("lib/settle_ordinary", "known[keys[first + n]] = nil", "n = n"),
    "several scopes: what is not written is told": ("lib/settle_ordinary", "nil, nil, nil, {}\n", "nil, nil, nil, reply\n"),
    "several scopes: who looks at length knows no workers": ("lib/settled", "busy = watched and watched.workers", "busy = watched and 0"),
    "several chains: all have the leases of the first": ("lib/in_turn", "first, at = first + all,", "first, at = first,"),
    "several chains: all have the policies of the first": ("lib/in_turn", "if kind ~= told then", "if not told then"),
    "several chains: all have the last circuit": ("lib/in_turn", "total + 2 + calls + nth", "#keys"),
    "several chains: long ones read the first scopes": ("lib/in_turn", "if scopes > 1 then", "if false then"),
    "several chains: what one has written the next does not see": ("lib/few_saved", "texts[place] = whole", ""),
    "several chains: what a long one has written the next does not see": ("lib/many", "    texts[nth] = state\n", ""),
    "several chains: the next does not know what one has earned": ("lib/earned", "  pin = head .. ", "  local pin = head .. "),
    "several chains: all leases are remembered as the first": ("lib/few_leases", "span ~= known_for", "known_for == 0"),
    "a row: what one has opened the next still has": ("lib/afresh", "policies, states,", "local _,"),
    "a row: a stepped clock of one is the next one's": ("lib/afresh", "ends, anew, slow = {}, {}, {}, {}, {}, {}", "ends, slow = {}, {}, {}, {}, {}"),
    "a row: all have the lease of the first": ("lib/row", "all_keys[leases + n]", "all_keys[leases + 1]"),
    "a row: all ask for the same": ("lib/row", "all_arguments[requests + n]", "all_arguments[requests + 1]"),
    "a row: all have the chain of the first": ("lib/row", "plan, at + 8 * (n - 1))", "plan, at)"),
    "several chains: a circuit is of the first generation to the second": ("lib/gate", "passed[circuit] = generation", "passed[circuit] = 1"),
    "several chains: a circuit that lets pass does so for all": ("lib/gate", "passed and passed[circuit]", "passed and next(passed) and passed[next(passed)]"),
    "several chains: what was earned before is forgotten": ("lib/gate", "known_pin, balance = pin,", "known_pin, balance = pin, known_pin and most or"),
    "several chains: successes are not written": ("settle_mixed", "save_successes(key, watched)", "watched = key"),
    "several chains: a success of the first is forgotten": ("lib/settle_ordinary", "watched = watches and watches[circuit]", "watched = nil"),
    "several chains: a window of another width counts": ("lib/settle_ordinary", " or watched.span ~= span_of_bucket", ""),
    "several chains: a lease settles for each": ("settle_mixed", "texts[first], {}", "texts[first], nil"),
}  # fmt: skip

# These differ in nothing that anybody is told: fewer are decided at once.
SLOWER = {
    "several scopes: who looks at length takes leases for settled",
    "several chains: long ones read the first scopes",
}

# Where the search would be long, it begins with a history that is known to show the fault. When
# it does so no more, as after a change of what is drawn, the fault is searched for as any other.
SHOWN_BY = {
    "a clock that has stepped back is not seen": 62,
    "a bucket has three tokens too much": 9,
    "an empty bucket still grants": 79,
    "samples earn nothing": 88,
    "a lease has the first generation": 5,
    "the same request charges twice": 3,
    "a lease of nobody stays": 6,
    "where there is plenty nobody earns": 9,
    "a circuit that is not calm lets pass": 5,
    "a group goes past those who wait": 5,
    "long chains: a clock that has stepped back is not seen": 5,
    "what never fits is told to wait": 8,
    "long chains: samples earn nothing": 9,
    "long chains: a lease has the first generation": 5,
    "a request twice in a group takes from those behind it": 11,
    "a lease never expires": 9,
    "a first token settles": 3,
    "a lease of another policy is settled": 57,
    "a failure is a success": 33,
    "a slow success is as any other": 5,
    "a refund fills above the capacity": 629,
    "the vote of a probe is a success": 36,
    "a success of an older generation is counted": 5,
    "long chains: any nonce settles": 34,
    "long chains: a settled lease settles again": 30,
    "long chains: a lease never expires": 119,
    "long chains: a first token settles": 60,
    "long chains: a failure is a success": 7,
    "long chains: a slow success is as any other": 135,
    "long chains: a settle charges on top of the reservation": 5,
    "long chains: the same lease settles twice in a group": 17,
    "those who wait are not told of": 5,
    "several scopes: all have the levels of the first": 9,
    "several scopes: a lease tells of those of another chain": 9,
    "several scopes: a lease holds what the first has given": 5,
    "several scopes: the second may be of another policy": 6,
    "several scopes: what is left over is settled in the second": 6,
    "several scopes: what is not written is told": 5,
    "several scopes: who looks at length knows no workers": 5,
    "a row: a stepped clock of one is the next one's": 34,
    "several chains: a circuit is of the first generation to the second": 9,
    "several chains: a circuit that lets pass does so for all": 5,
    "several chains: a success of the first is forgotten": 3,
    "several chains: a window of another width counts": 172,
}

_HISTORIES = 1000  # the hardest fault needs some six hundred
DIFFERENT = (AssertionError, redis.ResponseError, struct.error)


@pytest.fixture
def two(valkey_db: redis.Redis) -> Iterator[Two]:
    """Two empty databases of one server."""
    yield from two_of(valkey_db)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_difference_is_found(two: Two, fault: str) -> None:
    """With this fault the two stores are not the same, in a history in which they are without."""
    name, text, replacement = FAULTS[fault]
    whole = part(name)
    assert whole.count(text) == 1, "the fault no longer fits the script"
    broken, sound = run(two, {name: whole.replace(text, replacement)}), run(two)
    found = _is_slower if fault in SLOWER else _differs
    seeds = (SHOWN_BY.get(fault, 0), *range(_HISTORIES))
    assert any(found(broken, sound, seed) for seed in seeds), "no history shows the fault"


def _differs(broken: Callable[[int], Twins], sound: Callable[[int], Twins], seed: int) -> bool:
    # The sound one is asked last: in one history of some hundred it differs too, where a
    # request comes twice in a group and is granted the second time.
    try:
        broken(seed)
    except DIFFERENT:
        with contextlib.suppress(DIFFERENT):
            sound(seed)
            return True
    return False


def _is_slower(broken: Callable[[int], Twins], sound: Callable[[int], Twins], seed: int) -> bool:
    return broken(seed).mixed < sound(seed).mixed
