"""What the scripts must do, in plain Python: one object per limit, time as an argument.

It shares nothing with the Lua but the rules. Beside the answers it keeps a ledger of every
grant and refund, from which conservation is checked without any window's arithmetic.
"""

from bisect import bisect_right
from fractions import Fraction
from itertools import count

import msgspec

from limiter_service.engine.calendar import boundaries
from limiter_service.engine.policy import SLOTS_OF_A_RAMP, SLOTS_OF_A_WINDOW, Limit, Policy

NEVER = -1
KEEP = -1.0
US = 1_000_000


class Grant(msgspec.Struct):
    """A line of the ledger: when, how much, and what came back of it."""

    at: int
    amount: int
    window: int
    back: int = 0


class Charge(msgspec.Struct):
    """What one lease holds of one limit, and its line in the ledger."""

    amount: int
    place: int
    line: Grant | None = None


class Bucket:
    """Tokens that refill; exact, in fractions."""

    def __init__(self, limit: Limit, now: int) -> None:
        self.limit = limit
        self.level = Fraction(limit.capacity)
        self.rate = Fraction(limit.rate)
        self.at = now

    def adopt(self, limit: Limit, _now: int) -> None:
        """Go on under another configuration: the level stays, the new rate counts."""
        self.limit, self.rate = limit, Fraction(limit.rate)

    def advance(self, now: int, _wall: int) -> None:
        self.level = min(Fraction(self.limit.capacity), self.level + (now - self.at) * self.rate)
        self.at = now

    def left(self) -> Fraction:
        return self.level

    def wait(self, amount: int, _now: int, _wall: int) -> int:
        if amount <= self.level:
            return 0
        if amount > self.limit.capacity:
            return NEVER
        return -((self.level - amount) // self.rate)

    def charge(self, amount: int) -> int:
        self.level -= amount
        return 0

    def adjust(self, delta: int, _place: int) -> int:
        self.level = min(Fraction(self.limit.capacity), self.level - delta)
        return delta

    def reset(self, _now: int, _wall: int) -> Fraction:
        return (Fraction(self.limit.capacity) - self.level) / self.rate


class Sliding:
    """Amounts by slot number; the newest n + 1 slots count."""

    def __init__(self, limit: Limit, now: int) -> None:
        self.limit, self.slots = limit, dict[int, int]()
        self.newest = now // self.width

    @property
    def width(self) -> int:
        assert self.limit.per is not None
        return -(-int(self.limit.per * US) // SLOTS_OF_A_WINDOW)

    def adopt(self, limit: Limit, _now: int) -> None:
        self.limit = limit

    def advance(self, now: int, _wall: int) -> None:
        self.newest = now // self.width
        oldest = self.newest - SLOTS_OF_A_WINDOW
        self.slots = {slot: amount for slot, amount in self.slots.items() if slot >= oldest}

    def left(self) -> int:
        return int(self.limit.capacity) - sum(self.slots.values())

    def wait(self, amount: int, now: int, _wall: int) -> int:
        if amount <= self.left():
            return 0
        if amount > self.limit.capacity:
            return NEVER
        gone = 0
        for slot in sorted(self.slots):
            gone += self.slots[slot]
            if amount <= self.left() + gone:
                return (slot + SLOTS_OF_A_WINDOW + 1) * self.width - now
        raise AssertionError("an amount within capacity fits an empty ring")

    def charge(self, amount: int) -> int:
        self.slots[self.newest] = self.slots.get(self.newest, 0) + amount
        return self.newest

    def adjust(self, delta: int, place: int) -> int:
        slot = self.newest if delta > 0 else place
        if not self.newest - SLOTS_OF_A_WINDOW <= slot <= self.newest:
            return 0
        delta = max(delta, -self.slots.get(slot, 0))
        self.slots[slot] = self.slots.get(slot, 0) + delta
        return delta

    def reset(self, now: int, _wall: int) -> int:
        used = [slot for slot, amount in self.slots.items() if amount]
        return (max(used) + SLOTS_OF_A_WINDOW + 1) * self.width - now if used else 0


class Calendar:
    """What was spent in the window that is counted."""

    def __init__(self, limit: Limit, wall: int) -> None:
        self.limit, self.spent = limit, 0
        self.start = boundaries(limit.config.per, limit.config.timezone, wall)[0]  # type: ignore[arg-type]  # checked by the configuration

    def adopt(self, limit: Limit, _now: int) -> None:
        self.limit = limit

    def ends(self, wall: int) -> int:
        """When the window ends in which *wall* is."""
        return self._window(wall)[1]

    def _window(self, wall: int) -> tuple[int, int]:
        start, end, _ = boundaries(self.limit.config.per, self.limit.config.timezone, wall)  # type: ignore[arg-type]  # checked by the configuration
        return start, end

    def advance(self, _now: int, wall: int) -> None:
        start, end = self._window(wall)
        if self.start < start:
            self.start, self.spent = start, 0
        elif self.start > end:
            self.start = start

    def left(self) -> int:
        return int(self.limit.capacity) - self.spent

    def wait(self, amount: int, _now: int, wall: int) -> int:
        if amount <= self.left():
            return 0
        return NEVER if amount > self.limit.capacity else self.reset(0, wall)

    def charge(self, amount: int) -> int:
        self.spent += amount
        return self.start

    def adjust(self, delta: int, place: int) -> int:
        if delta < 0 and place != self.start:
            return 0
        delta = max(delta, -self.spent)
        self.spent += delta
        return delta

    def reset(self, _now: int, wall: int) -> int:
        return self.ends(self.start) - wall


class Ramp:
    """Amounts by slot number: those of the present period, which has one slot more than fit
    into a period, and as many before.
    """

    def __init__(self, limit: Limit, now: int) -> None:
        self.limit, self.slots = limit, dict[int, int]()
        self.newest = now // self.width

    @property
    def width(self) -> int:
        return ramp_slot(self.limit)

    def adopt(self, limit: Limit, _now: int) -> None:
        self.limit = limit

    def advance(self, now: int, _wall: int) -> None:
        self.newest = now // self.width
        oldest = self.newest - 2 * SLOTS_OF_A_RAMP - 1
        self.slots = {slot: amount for slot, amount in self.slots.items() if slot >= oldest}

    def _used(self, slot: int) -> int:
        return sum(self.slots.get(slot - age, 0) for age in range(SLOTS_OF_A_RAMP + 1))

    def _room(self, slot: int) -> Fraction:
        grown = Fraction(self.limit.factor) * self._used(slot - SLOTS_OF_A_RAMP - 1)
        return max(Fraction(self.limit.capacity), grown) - self._used(slot)

    def left(self) -> Fraction:
        return self._room(self.newest)

    def wait(self, amount: int, now: int, _wall: int, after: int = 0) -> int:
        for slot in count(self.newest):
            at = max(after, slot * self.width - now)
            fits = self._used(slot) == 0 or amount <= self._room(slot)
            if fits and at < (slot + 1) * self.width - now:
                return at
        raise AssertionError("anything fits at last")

    def charge(self, amount: int) -> int:
        self.slots[self.newest] = self.slots.get(self.newest, 0) + amount
        return self.newest

    def adjust(self, delta: int, place: int) -> int:
        slot = self.newest if delta > 0 else place
        if not self.newest - 2 * SLOTS_OF_A_RAMP - 2 < slot <= self.newest:
            return 0
        delta = max(delta, -self.slots.get(slot, 0))
        self.slots[slot] = self.slots.get(slot, 0) + delta
        return delta

    def reset(self, now: int, _wall: int) -> int:
        used = [slot for slot, amount in self.slots.items() if amount]
        return (max(used) + 2 * SLOTS_OF_A_RAMP + 2) * self.width - now if used else 0


def ramp_slot(limit: Limit) -> int:
    """Microseconds of a slot of a ramp."""
    assert limit.per is not None
    return -(-int(limit.per * US) // SLOTS_OF_A_RAMP)


class Slots:
    """Live leases by nonce, with their deadlines."""

    def __init__(self, limit: Limit, now: int) -> None:
        self.limit, self.live, self.at = limit, dict[int, int](), now

    def adopt(self, limit: Limit, _now: int) -> None:
        self.limit = limit

    def advance(self, now: int, _wall: int) -> None:
        self.at = now

    def _deadlines(self) -> list[int]:
        deadlines = sorted(self.live.values())
        return deadlines[bisect_right(deadlines, self.at) :]

    def left(self) -> int:
        return int(self.limit.capacity) - len(self._deadlines())

    def wait(self, amount: int, now: int, _wall: int) -> int:
        over = amount - self.left()
        if over <= 0:
            return 0
        return NEVER if amount > self.limit.capacity else self._deadlines()[over - 1] - now

    def charge(self, _amount: int) -> int:
        return 0

    def adjust(self, _delta: int, _place: int) -> int:
        return 0

    def reset(self, _now: int, _wall: int) -> int:
        return 0


Window = Bucket | Sliding | Calendar | Slots | Ramp
_KINDS: dict[str, type[Window]] = {
    "bucket": Bucket,
    "sliding": Sliding,
    "calendar": Calendar,
    "concurrency": Slots,
    "ramp": Ramp,
}


class Scope:
    """The limits of one scope, and its clock: it moves by what the wall clock has gone
    forward since the last write, and never back.
    """

    def __init__(self, wall: int) -> None:
        self.time, self.wall = wall, wall
        self.windows: dict[int, Window] = {}
        self.aside: dict[int, Window] = {}

    def now(self, wall: int) -> int:
        """The scope's time at *wall*."""
        return self.time + max(0, wall - self.wall)


class Lease(msgspec.Struct):
    """A grant that is remembered."""

    nonce: int
    granted: int
    deadline: int
    charges: dict[int, Charge]
    settled: dict[int, int] | None = None


class Reference:
    """The whole pool."""

    def __init__(self) -> None:
        self.scopes: dict[str, Scope] = {}
        self.leases: dict[str, Lease] = {}
        self.ledger: dict[tuple[str, int], list[Grant]] = {}
        self.slots: dict[tuple[str, int], dict[int, int]] = {}

    def open(self, policy: Policy, wall: int) -> list[tuple[str, Limit, Window, int]]:
        """A copy of every limit of the chain, brought to *wall*, with its scope's time."""
        found = []
        for scope_key, limits in _scopes(policy):
            scope = self.scopes.get(scope_key)
            now = scope.now(wall) if scope else wall
            for limit in limits:
                known = scope.windows | scope.aside if scope else {}
                window = _copy(known.get(limit.id))
                if window is None:
                    start = wall if limit.window == "calendar" else now
                    window = _KINDS[limit.window](limit, start)
                    if isinstance(window, Slots):  # they outlive a configuration without them
                        window.live = dict(self.slots.get((scope_key, limit.id), {}))
                else:
                    window.adopt(limit, now)
                window.advance(now, wall)
                found.append((scope_key, limit, window, now))
        return found

    def behind(self, policy: Policy, wall: int) -> set[str]:
        """The scopes of which a clock has stepped back, and that nobody has written to since."""
        found = set()
        for scope_key, limits in _scopes(policy):
            scope = self.scopes.get(scope_key)
            known = scope.windows | scope.aside if scope else {}
            windows = [known.get(limit.id) for limit in limits]
            if scope and (scope.wall > wall or any(_is_ahead(each, wall) for each in windows)):
                found.add(scope_key)
        return found

    def deny(
        self, policy: Policy, opened: list[tuple[str, Limit, Window, int]], wall: int
    ) -> set[str]:
        """Take nothing; but clocks that have stepped back go on from here. The scopes of those."""
        behind = self.behind(policy, wall)
        self.commit(policy, opened, wall, behind)
        return behind

    def commit(
        self,
        policy: Policy,
        opened: list[tuple[str, Limit, Window, int]],
        wall: int,
        only: set[str] | None = None,
    ) -> None:
        """Write the chain back: limits that its configuration lacks are set aside, and those
        that it has anew begin a new page of the ledger.
        """
        known: dict[str, dict[int, Window]] = {}
        for scope_key, _ in _scopes(policy):
            if only is not None and scope_key not in only:
                continue
            scope = self.scopes.setdefault(scope_key, Scope(wall))
            scope.time, scope.wall = scope.now(wall), wall
            scope.aside |= scope.windows
            known[scope_key], scope.windows = dict(scope.aside), {}
        for scope_key, limit, window, _ in opened:
            if scope_key not in known:
                continue
            self.scopes[scope_key].windows[limit.id] = window
            self.scopes[scope_key].aside.pop(limit.id, None)
            if limit.id not in known[scope_key]:
                self.ledger[scope_key, limit.id] = []
            if isinstance(window, Slots):
                self.slots[scope_key, limit.id] = window.live

    def verdict(
        self, opened: list[tuple[str, Limit, Window, int]], amounts: list[int], wall: int
    ) -> tuple[int, int]:
        """Number of the binding limit (0: all have room) and the wait: until all fit at once."""
        worst, longest = 0, 0
        for i, ((_, limit, window, now), amount) in enumerate(zip(opened, amounts, strict=True)):
            wait = window.wait(amount, now, wall)
            if wait == 0 or limit.shadow or longest == NEVER:
                continue
            if wait == NEVER or wait > longest:
                worst, longest = i + 1, wait
        ramps = [
            (i + 1, window, amount, now)
            for i, ((_, limit, window, now), amount) in enumerate(zip(opened, amounts, strict=True))
            if isinstance(window, Ramp) and not limit.shadow
        ]
        before = 0
        while before < longest:
            before = longest
            for nth, window, amount, now in ramps:
                wait = window.wait(amount, now, wall, longest)
                if wait > longest:
                    worst, longest = nth, wait
        return worst, longest

    def grant(
        self, policy: Policy, request: str, nonce: int, ttl: int, amounts: list[int], wall: int
    ) -> Lease:
        """Charge every limit that has room, and write the ledger."""
        opened = self.open(policy, wall)
        charges: dict[int, Charge] = {}
        lines: list[tuple[str, int, Grant]] = []
        for (scope_key, limit, window, now), amount in zip(opened, amounts, strict=True):
            if window.wait(amount, now, wall) != 0:
                charges[limit.id] = Charge(-1, -1)  # a shadow
                continue
            charges[limit.id] = Charge(amount, window.charge(amount))
            if isinstance(window, Slots):
                window.live = {n: d for n, d in window.live.items() if d > now}
                window.live[nonce] = now + ttl
            lines.append((scope_key, limit.id, Grant(now, amount, charges[limit.id].place)))
        self.commit(policy, opened, wall)
        for scope_key, limit_id, line in lines:
            self.ledger[scope_key, limit_id].append(line)
            charges[limit_id].line = line
        lease = Lease(nonce, wall, wall + ttl, charges)
        self.leases[request] = lease
        return lease

    def settle(self, policy: Policy, lease: Lease, used: list[float], wall: int) -> None:
        """Move every charge to what was used, where it still counts."""
        opened = self.open(policy, wall)
        lease.settled = dict.fromkeys(lease.charges, 0)
        refunds: list[tuple[str, Limit, Window, int, Charge]] = []
        for (scope_key, limit, window, _), amount in zip(opened, used, strict=True):
            charge = lease.charges.get(limit.id)
            if charge is None or charge.amount < 0:
                continue
            if amount != KEEP:
                moved = window.adjust(int(amount) - charge.amount, charge.place)
                lease.settled[limit.id] = moved
                self._note_debit(scope_key, limit, window, moved)
                if moved < 0:
                    refunds.append((scope_key, limit, window, -moved, charge))
            if isinstance(window, Slots):
                window.live.pop(lease.nonce, None)
        self.commit(policy, opened, wall)
        for refund in refunds:
            self._note_refund(*refund)

    def renew(
        self, policy: Policy, lease: Lease, ttl: int, used: list[float], wall: int
    ) -> dict[int, int]:
        """Move the deadline, and charge what goes beyond the reservation; what has moved, by id."""
        opened = self.open(policy, wall)
        changed: dict[int, int] = {}
        for (scope_key, limit, window, now), amount in zip(opened, used, strict=True):
            charge = lease.charges.get(limit.id)
            if charge is None or charge.amount < 0:
                continue
            if amount > charge.amount:
                moved = window.adjust(int(amount) - charge.amount, charge.place)
                self._note_debit(scope_key, limit, window, moved)
                charge.amount, changed[limit.id] = int(amount), moved
            if isinstance(window, Slots):
                window.live = {n: d for n, d in window.live.items() if d > now}
                window.live[lease.nonce] = now + ttl
        self.commit(policy, opened, wall)
        lease.deadline = wall + ttl
        return changed

    def _note_debit(self, scope_key: str, limit: Limit, window: Window, moved: int) -> None:
        """What was used beyond a reservation is the base of what a ramp allows next."""
        if isinstance(window, Ramp) and moved > 0:
            at = window.newest * window.width
            self.ledger.setdefault((scope_key, limit.id), []).append(Grant(at, moved, 0))

    def _note_refund(
        self, scope_key: str, limit: Limit, window: Window, refund: int, charge: "Charge"
    ) -> None:
        if isinstance(window, Bucket):
            self.ledger[scope_key, limit.id].append(Grant(window.at, -refund, 0))
        elif charge.line is not None:
            charge.line.back += refund

    def assert_conserved(
        self,
        policy: Policy,
        most: dict[int, float],
        rates: dict[int, float],
        stepped_back: bool,
    ) -> None:
        """I1 from the ledger alone; *most* and *rates* are the largest ever configured.

        A calendar follows the wall clock: one that goes back by several windows was wrong,
        and takes an older window up again, so its windows are not disjoint then.
        """
        for scope_key, limits in _scopes(policy):
            for limit in limits:
                lines = self.ledger.get((scope_key, limit.id), [])
                if lines and not limit.shadow and not (stepped_back and limit.window == "calendar"):
                    _CONSERVED[limit.window](limit, lines, most[limit.id], rates[limit.id])


def _conserved_bucket(limit: Limit, lines: list[Grant], most: float, rate: float) -> None:
    last = lines[-1]
    total = 0
    for line in reversed(lines):
        total += line.amount
        assert total <= most + rate * (last.at - line.at) + 1e-6, f"{limit.name} overspent"


def _conserved_sliding(limit: Limit, lines: list[Grant], most: float, _rate: float) -> None:
    assert limit.per is not None
    last = lines[-1].at
    inside = [g for g in lines if g.at > last - limit.per * US]
    assert sum(g.amount - g.back for g in inside) <= most, f"{limit.name} overspent in a period"


def _conserved_calendar(limit: Limit, lines: list[Grant], most: float, _rate: float) -> None:
    window = lines[-1].window
    inside = [g for g in lines if g.window == window]
    assert sum(g.amount - g.back for g in inside) <= most, f"{limit.name} overspent in a window"


def _conserved_ramp(limit: Limit, lines: list[Grant], start: float, factor: float) -> None:
    """The newest grant keeps the promise of its period, or is alone in it."""
    width, last = ramp_slot(limit), lines[-1]
    age = [last.at // width - line.at // width for line in lines]
    present = [line for line, slots in zip(lines, age, strict=True) if slots <= SLOTS_OF_A_RAMP]
    before = [
        line.amount - line.back
        for line, slots in zip(lines, age, strict=True)
        if SLOTS_OF_A_RAMP < slots < 2 * SLOTS_OF_A_RAMP + 2
    ]
    used = sum(line.amount - line.back for line in present)
    alone = used == last.amount
    assert alone or used <= max(start, factor * sum(before)), f"{limit.name} grew too fast"


def _conserved_slots(_limit: Limit, _lines: list[Grant], _most: float, _rate: float) -> None:
    """Live leases are compared with the script's count at every step."""


_CONSERVED = {
    "bucket": _conserved_bucket,
    "sliding": _conserved_sliding,
    "calendar": _conserved_calendar,
    "concurrency": _conserved_slots,
    "ramp": _conserved_ramp,
}


def _scopes(policy: Policy) -> list[tuple[str, tuple[Limit, ...]]]:
    return [(scope.key, scope.limits) for scope in policy._scopes]


def _is_ahead(window: Window | None, wall: int) -> bool:
    """Whether it counts a window of the calendar that is more than one ahead."""
    return isinstance(window, Calendar) and window.start > window.ends(wall)


def _copy(window: Window | None) -> Window | None:
    if window is None:
        return None
    twin = object.__new__(type(window))
    twin.__dict__.update(
        {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(window).items()
        }
    )
    return twin
