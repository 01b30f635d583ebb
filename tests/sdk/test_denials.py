"""What is refused is refused here, and once a second the service is asked."""

import threading

import pytest

from client_sdk import BreakerOpen, RateLimited
from client_sdk.denials import Denials
from limiter_wire import ErrorCode


def refusal(after: float, code: ErrorCode = ErrorCode.BREAKER_OPEN) -> BreakerOpen:
    """What the service says."""
    return BreakerOpen("down", retry_after=after, code=code, reason="open")


@pytest.fixture
def known() -> Denials:
    """At 100 it was asked, and refused for a minute."""
    denials = Denials()
    denials.heard("p/m", refusal(60), 100.0)
    return denials


def asks(denials: Denials, now: float, max_wait: float = 0.0, resource: str = "p/m") -> bool:
    """Whether an acquire goes to the service."""
    return denials.refusal(resource, max_wait, "r", now) is None


def test_nothing_known_is_asked():
    assert asks(Denials(), 0.0)


def test_a_refusal_is_repeated_with_the_time_that_is_left(known: Denials):
    """Reason and code are those of the service."""
    found = known.refusal("p/m", 0.0, "r", 100.75)
    assert found is not None
    assert (found.retry_after, found.reason, found.code) == (59.25, "open", ErrorCode.BREAKER_OPEN)
    assert (found.resource, found.request_id, found.retryable) == ("p/m", "r", True)


def test_other_resources_are_asked(known: Denials):
    assert asks(known, 100.5, resource="p/n")


def test_one_a_second_goes_to_look(known: Denials):
    """Ten thousand attempts in ten seconds are ten questions."""
    times = [100 + i / 1000 for i in range(10_000)]
    assert sum(asks(known, now) for now in times) == 9
    assert asks(known, 110.0)


def test_the_second_counts_from_the_question_not_from_the_answer():
    """A slow answer must not add to the time in which nobody asks."""
    denials = Denials()
    denials.heard("p/m", refusal(60), 100.0)  # and it is 100.9 by now
    assert not asks(denials, 100.9)
    assert asks(denials, 101.0)


def test_it_ends_when_the_refusal_does(known: Denials):
    assert not asks(known, 100.9)
    assert asks(known, 160.0)
    assert asks(known, 160.0)


def test_whoever_may_wait_that_long_is_for_the_queue(known: Denials):
    assert asks(known, 100.5, max_wait=59.5)
    assert not asks(known, 100.5, max_wait=59.0)


def test_a_grant_ends_it(known: Denials):
    known.forget("p/m")
    assert asks(known, 100.5)


def test_a_refusal_by_a_limit_ends_it(known: Denials):
    """The breaker is asked first, so it has let the call pass."""
    known.heard("p/m", RateLimited("full", retry_after=1), 100.1)
    assert asks(known, 100.5)


def test_a_settle_that_says_closed_ends_an_opening_and_no_cooldown(known: Denials):
    known.closed("p/m")
    assert asks(known, 100.5)
    known.heard("p/m", refusal(60, ErrorCode.COOLDOWN), 100.6)
    known.closed("p/m")
    assert not asks(known, 100.7)


def test_an_answer_that_was_overtaken_changes_nothing(known: Denials):
    known.heard("p/m", refusal(600), 99.0)
    assert asks(known, 160.0)


def test_it_remembers_a_thousand_resources():
    """The one heard of first goes, which costs a question."""
    denials = Denials()
    for i in range(1001):
        denials.heard(f"p/{i}", refusal(60), 100.0)
    assert asks(denials, 100.5, resource="p/0")
    assert not asks(denials, 100.5, resource="p/1")
    assert len(denials.known) == 1000


def test_of_many_threads_one_looks(known: Denials):
    """The question belongs to whoever comes first."""
    passed: list[bool] = []
    gate = threading.Barrier(16)

    def ask() -> None:
        gate.wait()
        passed.append(asks(known, 101.0))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed.count(True) == 1
