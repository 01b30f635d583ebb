"""Properties of single scripts that random histories do not reach."""

import struct

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_support.scripts import CLOCK, POOL, START, Bench, scripts

from limiter_service.config import parse
from limiter_service.engine.levels import left
from limiter_service.engine.policy import Policies, Policy
from limiter_service.store.messages import Verdict
from limiter_service.store.scripts import load

US = 1_000_000


def policy(models: str, pool: str = "") -> Policy:
    """The chain of one model."""
    text = f"pools:\n  {POOL}:\n{pool}    models: {{m: {models}}}\n"
    return Policies(parse(text, ".yaml"), "sg:").policy(f"{POOL}/m", "default")


def take(bench: Bench, chain: Policy, request: str, *amounts: int) -> Verdict:
    """Acquire with a minute to live and return the verdict."""
    answer = bench.acquire(
        chain, request, nonce=1, print_=1, ttl=60 * US, remember=60 * US, amounts=amounts
    )
    return answer.verdict


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    limit=st.integers(1, 10**7),
    per=st.sampled_from(["second", "minute", "hour", "day", "7s", "0.3s"]),
    share=st.integers(1, 100),
    past=st.integers(0, 10**10),
)
def test_a_bucket_keeps_its_word_at_any_rate(
    valkey_db: redis.Redis, limit: int, per: str, share: int, past: int
) -> None:
    """What is refused with a wait is granted exactly when that wait is over."""
    valkey_db.flushall()
    chain = policy(f"{{limits: [{{meter: tokens, limit: {limit}, per: {per}}}]}}")
    bench = Bench(valkey_db, scripts())
    amount = max(1, limit * share // 100)
    assert take(bench, chain, "first", limit) is Verdict.DONE
    bench.now += past
    answer = bench.check(chain, [amount])
    if answer.verdict is Verdict.DENIED:
        bench.now += int(answer.numbers[1])
        assert take(bench, chain, "second", amount) is Verdict.DONE


@pytest.mark.parametrize("burst", [1, 10**9])
def test_a_debt_that_lasts_for_ages_is_kept(db: redis.Redis, burst: int) -> None:
    """No server takes an expiry of millions of years; the state must be written all the same."""
    limits = f"[{{meter: tokens, limit: 1, per: 366d, burst: {burst}}}]"
    bench, chain = Bench(db, scripts()), policy(f"{{limits: {limits}}}")
    assert take(bench, chain, "first", burst) is Verdict.DONE
    settled = bench.settle(chain, "first", 1, [1e12])
    assert settled.verdict is Verdict.DONE
    assert take(bench, chain, "second", 1) is Verdict.DENIED
    assert bench.keeps_for(chain.chain(bench.now).scopes[0]) > 100 * 365 * 86_400 * US


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 60)), min_size=20, max_size=60),
    st.integers(0, 10**6),
)
def test_no_period_of_a_sliding_window_exceeds_its_limit(
    valkey_db: redis.Redis, arrivals: list[tuple[int, int]], offset: int
) -> None:
    """Whatever the sizes and times: 1.00x of the limit in every period, to the token."""
    valkey_db.flushall()
    chain = policy("{limits: [{meter: tokens, limit: 100, per: second, window: sliding}]}")
    bench = Bench(valkey_db, scripts())
    bench.now += offset
    granted: list[tuple[int, int]] = []
    for i, (gap, amount) in enumerate(arrivals):
        bench.now += gap
        if take(bench, chain, str(i), amount) is Verdict.DONE:
            granted.append((bench.now, amount))
    for end, _ in granted:
        assert sum(a for at, a in granted if end - US < at <= end) <= 100


def test_stale_boundaries_are_reported_and_nothing_is_written(valkey_db: redis.Redis) -> None:
    """A service whose clock is in another window is told the server's time."""
    chain = policy("{limits: [{meter: tokens, limit: 100, per: minute, window: calendar}]}")
    bench = Bench(valkey_db, scripts())
    chain.chain(START)
    for moved in (-3600 * US, 3600 * US):
        bench.now = START + moved
        chain.template._valid = 0, 2 * START  # computed by a wrong clock
        answer = bench.acquire(chain, "r", nonce=1, print_=1, ttl=US, remember=US, amounts=[1])
        assert answer.verdict is Verdict.STALE
        assert answer.numbers[0] == START + moved
        assert bench.dump() == {}


def test_state_stays_as_large_as_it_was(valkey_db: redis.Redis) -> None:
    """A thousand grants later a scope takes not a byte more."""
    chain = policy(
        "{rpm: 100000000, tpm: 100000000, rpd: 100000000,"
        " limits: [{meter: tokens, limit: 1000000, per: 10s, window: sliding}]}"
    )
    bench = Bench(valkey_db, scripts())
    key = chain.chain(START).scopes[0]
    sizes = set()
    for i in range(1000):
        assert take(bench, chain, str(i), 1, 1, 17, 17) is Verdict.DONE
        bench.now += 12_345
        sizes.add(valkey_db.strlen(key))
    assert len(sizes) == 1


def test_replicas_with_different_files_keep_each_others_limits(valkey_db: redis.Redis) -> None:
    """While a changed file spreads, a limit that one replica lacks still counts at the other."""
    old = policy("{rpm: 1000}")
    new = policy(
        "{rpm: 1000, limits: [{name: added, meter: requests, limit: 5, per: day},"
        " {name: ring, meter: requests, limit: 6, per: hour, window: sliding}]}"
    )
    bench = Bench(valkey_db, scripts())
    granted = 0
    for i in range(40):
        bench.now += 1000
        assert take(bench, old, f"old{i}", 1) is Verdict.DONE
        granted += take(bench, new, f"new{i}", 1, 1, 1) is Verdict.DONE
    assert granted == 5
    key = old.chain(START).scopes[0]
    size = valkey_db.strlen(key)
    for i in range(40):
        assert take(bench, old, f"more{i}", 1) is Verdict.DONE
    assert valkey_db.strlen(key) == size
    bench.now += 2 * 86_400 * US  # nobody has asked for it in two days
    third = policy("{rpm: 1000, tpm: 1000}")
    assert take(bench, old, "late", 1) is Verdict.DONE
    assert take(bench, third, "third", 1, 1) is Verdict.DONE
    assert valkey_db.strlen(key) < size + 40


def test_cold_start_fills_a_part_of_what_has_no_state(valkey_db: redis.Redis) -> None:
    """`cold_start: 0.5` begins every window half spent, and keeps an idle one for a day."""
    chain = policy(
        "{limits: [{meter: tokens, limit: 100, per: hour},"
        " {name: s, meter: tokens, limit: 100, per: hour, window: sliding},"
        " {name: c, meter: tokens, limit: 100, per: hour, window: calendar}]}",
        "    cold_start: 0.5\n",
    )
    bench = Bench(valkey_db, scripts())
    levels = bench.snapshot(chain)
    found = [left(limit, level) for limit, level in zip(chain.limits, levels, strict=True)]
    assert found == [50, 50, 50]
    assert take(bench, chain, "r", 50, 50, 50) is Verdict.DONE
    assert bench.keeps_for(chain.chain(START).scopes[0]) > 23 * 3600 * US


def test_a_refund_is_void_when_its_slot_has_left_a_window(valkey_db: redis.Redis) -> None:
    """Also where another slot stands in its place in the ring."""
    chain = policy("{limits: [{meter: tokens, limit: 100, per: 45s, window: sliding}]}")
    bench = Bench(valkey_db, scripts())
    assert take(bench, chain, "first", 10) is Verdict.DONE
    bench.now += 91 * US // 2
    assert take(bench, chain, "second", 20) is Verdict.DONE
    assert bench.settle(chain, "first", 1, [0]).verdict is Verdict.DONE
    (level,) = bench.snapshot(chain)
    assert left(chain.limits[0], level) == 80


def test_a_limit_that_starts_empty_fills_while_it_refuses(valkey_db: redis.Redis) -> None:
    """`cold_start: 0` begins with the first question, not anew with each."""
    chain = policy("{limits: [{meter: tokens, limit: 60, per: minute}]}", "    cold_start: 0\n")
    bench = Bench(valkey_db, scripts())
    for second in range(10):
        assert take(bench, chain, f"r{second}", 10) is Verdict.DENIED
        bench.now += US
    assert take(bench, chain, "last", 10) is Verdict.DONE


def test_the_real_clock_is_the_servers(valkey_db: redis.Redis) -> None:
    """Without the tests' clock, a snapshot answers with the server's TIME."""
    chain = policy("{rpm: 5}").chain(START)
    script = load("snapshot")
    before = valkey_db.time()
    arguments = (*chain.policies, chain.breaker, struct.pack("<d", 3))
    answer = valkey_db.eval(script.text, len(chain.keys), *chain.keys, *arguments)
    after = valkey_db.time()
    (now,) = struct.unpack("<d", answer[9:17])
    assert before[0] * US + before[1] <= now <= after[0] * US + after[1]


def test_a_lease_expires_by_the_clock_and_its_key_with_it(valkey_db: redis.Redis) -> None:
    """Every key of a pool is kept for a bounded time."""
    chain = policy("{tpm: 100, concurrency: 2}")
    bench = Bench(valkey_db, scripts())
    assert take(bench, chain, "r", 10, 1) is Verdict.DONE
    for key in valkey_db.scan_iter():
        assert valkey_db.pttl(key) > 0, f"{key!r} would live for ever"
    lease = bench.keys.lease("default", "r")
    assert 119_000 < valkey_db.pttl(lease) <= 120_000
    assert valkey_db.exists(CLOCK)


@pytest.mark.parametrize("name", ["acquire", "settle", "renew", "check", "snapshot"])
def test_scripts_leave_no_global_behind(valkey_db: redis.Redis, name: str) -> None:
    """A script compiles, and its text declares every name that it sets."""
    assert valkey_db.script_load(load(name).text) == load(name).sha


def test_a_constant_stands_for_one_number() -> None:
    """Where two parts of a script mean different things by a name, one would be wrong unseen."""
    assert "return 7" in load("x", {"x": "local KEPT = 7\nlocal KEPT = 7\nreturn KEPT"}).text
    with pytest.raises(ValueError, match="KEPT stands for 7 and for 8"):
        load("x", {"x": "local KEPT = 7\nlocal KEPT = 8\nreturn KEPT"})
