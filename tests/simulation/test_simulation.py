"""Calls by the hundred thousand through a world that breaks, and not one promise broken.

Three replicas' engines and the real scripts in virtual time, told by a seed: requests and replies
are lost, doubled and late, replicas are cut off and crash, the store fails over and loses what it
wrote last, its clock steps both ways, it forgets its scripts, callers die, the provider is down.
What may be granted beyond a limit is itemised in `tests_support.ledger`, and nothing else is.

    SIM_SEEDS=10000 SIM_CALLS=1000 pytest tests/simulation -k promises -s

is the long run (SIM_SEEDS=1000: a million calls); SIM_FIRST=4711 begins with that seed.
"""

import os
from collections import Counter

import pytest
import redis
from story import FAULTS, story
from tests_support.ledger import Broken
from tests_support.scripts import scripts

from limiter_service.simulation.virtual_time import run
from limiter_service.store.scripts import part

SEEDS = int(os.environ.get("SIM_SEEDS", "200"))
CALLS = int(os.environ.get("SIM_CALLS", "1000"))
FIRST = int(os.environ.get("SIM_FIRST", "0"))
PARTS = 8

# What is planted: part, text, its replacement.
BUGS = {
    "a retry charges again": ("acquire", "if known then", "if false then"),
    "a bucket grants what it does not have": ("lib/limits", "amount - level > 1e-6", "amount - level > 60"),
    "a clock that steps back gives credit": ("lib/scope", "s[SKEW], now, elapsed = s[SKEW] - elapsed, s[TIME], 0", "s[SKEW], now, elapsed = s[SKEW] - elapsed, s[TIME], -elapsed"),
    "a clock that steps back locks out": ("lib/scope", "if elapsed < 0 then", "if false then"),
    "a refund is given twice": ("lib/holding", "amount - charged, lease", "2 * (amount - charged), lease"),
    "a refund comes into a new window": ("lib/sliding", "local slot = amount < 0 and held[held_at] or s[at]", "local slot = s[at]"),
    "a lease never ends": ("lib/holding", "if wall >= granted + lease[TTL] then", "if false then"),
    "a lease that is over keeps its slot": ("lib/concurrency", 'string.format("(%.0f", now)', '"-inf"'),
    "a settle does not give its slot back": ("lib/holding", "window.release(q, p, s, at, lease[1])", "window = window"),
    "a grant takes no slot": ("lib/granting", "window.hold(q, p, s[TIME], ask[1], ask[TTL])", "window = window"),
    "a renewal charges the same usage each time": ("renew", "lease[CHARGES + n] = used", "used = used"),
    "a window forgets too early": ("lib/sliding", "math.max(s[at], newest - RING) + 1, newest do", "math.max(s[at], newest - RING) + 1, newest + 30 do"),
    "a probe more than allowed": ("lib/breaker", "if held >= q[Q_PROBES] or held + c[C_PASSED] >= q[Q_NEEDED] then", "if false then"),
    "a refusal charges the first limit": ("acquire", "elseif worst > 0 then\n", "elseif worst > 0 then\n  take(scopes, ask, nil)\n  save_all(request, wall)\n"),
    "a key without a life": ("lib/limits", '"PX", math.ceil(needed / 500) + 1000)', '"KEEPTTL")'),
}  # fmt: skip

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.parametrize("nth", range(PARTS))
def test_the_promises_hold_whatever_breaks(valkey_db: redis.Redis, nth: int) -> None:
    """Every seed of this part; a seed that breaks a promise is named, and can be told alone."""
    loaded, faults, calls, hours = scripts(), Counter[str](), 0, 0.0
    for seed in range(FIRST + nth, FIRST + SEEDS, PARTS):
        try:
            told = run(story(valkey_db, seed, loaded, calls=CALLS))
        except Broken as broken:
            pytest.fail(f"seed {seed}: {broken}")
        calls, hours = calls + told.calls, hours + told.seconds / 3600
        faults.update(told.faults)
    assert calls >= SEEDS // PARTS * CALLS
    assert SEEDS < 100 or set(faults) == set(FAULTS) - {"slow way"}
    print(f"\n{calls:,} calls, {hours:.1f} hours, {dict(faults)}")


def test_a_seed_tells_the_same_story_again(valkey_db: redis.Redis) -> None:
    """Byte by byte, or a seed that fails could not be looked at."""
    for seed in (1, 2, 3):
        told = [run(story(valkey_db, seed, calls=300)).history for _ in range(2)]
        assert told[0] == told[1]


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found_within_fifty_seeds(valkey_db: redis.Redis, bug: str) -> None:
    """With this slip in the scripts a promise is broken soon."""
    name, text, replacement = BUGS[bug]
    whole = part(name)
    assert whole.count(text) == 1, "the bug no longer fits the script"
    broken = scripts({name: whole.replace(text, replacement)})
    for seed in range(50):
        try:
            run(story(valkey_db, seed, broken, calls=400))
        except Exception:  # noqa: BLE001  # a promise, or what the engine makes of nonsense
            valkey_db.flushall()
            return
    pytest.fail("nothing was noticed in 50 seeds")
