"""The reference (`reference.py`) with limits that are stated by a provider or held by hand.

What is known of a limit is kept as it was told, with its time, and what follows from it is
worked out anew at every look.
"""

import msgspec
from reference import US, Bucket, Lease, Reference, Slots, Window, _scopes

from limiter_service.engine.policy import Limit, Policy

HOUR = 3600 * US
TEN_SECONDS = 10 * US
QUARTER = US // 4
PARTS = 64
MOST_FIXES = 6


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one limit of a chain, counted from 0; as lua/lib/learning has it."""

    place: int
    stated: float
    capacity: float
    rate: float
    remaining: float
    refused: bool
    life: int
    cut: bool = False


class Told(msgspec.Struct, frozen=True):
    """A limit that somebody has named, and until when it counts; -1 is for ever."""

    value: float
    capacity: float
    rate: float
    until: int

    def live(self, now: int) -> bool:
        """Whether it still counts."""
        return self.until < 0 or now < self.until


class Known(msgspec.Struct):
    """What is known of one limit."""

    stated: Told | None = None
    held: Told | None = None
    other: float = 0.0
    times: int = 0
    first: int = 0
    since: int = 0
    fixes: list[tuple[int, float]] = []
    share: float = 1.0
    cut: int = 0

    def share_at(self, now: int) -> float:
        """The share of the rate that has come back."""
        return min(1.0, self.share + (now - self.cut) // TEN_SECONDS / PARTS)

    def is_held(self, now: int) -> bool:
        """Whether an operator holds the limit."""
        return self.held is not None and self.held.live(now)


class Learning(Reference):
    """The whole pool, with what was learned about it."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[tuple[str, int], Known] = {}
        self.pages: dict[tuple[str, int], tuple[int, float, float]] = {}
        self.events: list[tuple[str, str, str, str]] = []

    def open(self, policy: Policy, wall: int) -> list[tuple[str, Limit, Window, int]]:
        """As there, with the limits that are in force."""
        for scope_key, limits in _scopes(policy):
            scope = self.scopes.get(scope_key)
            now = scope.now(wall) if scope else wall
            for limit in limits:
                self._in_force[limit.id] = self.in_force(scope_key, limit, now)
        return super().open(_Under(policy, self._in_force), wall)  # type: ignore[arg-type]  # a policy in all that is asked

    _in_force: dict[int, Limit] = {}

    def in_force(self, scope_key: str, limit: Limit, now: int) -> Limit:
        """The limit as it is to be kept now."""
        told = self.told(scope_key, limit, now)
        known = self.known.get((scope_key, limit.id))
        if known is None or known.is_held(now):
            return told
        return _with(told, told.capacity, told.rate * known.share_at(now))

    def told(self, scope_key: str, limit: Limit, now: int) -> Limit:
        """The limit that somebody has named."""
        known = self.known.get((scope_key, limit.id))
        if known is None:
            return limit
        if known.held is not None and known.held.live(now):
            return _with(limit, known.held.capacity, known.held.rate)
        if known.stated is None or not known.stated.live(now) or limit.learn == "never":
            return limit
        told = known.stated
        if limit.learn == "both":
            return _with(limit, told.capacity, told.rate)
        capacity, rate = min(limit.capacity, told.capacity), min(limit.rate, told.rate)
        return _with(limit, capacity, rate)

    def observe(
        self,
        policy: Policy,
        readings: list[Reading],
        wall: int,
        lease: Lease | None = None,
        levels: dict[int, float] | None = None,
        back: dict[int, float] | None = None,
    ) -> None:
        """Take in readings: about now, or about the grant of *lease*, when *levels* were left
        (of windows: spent) of its limits.
        """
        if not readings:
            return
        opened = self.open(policy, wall)
        for place, (scope_key, limit, window, now) in enumerate(opened):
            own = policy.limits[place]
            said = [each for each in readings if each.place == place]
            if not said:
                continue
            known = self.known.setdefault((scope_key, limit.id), Known(fixes=[]))
            of_lease = lease is not None and limit.id in lease.charges
            of_lease = of_lease and lease.charges[limit.id].amount >= 0
            granted = min(now, lease.granted + now - wall) if of_lease else now
            for each in said:
                then = levels[limit.id] if of_lease else _figure(window)
                returned = back.get(limit.id, 0.0) if of_lease and back else 0.0
                place_then = lease.charges[limit.id].place if of_lease else None
                _lower(
                    known, each, window, granted, now, then + _sign(window) * returned, place_then
                )
                self._note_stated(known, each, own, granted, now)
                if each.cut:
                    _cut(known, window, granted if of_lease else now - TEN_SECONDS, now)
        self.commit(policy, opened, wall)
        for scope_key, limit, window, _ in self.open(policy, wall):
            if isinstance(window, Bucket):
                self.scopes[scope_key].windows[limit.id] = window

    def _note_stated(self, known: Known, each: Reading, own: Limit, granted: int, now: int) -> None:
        if each.stated <= 0:
            return
        live = known.stated is not None and known.stated.live(now)
        before = known.stated.value if known.stated is not None and live else own.limit
        if each.stated == before:
            known.other, known.times = 0.0, 0
            if known.stated is not None and live:
                known.stated = msgspec.structs.replace(known.stated, until=now + each.life)
            return
        if granted < known.since:
            return
        if each.stated != known.other or now >= known.first + HOUR:
            known.other, known.times, known.first = each.stated, 0, now
        known.times += 1
        lower = each.stated < before
        long = lower or now >= known.first + TEN_SECONDS
        if not (known.times >= 3 and long) and not (lower and each.refused):
            return
        known.other, known.times, known.since = 0.0, 0, now
        told = Told(each.stated, each.capacity, each.rate, now + each.life)
        known.stated = None if each.stated == own.limit else told
        kind = "limit_lowered" if lower else "limit_learned"
        self.events.append((kind, own.name, f"{before:.15g}", f"{each.stated:.15g}"))

    def hold(self, policy: Policy, place: int, told: Told | None, wall: int) -> None:
        """Hold a limit by hand, or let go of it; `until` is a life here."""
        opened = self.open(policy, wall)
        scope_key, limit, _, now = opened[place]
        known = self.known.setdefault((scope_key, limit.id), Known(fixes=[]))
        before = known.held if known.held is not None and known.held.live(now) else None
        if before is not None or told is not None:
            words = ["none" if each is None else f"{each.value:.15g}" for each in (before, told)]
            self.events.append(("limit_override", limit.name, *words))
            known.held = None
            if told is not None:
                until = -1 if told.until < 0 else now + told.until
                known.held = msgspec.structs.replace(told, until=until)
        self.commit(policy, opened, wall)
        for key, other, window, _ in self.open(policy, wall):
            if isinstance(window, Bucket):
                self.scopes[key].windows[other.id] = window

    def ends_within(self, policy: Policy, wall: int, time: int) -> bool:
        """Whether a limit that somebody has named ends within *time*."""
        ends = [
            told.until - now
            for scope_key, limit, _, now in self.open(policy, wall)
            if (known := self.known.get((scope_key, limit.id))) is not None
            for told in (known.stated, known.held)
            if told is not None
        ]
        ends += [
            TEN_SECONDS - (now - known.cut) % TEN_SECONDS
            for scope_key, limit, _, now in self.open(policy, wall)
            if (known := self.known.get((scope_key, limit.id))) and known.share_at(now) < 1
        ]
        return any(0 < end <= time for end in ends)

    def assert_never_above(self, policy: Policy, wall: int) -> None:
        """What was granted since a limit has been in force is within that limit (I1)."""
        for scope_key, limit, window, now in self.open(policy, wall):
            lines = self.ledger.get((scope_key, limit.id), [])
            terms = (limit.capacity, limit.rate)
            page = self.pages.get((scope_key, limit.id))
            if page is None or page[1:] != terms or page[0] > len(lines):
                self.pages[scope_key, limit.id] = (len(lines), *terms)
                continue
            mine = lines[page[0] :]
            if isinstance(window, Bucket) and mine and not limit.shadow:
                total = 0.0
                for line in reversed(mine):
                    total += line.amount
                    most = limit.capacity + limit.rate * (now - line.at)
                    assert total <= most + 1e-6, f"{limit.name} is above what was learned"


class _Under:
    """A policy whose limits are replaced by those in force."""

    def __init__(self, policy: Policy, in_force: dict[int, Limit]) -> None:
        self._scopes = tuple(
            _ScopeView(scope.key, tuple(in_force[limit.id] for limit in scope.limits))
            for scope in policy._scopes
        )


class _ScopeView(msgspec.Struct, frozen=True):
    key: str
    limits: tuple[Limit, ...]


def _with(limit: Limit, capacity: float, rate: float) -> Limit:
    return msgspec.structs.replace(limit, capacity=capacity, rate=rate)


def _figure(window: Window) -> float:
    """What is left of a bucket; what is spent of another window."""
    if isinstance(window, Bucket):
        return window.level  # type: ignore[return-value]  # exact
    return int(window.limit.capacity) - window.left()


def _sign(window: Window) -> int:
    return 1 if isinstance(window, Bucket) else -1


def _lower(
    known: Known,
    each: Reading,
    window: Window,
    granted: int,
    now: int,
    then: float,
    place_then: int | None,
) -> None:
    """Correct a level that is above what remains, by as much as it was when it was told."""
    if each.remaining < 0 or isinstance(window, Slots):
        return
    if isinstance(window, Bucket):
        excess = then - each.remaining
        whole = window.level >= window.limit.capacity
        if whole and excess <= window.rate * (now - granted):
            return
    else:
        if place_then is not None and not _still_counts(window, place_then):
            return
        most = each.stated if each.stated > 0 else window.limit.capacity
        excess = most - each.remaining - then
    if excess < 1:
        return
    after = [amount for time, amount in known.fixes if time > granted]
    if len(after) == MOST_FIXES:
        return  # there may have been more
    excess -= sum(after)
    if excess < 1:
        return
    if known.fixes and now - known.fixes[-1][0] < QUARTER:
        known.fixes[-1] = (now, known.fixes[-1][1] + excess)
    else:
        known.fixes = [*known.fixes, (now, excess)][-MOST_FIXES:]
    window.charge(excess)  # type: ignore[arg-type]  # exact


def _cut(known: Known, window: Window, granted: int, now: int) -> None:
    """A call that was granted after the last cut was refused: less comes through, to an eighth."""
    if granted <= known.cut or known.is_held(now):
        return
    known.share, known.cut = max(8, int(0.7 * PARTS * known.share_at(now))) / PARTS, now
    assert isinstance(window, Bucket)
    window.level = min(window.level, 0 * window.level)


def _still_counts(window: Window, place: int) -> bool:
    newest = getattr(window, "newest", None)
    if newest is not None:
        return newest - place <= 30
    return getattr(window, "start", place) == place
