"""Calls by the hundred thousand through a world that breaks, and not one promise broken.

Three replicas' engines and the real scripts in virtual time, told by a seed: requests, replies and
messages are lost, doubled and late, replicas are cut off and die with those whom they hold, the
store is away, fails over and loses what it wrote last, its clock steps both ways, it forgets its
scripts, callers hang up and die, the provider is down. What may be granted beyond a limit is
itemised in `tests_support.ledger`, what the queue owes in `order` and `wakes`, what blocks owe in
`loans`, and nothing else is.

    SIM_SEEDS=1000 SIM_FIRST=4711 pytest tests/simulation -k promises -s

tells a thousand stories, which are a million calls, from that seed on. `make simulation` is the
same in two processes, and `benchmarks/simulation.py` the long run.
"""

import os
import struct
from collections import Counter

import bugs
import pytest
import redis
from plots import FAULTS, plot_of
from story import story
from tests_support.ledger import Broken
from tests_support.scripts import scripts

from limiter_service.engine.refusals import Refusal
from limiter_service.simulation.virtual_time import run
from limiter_service.store.errors import StoreError
from limiter_service.store.scripts import Script, part

SEEDS = int(os.environ.get("SIM_SEEDS", "100"))
CALLS = int(os.environ.get("SIM_CALLS", "1000"))
FIRST = int(os.environ.get("SIM_FIRST", "0"))
PARTS = 8
"""Parts of the run, so that workers end together; a multiple of five would not mix the plots."""
FOUND = (Broken, Refusal, ValueError, LookupError, struct.error, redis.RedisError, StoreError)
"""A promise, or what engine and ledger make of nonsense; and no mistake of the story's own."""

SLIPS = [(plot, bug) for plot, table in bugs.SCRIPTS.items() for bug in table]
FLAWS = [(plot, bug) for plot, table in bugs.ENGINE.items() for bug in table]

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.parametrize("nth", range(PARTS))
def test_the_promises_hold_whatever_breaks(valkey_db: redis.Redis, nth: int) -> None:
    """Every seed of this part; a seed that breaks a promise is named, and can be told alone."""
    loaded, counts, faults = scripts(), Counter[str](), Counter[str]()
    seeds = range(FIRST + SEEDS * nth // PARTS, FIRST + SEEDS * (nth + 1) // PARTS)
    for seed in seeds:
        try:
            told = run(story(valkey_db, seed, loaded, calls=CALLS))
        except Broken as broken:
            pytest.fail(f"seed {seed}: {broken}")
        counts.update(told.counts, calls=told.calls)
        faults.update(told.faults)
    assert counts["calls"] >= len(seeds) * CALLS
    print(f"\n{dict(counts)}, {dict(faults)}")


def test_every_fault_befalls_some_story(valkey_db: redis.Redis) -> None:
    """And who waits, is swept, is taken back or is granted alone does so in some."""
    loaded, counts, faults = scripts(), Counter[str](), Counter[str]()
    for seed in range(20):
        told = run(story(valkey_db, seed, loaded, calls=300))
        counts.update(told.counts)
        faults.update(told.faults)
    assert {name for name, count in faults.items() if count} == set(FAULTS)
    assert all(counts.values()), counts


def test_a_seed_tells_the_same_story_again(valkey_db: redis.Redis) -> None:
    """Byte by byte, or a seed that fails could not be looked at."""
    for seed in (1, 2, 3):
        told = [run(story(valkey_db, seed, calls=300)).history for _ in range(2)]
        assert told[0] == told[1]


@pytest.mark.parametrize(("plot", "bug"), SLIPS)
def test_a_bug_is_found_within_fifty_seeds(valkey_db: redis.Redis, plot: str, bug: str) -> None:
    """With this slip in the scripts a promise is broken soon."""
    name, text, replacement = bugs.SCRIPTS[plot][bug]
    whole = part(name)
    assert whole.count(text) == 1, "the bug no longer fits the script"
    planted = scripts({name: whole.replace(text, replacement)})
    _is_found(valkey_db, plot, planted, bug)


@pytest.mark.parametrize(("plot", "bug"), FLAWS)
def test_a_flaw_is_found_within_fifty_seeds(
    valkey_db: redis.Redis, monkeypatch: pytest.MonkeyPatch, plot: str, bug: str
) -> None:
    """The same for the engine."""
    who, what, instead = bugs.ENGINE[plot][bug]
    monkeypatch.setattr(who, what, instead)
    _is_found(valkey_db, plot, scripts(), bug)


def _is_found(client: redis.Redis, plot: str, loaded: dict[str, Script], bug: str) -> None:
    """Whether the stories of fifty seeds notice; those of other plots would not."""
    fitting = {plot, "mixed"} if plot == "alone" else {plot}
    mine = [seed for seed in range(50) if plot_of(seed) in fitting]
    mine.sort(key=lambda seed: seed != bugs.SHOWN_BY.get(bug))
    late = bugs.LATE.get(bug)
    stories = [(seed, 1000, None) for seed in mine] if late is None else [late]
    for seed, calls, pace in stories:
        try:
            run(story(client, seed, loaded, calls=calls, pace=pace))
        except FOUND:
            client.flushall()
            return
    pytest.fail("nothing was noticed in 50 seeds")
