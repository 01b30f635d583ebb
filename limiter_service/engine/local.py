"""Limits as one replica enforces them alone: its share of each, from what it last saw. Pure.

Time is an argument, in the store's microseconds. A share is a part of a limit: with n replicas
each has an n-th of its capacity, of its rate, and of what was left when it was last seen. What a
replica has taken since then through the store is its own use of that share (`own`), and what has
come back meanwhile makes up for that use and for nothing else: others may have taken it.

Why shares never exceed the limit together. Let L be what was left when the replicas looked, and
own_i what replica i has taken since. A replica begins with L/n + min(0, back/n - own_i), where
`back` is what has come back since. Where nobody has taken more than L/n + back/n, these sum up to
at most L + back - sum(own_i), which is what is left now. Where L is 0, whoever took more has taken
what others did not, and the min() withholds that from them. A bucket that is full loses what would
come back: there only what comes back after a replica has taken something makes up for that.
"""

import math
from collections.abc import Callable, Sequence

import msgspec

from limiter_service.engine.calendar import Span, boundaries
from limiter_service.engine.levels import Level, capacity_of, left
from limiter_service.engine.policy import (
    SLOTS_OF_A_RAMP,
    SLOTS_OF_A_WINDOW,
    Limit,
    slot_width,
)

NEVER = -1.0
"""In place of a time to wait: not before the store is back."""

_RING = SLOTS_OF_A_WINDOW + 1
_NEAR = 1e-6  # sums of float products may miss by the last bits (lua/lib/limits)


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica knows of a limit when it is alone: the level that it last saw, None where it
    has seen none, what it has taken since, its part of the limit, and the time. Of what was
    `taken` there are the latest time, in their order, and the amount.
    """

    level: Level | None
    taken: Sequence[tuple[float, float]]
    part: float
    now: float

    @property
    def own(self) -> float:
        """What it has taken, all together."""
        return sum(amount for _, amount in self.taken)


class Bucket:
    """A share of a token bucket; without a level that was seen it begins empty."""

    def __init__(self, limit: Limit, sight: Sight) -> None:
        level, part = sight.level, sight.part
        self.rate = limit.rate * part
        self._capacity, self.level, self._at = limit.capacity * part, 0.0, sight.now
        if level is not None:
            self._capacity = capacity_of(limit, level) * part
            self.rate = (limit.rate if level.rate is None else level.rate) * part
            self.level = min(self._capacity, level.cell[0] * part) - self._debt(level.wall, sight)
        self._untouched = self.level

    def _debt(self, at: float, sight: Sight) -> float:
        """What was taken since *at* and has not come back."""
        debt = 0.0
        for then, amount in (*sight.taken, (sight.now, 0.0)):
            debt = max(0.0, debt - max(0.0, then - at) * self.rate) + amount
            at = max(at, then)
        return debt

    def advance(self, now: float) -> None:
        """Refill up to *now*."""
        gained = max(0.0, now - self._at) * self.rate
        self._at = max(now, self._at)
        self.level = min(self._capacity, self.level + gained)
        self._untouched = min(self._capacity, self._untouched + gained)

    def left(self, _now: float) -> float:
        """What can be taken."""
        return self.level

    def wait(self, amount: float, _now: float) -> float:
        """Microseconds until *amount* fits; NEVER when the share cannot hold it."""
        if amount <= self.level + _NEAR:
            return 0.0
        if amount > self._capacity + _NEAR or self.rate <= 0:
            return NEVER
        return math.ceil((amount - self.level) / self.rate)

    def take(self, amount: float, _now: float, _nonce: float, _ttl: float) -> None:
        """Charge *amount*, whether it fits or not."""
        self.level -= amount

    def settle(self, delta: float, _now: float, _taken: float, _nonce: float) -> float:
        """Charge *delta* more, or give it back; what moved."""
        self.level = min(self._capacity, self.level - delta)
        return delta

    def spent(self, amount: float, _now: float) -> None:
        """Note what was taken through the store after all."""
        self.level -= amount
        self._untouched -= amount

    def owed(self, _now: float) -> float:
        """What the grants have cost that has not come back with time."""
        return max(0.0, self._untouched - self.level)

    def paid(self, amount: float) -> None:
        """That much of it is charged."""
        self._untouched -= amount

    def counts(self, _taken: float, _now: float) -> bool:
        """Whether what was taken then may still count; a bucket asks `owed`."""
        return True

    def reset(self, _now: float) -> float:
        """Microseconds until the share is whole."""
        return (self._capacity - self.level) / self.rate if self.rate > 0 else 0.0


class Sliding:
    """A share of a sliding window; without a level that was seen a whole period must pass."""

    _ring = _RING

    def __init__(self, limit: Limit, sight: Sight) -> None:
        self._width, self._part, self._own = slot_width(limit), sight.part, dict[int, float]()
        level = sight.level
        newest = self._slot(sight.now)
        if level is None:
            self._total, self._seen = limit.capacity, {newest: limit.capacity}
            return
        self._total = capacity_of(limit, level)
        first = int(level.cell[0])
        slots = range(first - _RING + 1, first + 1)
        # Its slots are numbered by the scope's time, which may be ahead of the server's.
        shift = self._slot(level.wall) - first
        self._seen = {slot + shift: level.cell[2 + slot % _RING] for slot in slots}
        gone = sum(amount for slot, amount in self._seen.items() if slot <= newest - _RING)
        self._own[newest] = max(sight.own, gone * self._part)

    def _slot(self, now: float) -> int:
        return int(now // self._width)

    def advance(self, now: float) -> None:
        """Let old slots go."""
        oldest = self._slot(now) - self._ring + 1
        for slots in (self._seen, self._own):
            for slot in [slot for slot in slots if slot < oldest]:
                del slots[slot]

    def left(self, _now: float) -> float:
        """What can be taken."""
        return (self._total - sum(self._seen.values())) * self._part - sum(self._own.values())

    def wait(self, amount: float, now: float) -> float:
        """Microseconds until *amount* fits; NEVER when the share cannot hold it."""
        short = amount - self.left(now)
        if short <= _NEAR:
            return 0.0
        if amount > self._total * self._part + _NEAR:
            return NEVER
        for slot in sorted({*self._seen, *self._own}):
            short -= self._seen.get(slot, 0.0) * self._part + self._own.get(slot, 0.0)
            if short <= _NEAR:
                return (slot + self._ring) * self._width - now
        return NEVER

    def take(self, amount: float, now: float, _nonce: float, _ttl: float) -> None:
        """Charge *amount*, whether it fits or not."""
        slot = self._slot(now)
        self._own[slot] = self._own.get(slot, 0.0) + amount

    def settle(self, delta: float, now: float, taken: float, _nonce: float) -> float:
        """Charge *delta* now, or give it back to when it was taken; what moved."""
        if delta < 0 and not self.counts(taken, now):
            return 0.0
        slot = self._slot(now if delta > 0 else taken)
        delta = max(delta, -self._own.get(slot, 0.0))
        self._own[slot] = self._own.get(slot, 0.0) + delta
        return delta

    def spent(self, amount: float, now: float) -> None:
        """Note what was taken through the store after all."""
        self.take(amount, now, 0.0, 0.0)

    def paid(self, amount: float) -> None:
        """Nothing is bounded here."""

    def owed(self, _now: float) -> float:
        """No bound but what still counts."""
        return math.inf

    def counts(self, taken: float, now: float) -> bool:
        """Whether what was taken then still counts."""
        return self._slot(taken) > self._slot(now) - self._ring

    def reset(self, now: float) -> float:
        """Microseconds until the share is whole."""
        used = [slot for slots in (self._seen, self._own) for slot, n in slots.items() if n > 0]
        return max(0.0, (max(used) + self._ring) * self._width - now) if used else 0.0


class Ramp(Sliding):
    """A share of what a ramp allows; without a level that was seen a whole period must pass.

    What replicas use alone is no base of what they may use next: none knows what the others do.
    And what is used now must be allowed for as long as it counts, when others use theirs.
    """

    _ring = SLOTS_OF_A_RAMP + 1

    def __init__(self, limit: Limit, sight: Sight) -> None:
        self._width, self._part, self._own = slot_width(limit), sight.part, dict[int, float]()
        level, newest = sight.level, self._slot(sight.now)
        if level is None:
            self._seen, self._least = {newest: limit.capacity}, limit.capacity
            self._rooms = {newest + age: 0.0 for age in range(self._ring)}
            return
        first, looked = int(level.cell[0]), self._slot(level.wall)
        self._least = capacity_of(limit, level)
        self._seen = {
            looked - age: level.cell[1 + (first - age) % (2 * self._ring)]
            for age in range(2 * self._ring)
        }
        self._rooms = {
            slot: self._room_in(limit.factor, slot)
            for slot in range(looked, looked + 2 * self._ring)
        }
        back = self._room(newest) - self._room(looked)
        self._own[newest] = max(sight.own, back * self._part)

    def _room_in(self, factor: float, newest: int) -> float:
        ages = range(self._ring)
        before = sum(self._seen.get(newest - self._ring - age, 0.0) for age in ages)
        used = sum(self._seen.get(newest - age, 0.0) for age in ages)
        return max(self._least, factor * before) - used

    def _room(self, newest: int) -> float:
        """What everybody together could use alone when *newest* is the newest slot."""
        return self._rooms.get(newest, self._least)

    def _room_here(self, newest: int) -> float:
        """What this replica can use then, and has room for as long as it counts."""
        slots = range(newest, newest + self._ring)
        return min(self._room(slot) * self._part - self._used_here(slot) for slot in slots)

    def _used_here(self, newest: int) -> float:
        return sum(amount for slot, amount in self._own.items() if slot > newest - self._ring)

    def advance(self, now: float) -> None:
        """Let old slots go."""
        oldest = self._slot(now) - self._ring + 1
        for slot in [slot for slot in self._own if slot < oldest]:
            del self._own[slot]

    def left(self, now: float) -> float:
        """What can be taken."""
        return self._room_here(self._slot(now))

    def wait(self, amount: float, now: float) -> float:
        """Microseconds until *amount* fits; NEVER when the share cannot hold it."""
        newest = self._slot(now)
        for slot in range(newest, newest + 2 * self._ring + 1):
            if amount <= self._room_here(slot) + _NEAR:
                return max(0.0, slot * self._width - now)
        return NEVER


class Calendar:
    """A share of a calendar window; without a level that was seen the present one is spent."""

    def __init__(self, limit: Limit, sight: Sight) -> None:
        self._per: Span = limit.config.per  # type: ignore[assignment]  # checked by the configuration
        self._zone, self._part, self._own = limit.config.timezone, sight.part, sight.own
        self._start, self._end, _ = boundaries(self._per, self._zone, sight.now)
        level = sight.level
        # A window that has begun since the look counts as that one: others may have used it.
        self._total = limit.capacity if level is None else capacity_of(limit, level)
        self._seen = limit.capacity if level is None else level.cell[1]

    def advance(self, now: float) -> None:
        """Begin the window that *now* is in; time that goes back stays where it is."""
        if now >= self._end:
            self._start, self._end, _ = boundaries(self._per, self._zone, now)
            self._seen = self._own = 0.0

    def left(self, _now: float) -> float:
        """What can be taken."""
        return (self._total - self._seen) * self._part - self._own

    def wait(self, amount: float, now: float) -> float:
        """Microseconds until *amount* fits; NEVER when the share cannot hold it."""
        if amount <= self.left(now) + _NEAR:
            return 0.0
        return NEVER if amount > self._total * self._part + _NEAR else self._end - now

    def take(self, amount: float, _now: float, _nonce: float, _ttl: float) -> None:
        """Charge *amount*, whether it fits or not."""
        self._own += amount

    def settle(self, delta: float, now: float, taken: float, _nonce: float) -> float:
        """Charge *delta* now, or give it back where its window is still open; what moved."""
        if delta < 0 and not self.counts(taken, now):
            return 0.0
        delta = max(delta, -self._own)
        self._own += delta
        return delta

    def spent(self, amount: float, _now: float) -> None:
        """Note what was taken through the store after all."""
        self._own += amount

    def paid(self, amount: float) -> None:
        """Nothing is bounded here."""

    def owed(self, _now: float) -> float:
        """No bound but what still counts."""
        return math.inf

    def counts(self, taken: float, _now: float) -> bool:
        """Whether what was taken then was taken from the window that is open."""
        return taken >= self._start

    def reset(self, now: float) -> float:
        """Microseconds until the share is whole."""
        return max(0.0, self._end - now)


class Slots:
    """A share of the slots that were free, in whole ones; those that end here are free here."""

    def __init__(self, limit: Limit, sight: Sight) -> None:
        level = sight.level
        free = 0.0 if level is None else left(limit, level)
        self._free = math.floor(max(0.0, free) * sight.part + _NEAR) - sight.own
        self._live: dict[float, float] = {}

    def advance(self, now: float) -> None:
        """Let leases end whose time is over."""
        for nonce in [nonce for nonce, until in self._live.items() if until <= now]:
            del self._live[nonce]

    def left(self, _now: float) -> float:
        """How many can be taken."""
        return self._free - len(self._live)

    def wait(self, amount: float, now: float) -> float:
        """Microseconds until a slot is free at the latest; NEVER when nobody here has one."""
        if amount <= self.left(now):
            return 0.0
        if amount > self._free or not self._live:
            return NEVER
        return min(self._live.values()) - now

    def take(self, _amount: float, now: float, nonce: float, ttl: float) -> None:
        """Take a slot, or hold one for longer, whether one is free or not."""
        self._live[nonce] = now + ttl

    def settle(self, _delta: float, _now: float, _taken: float, nonce: float) -> float:
        """Free the slot of a lease."""
        self._live.pop(nonce, None)
        return 0.0

    def spent(self, amount: float, _now: float) -> None:
        """Note what was taken through the store after all."""
        self._free -= amount

    def paid(self, amount: float) -> None:
        """Nothing is bounded here."""

    def freed(self) -> None:
        """A lease from before has ended at this replica, so its slot is this replica's."""
        self._free += 1

    def owed(self, _now: float) -> float:
        """Slots are held by leases, one each."""
        return math.inf

    def counts(self, _taken: float, _now: float) -> bool:
        """Held as long as the lease lives."""
        return True

    def reset(self, _now: float) -> float:
        """Slots come back with their leases, not with time."""
        return 0.0


Window = Bucket | Sliding | Ramp | Calendar | Slots
_KINDS: dict[str, Callable[[Limit, Sight], Window]] = {
    "bucket": Bucket,
    "sliding": Sliding,
    "calendar": Calendar,
    "concurrency": Slots,
    "ramp": Ramp,
}


def window_of(limit: Limit, sight: Sight) -> Window:
    """The share of *limit* of a replica that knows what *sight* says."""
    return _KINDS[limit.window](limit, sight)


class Decision(msgspec.Struct, frozen=True):
    """What a chain says to amounts: the place of the limit that binds longest (None: all have
    room), and the time to wait for it in microseconds; NEVER binds before all.
    """

    place: int | None
    wait: float


def decide(
    limits: Sequence[Limit], windows: Sequence[Window], amounts: Sequence[float], now: float
) -> Decision:
    """Whether every limit has room for its amount at *now*; shadows refuse nobody."""
    worst, longest = None, 0.0
    for i, (limit, window, amount) in enumerate(zip(limits, windows, amounts, strict=True)):
        window.advance(now)
        wait = window.wait(amount, now)
        if wait == 0 or limit.shadow or longest == NEVER:
            continue
        if wait == NEVER or wait > longest:
            worst, longest = i, wait
    return Decision(worst, longest)
