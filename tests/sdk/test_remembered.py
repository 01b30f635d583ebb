"""What a process goes by while its service is lost, and what it counts of its own calls."""

from client_sdk.alone import Alone
from client_sdk.errors import RateLimited
from client_sdk.figures import LocalFigures
from limiter_wire import Acquire, Granted, Outcome, Settle

GRANTED = Granted(lease="L", expires_in=600.0, charged={}, limits=[])


def asked(number: int) -> Acquire:
    """An acquire of one of many resources."""
    return Acquire(resource=f"p/m{number}", tokens=1, request_id=f"r{number}")


def test_of_very_many_resources_those_granted_last_are_known():
    """Memory is bounded, and what is in use stays."""
    alone = Alone("degrade", 0.5)
    for now in range(5000):
        alone.heard(asked(now), GRANTED, float(now))
        alone.heard(asked(0), GRANTED, now + 0.5)
    known = [number for number in range(5000) if alone.knows(asked(number))]
    assert known[0] == 0
    assert known[1:] == list(range(5000 - len(known) + 1, 5000))
    assert 500 <= len(known) <= 1000


def test_calls_are_counted_whether_they_waited_and_however_they_ended():
    """Most are granted at once and succeed; the others are told apart."""
    figures = LocalFigures()
    for waited in (0.0, 0.0, 0.0, 2.0):
        figures.granted("p/m", waited)
    for outcome in (Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.SUCCESS):
        figures.settled("p/m", Settle(lease="L", outcome=outcome))
    figures.refused("p/n", RateLimited("no"))
    for _ in range(2):  # to look changes nothing
        seen, refused = figures.snapshot()
        assert (seen.granted, seen.outcomes) == (4, {"success": 2, "timeout": 1})
        assert seen.waited is not None
        assert (seen.waited.count, seen.waited.min, seen.waited.max) == (4, 0.0, 2.0)
        assert seen.unknown_usage == 3
        assert (refused.granted, refused.outcomes, refused.waited) == (0, {}, None)
