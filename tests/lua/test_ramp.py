"""A ramp over time: how fast use grows, and what happens to it in pauses."""

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_support.scripts import POOL, Bench, scripts

from limiter_service.config import parse
from limiter_service.engine.levels import allowance, left, used_in_period
from limiter_service.engine.policy import Policies, Policy
from limiter_service.store.messages import Verdict

US = 1_000_000
SLOT = US // 2  # of a period of 10 s
LATER = 21 * SLOT  # what was used is of the period before


def policy(ramp: str = "{start: 10, factor: 2, period: 10s}") -> Policy:
    """A large limit with a ramp."""
    limit = f"{{name: tpm, meter: tokens, limit: 1000000, per: minute, ramp: {ramp}}}"
    text = f"pools:\n  {POOL}:\n    models: {{m: {{limits: [{limit}]}}}}\n"
    return Policies(parse(text, ".yaml"), "sg:").policy(f"{POOL}/m", "default")


class Traffic:
    """Calls on one model, each of so many tokens."""

    def __init__(self, client: redis.Redis, chain: Policy) -> None:
        client.flushall()
        self.bench, self.chain, self.calls = Bench(client, scripts()), chain, 0
        self.granted: list[tuple[int, int]] = []

    def take(self, amount: int) -> bool:
        """Whether a call is granted."""
        self.calls += 1
        answer = self.bench.acquire(
            self.chain,
            str(self.calls),
            nonce=self.calls,
            print_=1,
            ttl=600 * US,
            remember=60 * US,
            amounts=[amount, amount],
        )
        granted = answer.verdict is Verdict.DONE
        if granted:
            self.granted.append((self.bench.now, amount))
        return granted

    def flood(self, amount: int = 1) -> int:
        """How much is granted now when everybody wants more."""
        most = 0
        while self.take(amount):
            most += amount
        return most

    def wait(self, amount: int) -> int:
        """What a refusal says, in microseconds."""
        answer = self.bench.check(self.chain, [amount, amount])
        return 0 if answer.verdict is Verdict.DONE else int(answer.numbers[1])


def test_use_grows_by_the_factor_in_each_period(valkey_db: redis.Redis) -> None:
    """From the start on, while everybody wants more than there is."""
    traffic = Traffic(valkey_db, policy())
    waves = []
    for _ in range(5):
        waves.append(traffic.flood())
        assert traffic.wait(1) == LATER - traffic.bench.now % SLOT
        traffic.bench.now += traffic.wait(1)
    assert waves == [10, 20, 40, 80, 160]


def test_an_edge_between_two_periods_is_nowhere(valkey_db: redis.Redis) -> None:
    """What was used a moment ago counts in the present period, whenever that was."""
    traffic = Traffic(valkey_db, policy())
    for _ in range(3):
        traffic.bench.now += 20 * SLOT - 1 - traffic.bench.now % (20 * SLOT)
        traffic.bench.now += 1000 * SLOT
        assert traffic.flood() == 10
        traffic.bench.now += 2
        assert traffic.flood() == 0


def test_steady_use_goes_on(valkey_db: redis.Redis) -> None:
    """Whoever does not grow is never refused, also where hardly any growth is allowed."""
    traffic = Traffic(valkey_db, policy("{start: 40, factor: 1.25, period: 10s}"))
    granted = []
    for _ in range(400):
        granted.append(sum(traffic.take(2) for _ in range(4)))
        traffic.bench.now += SLOT
    assert sum(granted[:40]) <= 80
    assert granted[-50:] == [4] * 50


def test_a_pause_ends_what_was_reached(valkey_db: redis.Redis) -> None:
    """After two periods of nothing a ramp is where it starts."""
    traffic = Traffic(valkey_db, policy())
    for _ in range(4):
        traffic.flood()
        traffic.bench.now += traffic.wait(1)
    traffic.bench.now += 42 * SLOT
    assert traffic.flood() == 10


@pytest.mark.parametrize("amount", [11, 500])
def test_an_amount_above_the_allowance_passes_alone(valkey_db: redis.Redis, amount: int) -> None:
    """It waits until nothing was used for a period, and is what the next one grows from."""
    traffic = Traffic(valkey_db, policy())
    traffic.bench.now -= traffic.bench.now % SLOT
    assert traffic.take(1)
    assert traffic.wait(amount) == LATER
    traffic.bench.now += LATER - 1
    assert not traffic.take(amount)
    traffic.bench.now += 1
    assert traffic.take(amount)
    assert not traffic.take(1)
    traffic.bench.now += LATER
    assert traffic.flood() == 2 * amount


def test_a_clock_that_steps_back_gives_no_credit(valkey_db: redis.Redis) -> None:
    """Neither is what was used forgotten, nor is the ramp longer than it was."""
    traffic = Traffic(valkey_db, policy())
    assert traffic.flood() == 10
    traffic.bench.now -= 3600 * US
    assert traffic.flood() == 0
    assert traffic.take(0)  # a write adopts the clock
    assert traffic.wait(1) <= LATER
    traffic.bench.now += traffic.wait(1)
    assert traffic.flood() == 20


def test_what_comes_back_was_not_used(valkey_db: redis.Redis) -> None:
    """A refund makes room in its period, and lowers what the next one grows from."""
    traffic = Traffic(valkey_db, policy())
    assert traffic.take(10)
    assert traffic.bench.settle(traffic.chain, "1", 1, [4, 4]).verdict is Verdict.DONE
    assert traffic.flood() == 6
    traffic.bench.now += LATER
    assert traffic.bench.settle(traffic.chain, "2", 2, [0, 0]).verdict is Verdict.DONE
    assert traffic.flood() == 18


def test_levels_say_what_is_allowed_at_present(valkey_db: redis.Redis) -> None:
    """And what of it was used."""
    traffic = Traffic(valkey_db, policy())
    traffic.flood()
    traffic.bench.now += LATER
    assert traffic.take(7)
    _, level = traffic.bench.snapshot(traffic.chain)
    ramp = traffic.chain.limits[1]
    assert ramp.name == "m.tpm.ramp"
    assert (allowance(ramp, level), used_in_period(level), left(ramp, level)) == (20, 7, 13)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 6 * US), st.integers(1, 25)), min_size=20, max_size=50),
    st.sampled_from([1.25, 1.5, 2.0, 4.0]),
    st.integers(0, 10 * US),
)
def test_no_period_uses_more_than_the_one_before_allows(
    valkey_db: redis.Redis, arrivals: list[tuple[int, int]], factor: float, offset: int
) -> None:
    """Wherever a period begins, to the microsecond, where the one before is a tenth longer; but
    for an amount that is alone in it.
    """
    traffic = Traffic(valkey_db, policy(f"{{start: 20, factor: {factor}, period: 10s}}"))
    traffic.bench.now += offset
    for gap, amount in arrivals:
        traffic.bench.now += gap
        traffic.take(amount)
    for end, amount in traffic.granted:
        present = [a for at, a in traffic.granted if end - 20 * SLOT < at <= end]
        before = [a for at, a in traffic.granted if end - 42 * SLOT < at <= end - 20 * SLOT]
        assert sum(present) <= max(20, factor * sum(before)) or present == [amount]
