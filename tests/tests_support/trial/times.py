"""When each change was made, for who does sums over time: in the order in which the store made
them.
"""

from collections.abc import Container, Sequence

from tests_support.trial.journal import LONE, Entry

_SET_BACK = 0.05  # seconds, less than any step of a trial


def in_order(entries: Sequence[Entry], kept: Container[int]) -> list[float]:
    """Seconds since the first one, for each of the entries.

    Of changes that stand each knows of the one before it. Where its time is a little less, the host
    has set its clock back: no time goes by then, neither here nor for scripts, and both go on from
    there. A change that is lost may have been made by one who did not know that another is primary,
    at the same moment as that one's next, and be written down before it: it is not later.
    """
    start = entries[0].at if entries else 0.0
    times = list[float]()
    back, last = 0.0, float("-inf")
    for place, entry in enumerate(entries):
        at = entry.at - start + back
        if place in kept:
            if 0 < last - at < _SET_BACK:
                back, at = back + last - at, last
            last = at
        times.append(at)
    after = float("inf")
    for place in range(len(entries) - 1, -1, -1):
        if place in kept:
            after = times[place]
        elif entries[place].nth != LONE:
            times[place] = min(times[place], after)
    return times
