"""Real servers, services and workers are broken under load, and every book agrees afterwards.

No limit is passed, nobody is debited twice, everybody is told what happened and nothing else,
every lease and every wait ends. What a failover loses and what a clock skips is counted, and is
the only slack. `benchmarks/faults.py` does the same for as long as one likes.
"""

from pathlib import Path

import pytest
from tests_support.servers import valkey_binary
from tests_support.trial.attempts import attempt
from tests_support.trial.scene import Outcome, lost_replies
from tests_support.trial.stores import Standalone

from limiter_service.store.scripts import part

pytestmark = pytest.mark.timeout(600)


def sound(outcome: Outcome) -> None:
    """Nothing is wrong, and there was something to look at."""
    assert outcome.found.violations == []
    assert outcome.connections == 0
    assert outcome.found.twice == 0
    assert outcome.found.settles > 50


def test_one_valkey_its_clock_and_the_ways_to_it(ways_and_clock: Outcome) -> None:
    """Killed, stopped, cut off, stepped: what it has acknowledged it still knows."""
    sound(ways_and_clock)
    assert ways_and_clock.found.lost_acknowledged == 0
    assert ways_and_clock.found.repeats > 0


def test_one_redis_its_services_and_workers(tmp_path: Path) -> None:
    """Killed, stopped, cut off, not heard."""
    faults = (
        "store slow", "store cuts connections", "way to the service cut",
        "answers of the service lost", "partition from the service", "service stopped",
        "service killed", "worker killed",
    )  # fmt: skip
    outcome = attempt(tmp_path, "standalone", "redis", *faults)
    sound(outcome)
    assert outcome.found.lost_acknowledged == 0


def test_a_failover_of_sentinels_loses_what_is_counted(tmp_path: Path) -> None:
    """The primary dies with what its replicas have not heard of, or is cut off from them and from
    the sentinels and goes on beside its heir; the next one's clock is behind.
    """
    faults = ("primary killed", "scripts forgotten", "primary cut off from its like")
    outcome = attempt(tmp_path, "sentinel", "redis", *faults)
    sound(outcome)
    assert outcome.found.lost > 0


def test_a_cluster_whose_slot_moves_and_whose_master_dies_or_is_alone(tmp_path: Path) -> None:
    """Redirected, refused for a while, promoted: the books go along, less what nobody had heard."""
    faults = ("slot moved", "master killed", "master cut off from its like")
    outcome = attempt(tmp_path, "cluster", "valkey", *faults)
    sound(outcome)
    assert outcome.found.lost > 0


def test_blocks_of_workers_that_are_killed_and_calls_that_are_decided_together(
    tmp_path: Path,
) -> None:
    """What was handed out was charged, and nothing is held in the end; many are one call, and
    its answer is lost.
    """
    faults = ("worker killed", "store killed", "replies of the store lost")
    outcome = attempt(tmp_path, "standalone", "valkey", *faults, plot="blocks")
    sound(outcome)
    assert outcome.found.blocks > 0
    assert outcome.found.handed > 0
    assert outcome.found.grouped > 0


def test_services_without_their_store_grant_no_more_than_the_limit(tmp_path: Path) -> None:
    """All lose it together: by their shares, which are charged afterwards, each once."""
    faults = ("store killed", "store stopped")
    outcome = attempt(tmp_path, "standalone", "valkey", *faults, plot="degrade")
    sound(outcome)
    assert outcome.found.alone > 0
    assert outcome.found.uncharged == 0


def test_a_slip_in_the_scripts_is_seen(tmp_path: Path) -> None:
    """Replies are lost, and a retry charges again: the judge says so."""
    known, slips = "\nif known then\n", {}
    for name in ("lib/acquire_known", "enqueue"):  # who meets a queue asks the second one
        assert part(name).count(known) == 1, "the slip no longer fits the script"
        slips[name] = part(name).replace(known, "\nif false then\n")
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    for name in ("s", "w"):
        (tmp_path / name).mkdir()
    with Standalone(binary, tmp_path / "s", 2) as stores:
        outcome = lost_replies(stores, tmp_path / "w", seed=2, lost=30, slips=slips)
    assert outcome.found.twice > 0
    assert any("granted twice" in text for text in outcome.found.violations)
