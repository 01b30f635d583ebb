"""What a replica knows for the time when it is alone: who else there is, and the last levels. Pure.

Why the number of replicas is never too small. A replica counts everybody whom the store has seen
within SILENT, and the most that it has counted within SILENT: who has died counts on for a while,
and a store that has forgotten everybody changes nothing at once. A newcomer may not grant alone
before every other has said twice that it lives since the newcomer joined: who says it again has
heard an answer to the first time, or to a try after that, and has counted the newcomer. So of two
replicas that may grant alone each has counted the other, unless one of them has not reached the
store for SILENT while others have: it is cut off alone, and what it grants comes on top, at most
its own share, until it is charged.
"""

from collections import deque
from collections.abc import Iterable, Sequence

from limiter_service.engine.levels import Level
from limiter_service.engine.local import Sight
from limiter_service.engine.policy import Policy
from limiter_service.store.messages import Seen

SILENT = 30.0
"""Seconds that a replica counts after it was last heard of."""

STALE = 5.0
"""Seconds before the last beat: what was seen earlier than that is as if it had not been seen."""

AGAIN = 0.5
"""Seconds after which a beat is another one: none is repeated for longer."""

GAP = 2.0
"""Seconds without a beat after which whoever was counted before counts as heard just now."""

_TIMES = 2
_MICRO = 1_000_000

Place = tuple[str, int]
"""A limit: the key of its scope, and its id."""


class Presence:
    """The beats of one pool, as this replica has heard them; *now* is any monotonic clock."""

    def __init__(self) -> None:
        self._awaited: float | None = None
        self._wall = self._heard = 0.0
        self._counts: deque[tuple[float, int]] = deque()
        self._said = 0

    @property
    def known(self) -> bool:
        """Whether the store was ever seen."""
        return self._awaited is not None

    @property
    def wall(self) -> float:
        """The store's time at the last beat, in microseconds."""
        return self._wall

    def hear(self, seen: Seen, now: float) -> None:
        """Take in what a beat has answered."""
        if self._awaited is None:
            self._awaited = seen.now
        if now - self._heard > GAP:  # others are yet to be heard again
            self._counts = deque([(now, self.replicas)])
        self._wall, self._heard = seen.now, now
        self._counts.append((now, seen.replicas))
        while now - self._counts[0][0] > SILENT:
            self._counts.popleft()
        if self._said < _TIMES and seen.oldest >= self._awaited:
            self._said, self._awaited = self._said + 1, seen.now + AGAIN * _MICRO

    def now_us(self, now: float) -> float:
        """The store's time, in microseconds, as far as it is known here."""
        return self._wall + (now - self._heard) * _MICRO

    @property
    def replicas(self) -> int:
        """How many share the limits, 0 while that is not known."""
        return max((count for _, count in self._counts), default=0)

    @property
    def part(self) -> float:
        """The share of this replica: 0 while some other may not have counted it."""
        return 1.0 / self.replicas if self._said == _TIMES else 0.0


class Sights:
    """The last level of every limit, and what was taken since the look began that showed it."""

    def __init__(self) -> None:
        self._levels: dict[Place, Level] = {}
        self._earlier: list[_Span] = []
        self._now = _Span()

    def taken(self, policy: Policy, amounts: Sequence[float]) -> None:
        """This replica has taken *amounts* from the limits of *policy*."""
        self._now.add(policy, amounts)

    def lately(self) -> Iterable[Policy]:
        """Whose limits were taken from since the last look."""
        return (policy for span in (*self._earlier, self._now) for policy in span.taken)

    def pause(self, now: float) -> None:
        """What was taken until now, in the store's time, was taken by now."""
        if self._now.taken:
            self._now.until = now
            self._earlier.append(self._now)
            self._now = _Span()

    def begin(self, now: float) -> None:
        """A look begins: what is taken from now on it may not show."""
        self.pause(now)
        for each in self._earlier:
            each.looked_at = True

    def end(self, seen: Iterable[tuple[Policy, Sequence[Level]]]) -> None:
        """The look is over, and has shown these levels; others are forgotten."""
        self._earlier = [each for each in self._earlier if not each.looked_at]
        self._levels = {
            place: level
            for policy, levels in seen
            for (place, _), level in zip(policy.placed, levels, strict=True)
        }

    def failed(self) -> None:
        """The look has shown nothing: what was taken before it counts on."""
        for each in self._earlier:
            each.looked_at = False

    def sight(self, place: Place, presence: Presence, now: float) -> Sight:
        """What is known of a limit at *now*, the store's time."""
        level = self._levels.get(place)
        if level is not None and level.wall < presence.wall - STALE * _MICRO:
            level = None
        taken = [(each.until, each.of(place)) for each in self._earlier]
        taken.append((now, self._now.of(place)))
        return Sight(level=level, taken=taken, part=presence.part, now=now)


class _Taken:
    """What was taken of the limits of a policy: *amounts* so many *times*, and what came before."""

    __slots__ = ("amounts", "before", "times")

    def __init__(self, amounts: Sequence[float]) -> None:
        self.amounts, self.times = amounts, 1
        self.before: Sequence[float] = [0.0] * len(amounts)

    def add(self, amounts: Sequence[float]) -> None:
        """Other amounts."""
        self.before = self.sums()
        self.amounts, self.times = amounts, 1

    def sums(self) -> list[float]:
        """All of it; what gives back has taken nothing."""
        of_each = zip(self.before, self.amounts, strict=True)
        return [before + self.times * max(0.0, amount) for before, amount in of_each]


class _Span:
    """What was taken until some time; a look under way may show it."""

    def __init__(self) -> None:
        self.taken: dict[Policy, _Taken] = {}
        self.until, self.looked_at = 0.0, False
        self._sums: dict[Place, float] | None = None

    def add(self, policy: Policy, amounts: Sequence[float]) -> None:
        """So much more, of the limits of *policy*. Who asks for the same has the same list."""
        self._sums = None
        known = self.taken.get(policy)
        if known is None:
            self.taken[policy] = _Taken(amounts)
        elif known.amounts is amounts:
            known.times += 1
        else:
            known.add(amounts)

    def of(self, place: Place) -> float:
        """What was taken of one limit; added up once for all that ask meanwhile."""
        if self._sums is None:
            self._sums = {}
            for policy, taken in self.taken.items():
                for (each, _), amount in zip(policy.placed, taken.sums(), strict=True):
                    self._sums[each] = self._sums.get(each, 0.0) + amount
        return self._sums.get(place, 0.0)
