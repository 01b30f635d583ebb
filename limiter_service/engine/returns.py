"""What calls use of what they reserve, and how long they hold it: by resource, bounded. Pure.

This is learned with every settle, and all that is old counts less.
"""

from collections.abc import Sequence

from limiter_service.engine.shape import History

_DECAY = 0.99
_SMOOTHING = 0.1
_MOST_LIMITS = 32
"""Limits of one resource whose use is remembered: tenants have limits of their own."""

_Used = dict[float, list[float]]
"""By the id of a limit, what was reserved of it, and what was used of that."""


class Returns:
    """What one replica has learned of it."""

    def __init__(self, most: int) -> None:
        """At *most* so many resources, the use of a quarter of them; the least used go first."""
        self._most = most
        self._used: dict[str, _Used] = {}
        self._held: dict[str, float] = {}

    def learn(self, resource: str, charges: Sequence[float], history: History) -> None:
        """Take in how much of a reservation was used, and how long the lease was held."""
        known, most = self._used, self._most // 4
        used = known.get(resource)
        if used is None:
            _make_room(known, most)
            used = known[resource] = {}
        elif 2 * len(known) > most:  # before that nobody is soon forgotten
            known[resource] = known.pop(resource)
        for limit_id, charge, moved in zip(history.limit_ids, charges, history.moved, strict=True):
            if charge > 0:
                of = used.get(limit_id)
                if of is None or 2 * len(used) > _MOST_LIMITS:
                    of = _among_the_last(used, limit_id)
                of[0] = of[0] * _DECAY + charge
                of[1] = of[1] * _DECAY + charge + moved
        self._learn_time(resource, history.held)

    def ratio(self, resource: str, limit_id: float) -> float:
        """The part that is used of what is reserved of a limit; all while nothing is known."""
        of = self._used.get(resource, {}).get(limit_id)
        return 1.0 if of is None else of[1] / of[0]

    def held(self, resource: str) -> float | None:
        """For how many microseconds a lease is held."""
        return self._held.get(resource)

    def _learn_time(self, resource: str, time: float) -> None:
        held = self._held
        before = held.get(resource)
        if before is None:
            _make_room(held, self._most)
            before = time
        elif 2 * len(held) > self._most:
            del held[resource]
        held[resource] = before + _SMOOTHING * (time - before)


def _among_the_last(used: _Used, limit_id: float) -> list[float]:
    """What is known of a limit, which is forgotten after the others now."""
    of = used.pop(limit_id, None)
    if of is None:
        _make_room(used, _MOST_LIMITS)
        of = [0.0, 0.0]
    used[limit_id] = of
    return of


def _make_room(known: dict, most: int) -> None:  # type: ignore[type-arg]  # of anything
    if len(known) >= most:
        del known[next(iter(known))]
