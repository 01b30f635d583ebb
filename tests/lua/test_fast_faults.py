"""The comparison can fail: each fault below, planted in what decides at once, is found by it."""

from collections.abc import Callable, Iterator

import pytest
import redis
from twins import Twins, Two, run, two_of

from limiter_service.store.scripts import part

# What is broken: part, text, its replacement.
FAULTS = {
    "what is learned is lost": ("lib/fast", "if #text > #whole then", "if false then"),
    "a state of another policy is taken": ("lib/fast", "not text or sub(text, 1, 8) ~= sub(rules, 1, 8)", "not text"),
    "a clock that has stepped back is not seen": ("lib/fast", "if elapsed < 0 then", "if false then"),
    "the skew of a clock is forgotten": ("lib/fast", "wall + s[SKEW]", "wall"),
    "the time is not written": ("lib/fast", "s[TIME] = now", "s[TIME] = s[TIME]"),
    "every limit is a bucket": ("lib/fast", "if q[p] ~= BUCKET then", "if false then"),
    "a bucket does not refill": ("lib/fast", "s[at] + elapsed * q[p + 3], q[p + 2]", "s[at], q[p + 2]"),
    "a bucket refills above its capacity": ("lib/fast", "level > capacity and capacity or level", "level"),
    "a refund fills above the capacity": ("lib/fast", "    if level > capacity then\n      level = capacity\n", "    if false then\n      level = capacity\n"),
    "a bucket has one token too much": ("lib/granted", "ask[i] - s[at] > 1e-6", "ask[i] - s[at] > 1"),
    "an empty bucket still grants": ("lib/granted", "fits = false", "fits = fits"),
    "a retry costs nothing": ("lib/granted", 'policy == "" or ask[MARKS] % 1024 < 512', "true"),
    "a lease has the first generation": ("lib/granted", "if generation ~= 1 then", "if false then"),
    "the slowest limit is not kept for": ("lib/fast", "if keep > needed then", "if false then"),
    "how long a state is kept is never set anew": ("lib/fast", "if s[KEPT] - wall < needed then", "if false then"),
    "a lease is not remembered": ("lib/granted", "span = ask[TTL] + ask[REMEMBER]", "span = ask[TTL]"),
    "other parameters under the same id are taken for the same": ("lib/granted", 'and "R" or "C", same', 'and "R" or "R", same'),
    "the same request charges twice in a group": ("lib/granted", "texts[first + n - 1] or known and known[key]", "texts[first + n - 1]"),
    "one of a group is charged for": ("lib/granted", "charge_buckets(policies[scope], states[scope], ask, i, wall)", "charge_buckets(policies[scope], n > 1 and { unpack(states[scope]) } or states[scope], ask, i, wall)"),
    "a group earns as one": ("lib/granted", "if granted > 1 then", "if false then"),
    "a first attempt earns nothing": ("lib/granted", "if earned then", "if false then"),
    "the second of a group earns nothing": ("lib/calm", "balance = most + (balance - most) + ratio", "balance = balance + 0"),
    "only groups are written": ("lib/granted", "if granted > 0 then", "if granted > 1 then"),
    "a group goes past those who wait": ("acquire_group", "if texts[first - 1] then", "if false then"),
    "a group knows no leases": ("acquire_group", 'redis.call("EXISTS", unpack(KEYS, first)) > 0', "false"),
    "letters of a group are moved": ("acquire_group", "string.sub(told, 1, n - 1)", "string.sub(told, 1, n)"),
    "any nonce settles": ("lib/settled", "lease[1] == report[2] and", ""),
    "a settled lease settles again": ("lib/settled", "lease[SETTLED] == 0 and", ""),
    "a lease never expires": ("lib/settled", "wall < granted + lease[TTL]", "true"),
    "a first token settles": ("lib/settled", "report[3] == 0", "true"),
    "a failure is a success": ("lib/settled", "report[4] == SUCCESS", "true"),
    "a slow success is as any other": ("lib/settled", "report[6] == 0", "true"),
    "the vote of a probe is a success": ("lib/settled", "lease[MARKS] % 512 < 32", "true"),
    "a success of an older generation is counted": ("lib/settled", "lease[EPOCH] == seen.generation", "true"),
    "a lease of another policy is settled": ("lib/settled", "sub(text, ends + 1, ends + 8) == sub(ARGV[scope], 1, 8)", "true"),
    "a settle charges on top of the reservation": ("lib/settled", "used - lease[CHARGES + i]", "used"),
    "what is not known is given back": ("lib/settled", "used >= 0 and used - lease[CHARGES + i] or 0", "used - lease[CHARGES + i]"),
    "the same lease settles twice in a group": ("lib/settled", " or known and known[key]", ""),
    "a group of successes is one": ("lib/settled", "if seen then\n      count", "if seen and n == 1 then\n      count"),
    "successes are of the first worker": ("lib/settled", "lease[MARKS] % 32)", "0)"),
    "a settled lease is not remembered": ("lib/settled", "span = lease[REMEMBER]", "span = 1000"),
    "those who wait are not told of": ("settle_group", '"g" or "G"', '"G" or "G"'),
}  # fmt: skip

_HISTORIES = 200  # the hardest fault needs some thirty


@pytest.fixture
def two(valkey_db: redis.Redis) -> Iterator[Two]:
    """Two empty databases of one server."""
    yield from two_of(valkey_db)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_difference_is_found(two: Two, fault: str) -> None:
    """With this fault the two stores are not the same."""
    name, text, replacement = FAULTS[fault]
    whole = part(name)
    assert whole.count(text) == 1, "the fault no longer fits the script"
    one = run(two, {name: whole.replace(text, replacement)})
    with pytest.raises((AssertionError, redis.ResponseError)):
        _until_it_differs(one)


def _until_it_differs(one: Callable[[int], Twins]) -> None:
    for seed in range(_HISTORIES):
        one(seed)
