"""What a process goes by while its service is lost, and what it counts of its own calls."""

from threading import Thread

from client_sdk.alone import Alone
from client_sdk.errors import RateLimited
from client_sdk.figures import LocalFigures
from limiter_wire import Acquire, Granted, Outcome, Settle, Usage

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


def test_figures_are_exact_whenever_somebody_looks():
    """However many calls are noted and not added up yet, and whichever thread has noted them."""
    figures, usage = LocalFigures(), Usage(input_tokens=3, output_tokens=2)
    report = Settle(lease="L", usage=usage, latency=1.0, ttft=0.5)

    def calls(resource: str) -> None:
        for number in range(700):
            figures.granted(resource, 0.0)
            figures.settled(resource, report)
            if number % 50 == 0:
                figures.snapshot()

    threads = [Thread(target=calls, args=(f"p/m{number % 2}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seen in figures.snapshot():
        assert (seen.granted, seen.outcomes) == (1400, {"success": 1400})
        assert (seen.input_tokens, seen.output_tokens, seen.unknown_usage) == (4200, 2800, 0)
        assert seen.latency is not None
        assert seen.time_to_first_token is not None
        assert seen.latency.count == seen.time_to_first_token.count == 1400
    assert len(figures.snapshot()) == 2


def test_resources_have_figures_of_their_own_in_the_order_in_which_they_came():
    """Those beyond a thousand are one, however what they did is noted."""
    figures = LocalFigures()
    for number in range(1000):
        figures.granted(f"p/m{number}", 0.0)
    figures.refused("p/late", RateLimited("no"))
    figures.granted("p/later", 0.5)
    figures.granted("p/m7", 0.0)
    seen = {each.resource: each for each in figures.snapshot()}
    assert len(seen) == 1001
    assert seen["p/m7"].granted == 2
    assert (seen["*"].granted, dict(seen["*"].refused)) == (1, {"unreachable": 1})
