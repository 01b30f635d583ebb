"""A grant that nobody has fetched comes back in full, however short its lease."""

import pytest
import redis
from queue_histories import Direct, done
from tests_support.scripts import POOL, scripts

from limiter_service.config import parse
from limiter_service.engine.levels import read
from limiter_service.engine.policy import Policies
from limiter_service.store.commands import (
    Claim,
    Commands,
    QueueKeys,
    Served,
    ServeTerms,
    Terms,
    Verdict,
    Waiter,
)
from limiter_service.store.keys import Keys, chain_id, line_id, request_digest

CONFIG = f"""
pools:
  {POOL}:
    models:
      m: {{limits: [{{meter: tokens, limit: 100, per: 366d}}, {{meter: concurrency, limit: 1}}]}}
"""
PATIENCE = 5_000_000


@pytest.mark.parametrize("after", [1_000_000, PATIENCE, 60_000_000])
def test_what_nobody_has_fetched_comes_back(valkey_db: redis.Redis, after: int) -> None:
    """Before its lease of two seconds is over, and afterwards: the same request may be granted
    again, and would be charged twice.
    """
    direct, keys = Direct(valkey_db), Keys(POOL)
    commands = Commands(direct)  # type: ignore[arg-type]  # the method it needs
    commands._scripts = scripts()
    chain = Policies(parse(CONFIG, ".yaml"), "sg:").policy(f"{POOL}/m", "a").chain(0)
    queue, line = QueueKeys.of(keys), line_id("m", "a", 5)

    def claim(nonce: int) -> Claim:
        return Claim(nonce=nonce, fingerprint=1, ttl=2e6, remember=1e6, amounts=[30.0, 1.0])

    def left() -> float:
        reply = done(commands.snapshot(chain, 9.0))
        return read(reply.numbers, 2, 2)[0][0].cell[0]

    held = done(commands.acquire(chain, keys.lease("a", "first"), keys.queue(), claim(1)))
    assert held.verdict is Verdict.DONE
    waits = done(
        commands.enqueue(
            chain,
            keys.lease("a", "second"),
            queue,
            claim(2),
            Terms(
                max_wait=600e6, replica=1.0, step=1.0, cost=1.0, priority_class=0, share=0.0,
                period=1.0, most_waiters=100, keep=60_000, allowed=[-1, -1],
            ),
            Waiter(
                digest=request_digest("a", "second"), line=line, names=f"{POOL}/m\0a".encode()
            ),
        )
    )  # fmt: skip
    assert waits.verdict is Verdict.WAITS
    direct.now += 3_000_000  # the first lease is over, and keeps its tokens
    terms = ServeTerms(
        replica=1.0, most=9, grace=60e6, patience=PATIENCE, keep=60_000, room_again=b""
    )
    served: Served = done(commands.dispatch({chain_id("m", "a"): chain}, queue, 5.0, terms))
    assert served.unfetched == 1
    assert left() == pytest.approx(40, abs=0.01)
    direct.now += after
    digest, lease = request_digest("a", "second"), keys.lease("a", "")
    taken = done(commands.cancel(chain, lease, queue, 6.0, digest, let_go_of=None, keep=60_000))
    assert taken.verdict is Verdict.REPEATED
    assert left() == pytest.approx(70, abs=0.01)
