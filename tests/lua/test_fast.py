"""What is decided at once is decided as everything else is, alone and in groups."""

from collections.abc import Iterator

import pytest
import redis
from histories import US, policies_of
from tests_support.scripts import POOL, Bench, scripts
from twins import Two, run, two_of

from limiter_service.engine.levels import left
from limiter_service.store.messages import Verdict

_HISTORIES = 25


@pytest.fixture
def two(db: redis.Redis) -> Iterator[Two]:
    """Two empty databases of one server."""
    yield from two_of(db)


@pytest.mark.timeout(300)
def test_two_stores_are_the_same_after_every_step(two: Two) -> None:
    """Groups, rows and single calls, repeats, conflicts, retries, other limits, learned and held
    ones, reloads, circuits that open, queues, clocks that step back: every answer and every
    byte that is stored. And much of it is really decided at once.
    """
    one, grouped, mixed, rowed = run(two), 0, 0, 0
    for seed in range(_HISTORIES):
        twins = one(seed)
        grouped, mixed = grouped + twins.grouped, mixed + twins.mixed
        rowed += twins.rowed
    assert grouped > 10 * _HISTORIES
    assert mixed > 5 * _HISTORIES
    assert rowed > 5 * _HISTORIES


@pytest.mark.parametrize("each", [1, 13, 14, 15])
def test_any_number_of_limits_is_decided_over(valkey_db: redis.Redis, each: int) -> None:
    """So many on each of four scopes: few of them at once, and many at length."""
    limits = "limits: [" + ", ".join(
        f"{{meter: tokens, limit: {10_000 + n}, per: {n + 1}h}}" for n in range(each)
    )
    chain = policies_of(
        f"""
        {limits}]
        models: {{m: {{{limits}]}}}}
        tenants: {{t: {{{limits}], models: {{m: {{{limits}]}}}}}}}}
        """
    ).policy(f"{POOL}/m", "t")
    assert len(chain.limits) == 4 * each
    bench = Bench(valkey_db, scripts())
    for nonce in range(3):
        request = {"print_": 1, "ttl": 60 * US, "remember": 60 * US}
        amounts = [100.0] * len(chain.limits)
        answer = bench.acquire(chain, f"r{nonce}", nonce=nonce, amounts=amounts, **request)
        assert answer.verdict is Verdict.DONE
        used = [40.0] * len(chain.limits)
        assert bench.settle(chain, f"r{nonce}", nonce, used, outcome=1).verdict is Verdict.DONE
    seen = zip(chain.limits, bench.snapshot(chain), strict=True)
    assert {limit.capacity - left(limit, level) for limit, level in seen} == {120}
