"""Blocks in the scripts: random histories against sums that are kept beside them, and faults that
these find.
"""

import random
from collections.abc import Mapping

import msgspec
import pytest
import redis
from tests_support.scripts import POOL, Bench, scripts

from limiter_service.config import parse
from limiter_service.engine.levels import left
from limiter_service.engine.policy import Policies, Policy
from limiter_service.store.messages import Verdict
from limiter_service.store.scripts import part

US = 1_000_000
CALLS, TOKENS = 1000, 50_000
SHARE = 0.2
HOLD = 10 * US
CONFIG = f"""
pools:
  {POOL}:
    breaker: {{enabled: false}}
    models:
      m:
        limits:
          - {{name: calls, meter: requests, limit: {CALLS}, per: 366d, window: calendar-or-bucket}}
          - {{name: budget, meter: tokens, limit: {TOKENS}, per: 366d}}
"""


def policy(window: str) -> Policy:
    """Requests in some window, tokens in a bucket."""
    more = {"bucket": "per: 366d", "sliding": "per: 366d, window: sliding"}
    day = {"calendar": "per: day, window: calendar"}
    text = CONFIG.replace("per: 366d, window: calendar-or-bucket", (more | day)[window], 1)
    return Policies(parse(text, ".yaml"), "sg:").policy(f"{POOL}/m", "default")


class _Lease(msgspec.Struct):
    """A block, or an ordinary lease, as the model knows it."""

    nonce: int
    calls: int
    tokens: int
    until: int = 0
    number: int = 0
    block: bool = True
    ended: bool = False


class History:
    """Lends, repays, repeats and ordinary acquires in any order. What the limits have left must be
    what the model says after each step, and blocks must hold no more than their share.
    """

    def __init__(self, client: redis.Redis, chain: Policy, faults: Mapping[str, str]) -> None:
        client.flushall()
        self.client = client
        self.bench, self.chain = Bench(client, scripts(faults)), chain
        self.leases: dict[str, _Lease] = {}
        self.waits = False

    def terms(self, asked: int, size: int) -> list[float]:
        """What lend.lua is told."""
        return [asked, 2, HOLD, size, 1, SHARE * CALLS, 2, SHARE * TOKENS]

    def held(self) -> tuple[int, int]:
        """Calls and tokens of blocks that are held, by the model."""
        live = [x for x in self.leases.values() if x.block and x.until > self.bench.now]
        return sum(x.calls for x in live), sum(x.tokens for x in live)

    def charged(self) -> tuple[int, int]:
        """What is charged in all."""
        every = self.leases.values()
        return sum(x.calls for x in every), sum(x.tokens for x in every)

    def check(self) -> None:
        """The store agrees with the model."""
        calls, tokens = self.charged()
        levels = self.bench.snapshot(self.chain)
        found = [left(limit, level) for limit, level in zip(self.chain.limits, levels, strict=True)]
        assert found[0] == pytest.approx(CALLS - calls, abs=0.5)
        assert found[1] == pytest.approx(TOKENS - tokens, abs=0.5)
        assert self.bench.held() == self.held()
        assert self.held()[0] <= SHARE * CALLS
        assert self.held()[1] <= SHARE * TOKENS

    def lend(self, name: str, asked: int, size: int) -> None:
        """Ask for a block."""
        nonce = len(self.leases) + 1
        held, charged = self.held(), self.charged()
        fits = min(asked, int(SHARE * CALLS - held[0]), int((SHARE * TOKENS - held[1]) / size))
        answer = self.bench.lend(
            self.chain, name, nonce=nonce, amounts=[1, size], terms=self.terms(asked, size)
        )
        known = self.leases.get(name)
        if known is not None:
            assert answer.verdict is Verdict.REPEATED
            assert answer.numbers[0] == known.nonce
        elif self.waits:
            assert answer.verdict is Verdict.QUEUED
        elif fits < 2:
            assert answer.verdict is Verdict.FULL
        elif charged[0] + fits > CALLS or charged[1] + fits * size > TOKENS:
            assert answer.verdict is Verdict.DENIED
        else:
            assert answer.verdict is Verdict.DONE
            assert answer.numbers[4] == fits * 65_536
            until = self.bench.now + HOLD
            self.leases[name] = _Lease(nonce, fits, fits * size, until)

    def acquire(self, name: str, size: int) -> None:
        """Take one ordinary lease."""
        nonce = len(self.leases) + 1
        charged = self.charged()
        answer = self.bench.acquire(
            self.chain, name, nonce=nonce, print_=1, ttl=600 * US, remember=US, amounts=[1, size]
        )
        if self.waits:
            assert answer.verdict is Verdict.QUEUED
        elif charged[0] + 1 > CALLS or charged[1] + size > TOKENS:
            assert answer.verdict is Verdict.DENIED
        else:
            assert answer.verdict is Verdict.DONE
            self.leases[name] = _Lease(nonce, 1, size, block=False)

    def repay(self, name: str, stage: int, share: float, *, again: bool) -> None:
        """Report on a block, or repeat the last report on it."""
        lease = self.leases[name]
        number = lease.number if again and lease.number else lease.number + 1
        calls, tokens = int(lease.calls * share), int(lease.tokens * share)
        stay = [-1, -1] if stage == 0 else [calls, tokens]
        answer = self.bench.repay(self.chain, name, [lease.nonce, number, stage, *stay])
        if lease.ended:
            assert answer.verdict is Verdict.ALREADY
        elif number == lease.number:
            assert answer.verdict is Verdict.REPEATED
        else:
            expected = {Verdict.DONE_WHILE_OTHERS_WAIT} if self.waits else {Verdict.DONE}
            assert answer.verdict in expected
            lease.number, lease.ended = number, stage == 2
            if stage:
                lease.calls, lease.tokens, lease.until = calls, tokens, 0

    def step(self, rng: random.Random) -> None:
        """Something happens."""
        blocks = [name for name, lease in self.leases.items() if lease.block]
        match rng.choice(["lend", "lend", "repay", "repay", "acquire", "wait", "queue"]):
            case "lend":
                again = blocks and rng.random() < 0.2
                name = rng.choice(blocks) if again else f"r{len(self.leases)}"
                self.lend(name, rng.randint(2, 300), rng.randint(1, 200))
            case "repay" if blocks:
                again = rng.random() < 0.3
                self.repay(rng.choice(blocks), rng.randint(0, 2), rng.random(), again=again)
            case "acquire":
                self.acquire(f"r{len(self.leases)}", rng.randint(1, 2000))
            case "wait":
                self.bench.now += rng.randint(0, 6 * US)
            case "queue" if rng.random() < 0.3:
                self.waits = not self.waits
                if self.waits:
                    self.client.set(self.bench.keys.queue(), "somebody", ex=600)
                else:
                    self.client.delete(self.bench.keys.queue())
            case _:
                pass
        self.check()


def run(client: redis.Redis, chain: Policy, faults: Mapping[str, str]) -> None:
    """A dozen histories of sixty steps."""
    for seed in range(12):
        rng = random.Random(seed)
        history = History(client, chain, faults)
        for _ in range(60):
            history.step(rng)


@pytest.mark.parametrize("window", ["bucket", "sliding", "calendar"])
def test_what_is_lent_and_repaid_is_what_the_sums_say(db: redis.Redis, window: str) -> None:
    """In every window, with repeats, expiry, waiters and other leases between."""
    run(db, policy(window), {})


def test_a_clock_that_steps_back_holds_no_block_for_longer(db: redis.Redis) -> None:
    """Whoever asks for a block next sees to it, also when none is lent; not to less than `hold`,
    for the holder has its own clock.
    """
    history = History(db, policy("bucket"), {})
    bench = history.bench
    history.lend("first", 200, 1)
    bench.now -= 60 * US
    assert history.held() == bench.held() == (200, 200)
    history.lend("second", 2, 1)  # full
    bench.now += HOLD - 1
    assert bench.held() == (200, 200)
    bench.now += 1
    assert bench.held() == (0, 0)


FAULTS = {
    "lent while somebody waits": ("lend", "elseif texts[#KEYS - 1] then", "elseif false then"),
    "lent beyond the share": ("lend", "(most - (held[name] or 0))", "most"),
    "lent twice to one request": ("lend", "if known then", "if false then"),
    "charged for one call only": ("lend", "ask[i] = ask[i] * calls", "ask[i] = ask[i] * 1"),
    "not written down": ("lend", "\nsave_blocks(KEYS[#KEYS], live, wall)", "\n"),
    "held after its time": ("lib/blocks", "all[at + HELD_UNTIL] > wall and", "true and"),
    "held after it is given back": ("lib/blocks", "and all[at] ~= nonce then", "then"),
    "a report counts twice": ("repay", "lease[WAITED] % REPORTS >= report[3]", "false"),
    "nothing comes back": ("repay", "report[i] - charged, lease", "0, lease"),
    "settled twice": ("lib/holding", 'return nil, "A" .. text', "local _ = text"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(valkey_db: redis.Redis, fault: str) -> None:
    """Each of these mistakes shows in a history."""
    name, right, wrong = FAULTS[fault]
    text = part(name)
    assert text.count(right) == 1
    with pytest.raises((AssertionError, redis.ResponseError)):
        run(valkey_db, policy("bucket"), {name: text.replace(right, wrong)})
