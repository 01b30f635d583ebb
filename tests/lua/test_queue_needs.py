"""What enqueue says of the need before a waiter: now, and at most."""

from collections.abc import Sequence

import pytest
import redis
from queue_histories import Direct, done
from tests_support.scripts import POOL, scripts

from limiter_service.config import parse
from limiter_service.engine.policy import Policies
from limiter_service.store.commands import Commands
from limiter_service.store.keys import Keys, line_id, request_digest
from limiter_service.store.messages import Claim, QueueKeys, Terms, Verdict, Waiter

CONFIG = f"""
pools:
  {POOL}:
    models:
      m: {{limits: [{{meter: tokens, limit: 100, per: day}}]}}
"""


class Asking:
    """Requests for one model whose budget is used up."""

    def __init__(self, client: redis.Redis) -> None:
        self.commands = Commands(Direct(client))  # type: ignore[arg-type]  # the method it needs
        self.commands._scripts = scripts()
        self.policies = Policies(parse(CONFIG, ".yaml"), "sg:")
        self.number = 0
        assert self.ask("a", tokens=100)[0] is Verdict.DONE

    def ask(
        self, tenant: str, *, tokens: float = 10, allowed: float = -1, going_on: float = 0
    ) -> tuple[Verdict, Sequence[float]]:
        """The verdict, and the need before it now and at most."""
        self.number += 1
        name, keys = str(self.number), Keys(POOL)
        terms = Terms(
            max_wait=60e6, replica=1.0, step=1.0, cost=1.0, priority_class=0, share=0.0,
            period=1.0, most_waiters=100, keep=60_000, allowed=[allowed], going_on=going_on,
        )  # fmt: skip
        reply = done(
            self.commands.enqueue(
                self.policies.policy(f"{POOL}/m", tenant).chain(0),
                keys.lease(tenant, name),
                QueueKeys.of(keys),
                Claim(nonce=self.number, fingerprint=1, ttl=1e6, remember=1e6, amounts=[tokens]),
                terms,
                Waiter(
                    digest=request_digest(tenant, name),
                    line=line_id("m", tenant, 5),
                    names=f"{POOL}/m\0{tenant}".encode(),
                ),
            )
        )
        return reply.verdict, (reply.numbers[6], reply.numbers[-1])


@pytest.fixture
def asking(db: redis.Redis) -> Asking:
    """An empty queue."""
    return Asking(db)


def test_the_first_waiter_has_nothing_before_it(asking: Asking) -> None:
    """Now and at most."""
    assert asking.ask("a") == (Verdict.WAITS, (0, 0))


def test_a_line_is_served_in_turn(asking: Asking) -> None:
    """What stands before the last of one line is the rest of it, and nothing can come."""
    for _ in range(3):
        asking.ask("a")
    assert asking.ask("a") == (Verdict.WAITS, (30, 30))


def test_another_line_has_its_turns(asking: Asking) -> None:
    """The sixth of a line comes after one waiter of another, or after six if more come."""
    asking.ask("b")
    for _ in range(5):
        asking.ask("a")
    assert asking.ask("a") == (Verdict.WAITS, (60, 110))


def test_a_newcomer_has_its_turn_before_the_end_of_a_long_line(asking: Asking) -> None:
    """The first of its line: one of the five comes before it."""
    for _ in range(5):
        asking.ask("a")
    assert asking.ask("b") == (Verdict.WAITS, (10, 10))


def test_what_may_come_counts_as_far_as_it_is_expected(asking: Asking) -> None:
    """Whether 110 or 60 tokens of need are too many for 80 is for the forecast to say."""
    asking.ask("b")
    for _ in range(5):
        asking.ask("a")
    assert asking.ask("a", allowed=80, going_on=1)[0] is Verdict.TOO_LONG
    assert asking.ask("a", allowed=80, going_on=0)[0] is Verdict.WAITS
