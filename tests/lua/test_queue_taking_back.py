"""A grant that nobody has fetched comes back in full, however short its lease."""

import pytest
import redis
from queue_histories import Direct, done
from tests_support.scripts import POOL, scripts

from limiter_service.config import parse
from limiter_service.engine.levels import read
from limiter_service.engine.policy import Policies
from limiter_service.store.commands import Commands
from limiter_service.store.keys import Keys, chain_id, line_id, request_digest
from limiter_service.store.messages import (
    Claim,
    QueueKeys,
    Served,
    ServeTerms,
    Terms,
    Verdict,
    Waiter,
)

CONFIG = f"""
pools:
  {POOL}:
    models:
      m: {{limits: [{{meter: tokens, limit: 100, per: 366d}}, {{meter: concurrency, limit: 1}}]}}
"""
PATIENCE = 5_000_000


class Waited:
    """A request whose turn has come, and which nobody fetches."""

    def __init__(self, client: redis.Redis) -> None:
        self.direct, self.keys = Direct(client), Keys(POOL)
        self.commands = commands = Commands(self.direct)  # type: ignore[arg-type]  # what it needs
        commands._scripts = scripts()
        self.chain = Policies(parse(CONFIG, ".yaml"), "sg:").policy(f"{POOL}/m", "a").chain(0)
        self.queue = QueueKeys.of(self.keys)

        def claim(nonce: int) -> Claim:
            return Claim(nonce=nonce, fingerprint=1, ttl=2e6, remember=1e6, amounts=[30.0, 1.0])

        chain, keys = self.chain, self.keys
        held = done(commands.acquire(chain, keys.lease("a", "first"), keys.queue(), claim(1)))
        assert held.verdict is Verdict.DONE
        waits = done(
            commands.enqueue(
                chain,
                keys.lease("a", "second"),
                self.queue,
                claim(2),
                Terms(
                    max_wait=600e6, replica=1.0, step=1.0, cost=1.0, priority_class=0, share=0.0,
                    period=1.0, most_waiters=100, keep=60_000, allowed=[-1, -1],
                ),
                Waiter(
                    digest=request_digest("a", "second"),
                    line=line_id("m", "a", 5),
                    names=f"{POOL}/m\0a".encode(),
                ),
            )
        )  # fmt: skip
        assert waits.verdict is Verdict.WAITS
        self.direct.now += 3_000_000  # the first lease is over, and keeps its tokens
        assert self.serve().unfetched == 1
        assert self.left() == pytest.approx(40, abs=0.01)

    def serve(self) -> Served:
        """One pass."""
        terms = ServeTerms(
            replica=1.0, most=9, grace=60e6, patience=PATIENCE, keep=60_000, room_again=b""
        )
        chains = {chain_id("m", "a"): self.chain}
        served = done(self.commands.dispatch(chains, self.queue, 5.0, terms))
        assert isinstance(served, Served)
        return served

    def left(self) -> float:
        """Tokens that are left."""
        return read(done(self.commands.snapshot(self.chain, 9.0)).numbers, 2, 2)[0][0].cell[0]

    def take_back(self) -> Verdict:
        """What whoever finds the grant overdue does."""
        digest, lease = request_digest("a", "second"), self.keys.lease("a", "")
        taken = done(
            self.commands.cancel(
                self.chain, lease, self.queue, 6.0, digest, let_go_of=None, keep=60_000
            )
        )
        return Verdict(taken.verdict)


@pytest.mark.parametrize("after", [1_000_000, PATIENCE, 60_000_000])
def test_what_nobody_has_fetched_comes_back(valkey_db: redis.Redis, after: int) -> None:
    """Before its lease of two seconds is over, and afterwards: the same request may be granted
    again, and would be charged twice.
    """
    waited = Waited(valkey_db)
    waited.direct.now += after
    assert waited.take_back() is Verdict.REPEATED
    assert waited.left() == pytest.approx(70, abs=0.01)


def test_a_clock_that_steps_back_keeps_nothing_that_nobody_has_fetched(
    valkey_db: redis.Redis,
) -> None:
    """It is overdue when its time is over by the clock that there is now, not an hour later."""
    waited = Waited(valkey_db)
    waited.direct.now -= 3_600_000_000
    assert waited.serve().overdue == []
    waited.direct.now += PATIENCE
    ((digest, _),) = waited.serve().overdue
    assert digest == request_digest("a", "second")
    assert waited.take_back() is Verdict.REPEATED
    assert waited.left() == pytest.approx(70, abs=0.01)
