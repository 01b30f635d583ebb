"""A clock that has stepped back goes on from there, also while everybody is refused."""

import redis
from histories import Run, Step, policies_of
from queue_histories import Direct, done
from tests_support.scripts import POOL, Bench, scripts

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

_US = 1_000_000
_ONE_A_MINUTE = """
    models: {m: {limits: [{meter: requests, limit: 1, per: minute}]}}
"""


def test_whoever_is_refused_is_let_in_when_he_was_told(valkey_db: redis.Redis) -> None:
    """The clock steps back by an hour while a limit is exhausted, and nobody settles anything."""
    bench = Bench(valkey_db, scripts())
    policy = policies_of(_ONE_A_MINUTE).policy(f"{POOL}/m", "t")

    def ask(nonce: int) -> tuple[Verdict, int]:
        answer = bench.acquire(
            policy, f"r{nonce}", nonce=nonce, print_=1, ttl=_US, remember=_US, amounts=[1]
        )
        return answer.verdict, int(answer.numbers[1])

    assert ask(1)[0] is Verdict.DONE
    bench.now -= 3600 * _US
    verdict, wait = ask(2)
    assert (verdict, wait) == (Verdict.DENIED, 60 * _US)
    bench.now += wait
    assert ask(3)[0] is Verdict.DONE


def test_a_calendar_that_was_set_aside_takes_up_the_window_of_today(
    valkey_db: redis.Redis,
) -> None:
    """A minute is exhausted, another configuration comes, the clock goes back by 90 s, and the
    first configuration comes again: the minute that is counted then ends in 10 s.
    """
    history = Run(valkey_db, scripts(), 2)
    for kind, who, amount, time in (
        ("acquire", 1, 119, 0),
        ("reload", 0, 0, 0),
        ("tick", 0, 0, -90 * _US),
        ("acquire", 1, 1, 0),
        ("reload", 2, 0, 0),
        ("acquire", 1, 101, 0),
    ):
        history.step(Step(kind, who, amount, time))
    policy = history.policy(1)
    answer = history.bench.acquire(
        policy, "last", nonce=1, print_=1, ttl=_US, remember=_US, amounts=[101, 1, 101]
    )
    assert (answer.verdict, answer.numbers[1]) == (Verdict.DENIED, 10 * _US)


def test_a_pass_sees_that_the_clock_has_stepped_back(valkey_db: redis.Redis) -> None:
    """Whoever waits is served when it fits, though nobody asks meanwhile."""
    direct, keys = Direct(valkey_db), Keys(POOL)
    commands = Commands(direct)  # type: ignore[arg-type]  # what it needs
    commands._scripts = scripts()
    chain = policies_of(_ONE_A_MINUTE).policy(f"{POOL}/m", "t").chain(0)
    queue = QueueKeys.of(keys)

    def claim(nonce: int) -> Claim:
        return Claim(nonce=nonce, fingerprint=1, ttl=_US, remember=_US, amounts=[1.0])

    held = done(commands.acquire(chain, keys.lease("t", "a"), keys.queue(), claim(1)))
    assert held.verdict is Verdict.DONE
    terms = Terms(
        max_wait=600e6, replica=1.0, step=1.0, cost=1.0, priority_class=0, share=0.0,
        period=1.0, most_waiters=100, keep=60_000, allowed=[-1],
    )  # fmt: skip
    waiter = Waiter(
        digest=request_digest("t", "b"), line=line_id("m", "t", 5), names=f"{POOL}/m\0t".encode()
    )
    waits = done(commands.enqueue(chain, keys.lease("t", "b"), queue, claim(2), terms, waiter))
    assert waits.verdict is Verdict.WAITS

    def granted() -> int:
        serving = ServeTerms(
            replica=1.0, most=9, grace=600e6, patience=5e6, keep=60_000, room_again=b""
        )
        served = done(commands.dispatch({chain_id("m", "t"): chain}, queue, 5.0, serving))
        assert isinstance(served, Served)
        return served.granted

    direct.now -= 300 * _US
    assert granted() == 0
    direct.now += 60 * _US
    assert granted() == 1
