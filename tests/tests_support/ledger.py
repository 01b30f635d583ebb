"""Whether a journal keeps the promises, told from what ran and when, by no window's arithmetic.

What a fault may cost is itemised: writes that a failover loses may be granted again, up to the
limit; a clock that steps forward lets in what would have come in that time. Both are over when
the limit has been whole, or a period has gone by. Nothing else is forgiven.
"""

import struct
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from limiter_service.engine.policy import Limit, Policy

_CHARGES, _EPOCH, _MARKS, _COUNT = 9, 6, 7, 8  # places in a lease (lua/lib/lease)
_PROBE = 32
_LITTLE = 1e-6


class Broken(AssertionError):
    """A promise was not kept."""


class Ran(NamedTuple):
    """A script that ran: when, in seconds of the world, on what, and what it answered."""

    at: float
    name: str
    key: str
    request: bytes
    reply: bytes


class Held(msgspec.Struct):
    """A lease. Until `until` it surely runs, as far as the store knows, and after `latest` it
    surely does not; `moved` says that what was used is known, `sure` that what it holds is.
    """

    policy: Policy
    nonce: float
    charges: list[float]
    epoch: float
    probe: bool
    at: float
    until: float
    latest: float
    probes_until: float
    settled: bool = False
    moved: bool = False
    sure: bool = True


class Bucket:
    """How far below full: what was taken and has not come back by time."""

    def __init__(self, limit: Limit) -> None:
        self.capacity, self.rate = limit.capacity, limit.rate * 1e6
        self._debt, self._at, self._forgiven = 0.0, 0.0, 0.0

    def move(self, now: float, amount: float, _lease: Held) -> None:
        """Take, or give back."""
        self._debt = max(0.0, self._debt - (now - self._at) * self.rate)
        # What was let in is paid off with the rest of the debt, and with nothing else.
        self._forgiven = min(self._forgiven, self._debt)
        self._debt, self._at = max(0.0, self._debt + amount), now

    def lost(self, _now: float, amount: float) -> None:
        """The store has forgotten so much."""
        self._forgiven += min(self.capacity, amount)

    def leap(self, now: float, seconds: float) -> None:
        """The store believes that so much time has gone by."""
        self.lost(now, self.rate * seconds)

    def over(self, _now: float) -> float:
        """How much more is taken than there is."""
        return self._debt - self.capacity - self._forgiven


class Sliding:
    """What calls of the last period have taken."""

    def __init__(self, limit: Limit) -> None:
        assert limit.per is not None
        self.capacity, self._period = limit.capacity, float(limit.per)
        self._taken: deque[tuple[float, float, float]] = deque()
        self._back: dict[float, float] = defaultdict(float)
        self._forgiven: list[tuple[float, float]] = []

    def move(self, now: float, amount: float, lease: Held) -> None:
        """Take; what comes back comes back of the call that took it."""
        if amount >= 0:
            self._taken.append((now, amount, lease.nonce))
        else:
            self._back[lease.nonce] -= amount

    def lost(self, now: float, amount: float) -> None:
        """The store has forgotten so much."""
        self._forgiven.append((now + self._period, min(self.capacity, amount)))

    def leap(self, now: float, _seconds: float) -> None:
        """The store's window has moved on, however little."""
        self.lost(now, self.capacity)

    def over(self, now: float) -> float:
        """How much more is taken than there is."""
        while self._taken and self._taken[0][0] <= now - self._period:
            self._taken.popleft()
        taken = sum(amount - self._back[nonce] for _, amount, nonce in self._taken)
        self._forgiven = [(until, amount) for until, amount in self._forgiven if until >= now]
        return taken - self.capacity - sum(amount for _, amount in self._forgiven)


class Slots:
    """Calls that surely run: granted, not reported, their lease not over."""

    def __init__(self, limit: Limit) -> None:
        self.capacity = limit.capacity
        self._held: list[Held] = []

    def move(self, _now: float, amount: float, lease: Held) -> None:
        """Take a slot."""
        if amount > 0:
            self._held.append(lease)

    def lost(self, now: float, amount: float) -> None:
        """A lease that the store has forgotten does not count."""

    def leap(self, now: float, seconds: float) -> None:
        """Leases end sooner, which they know themselves."""

    def over(self, now: float) -> float:
        """How many more run than may."""
        self._held = [h for h in self._held if not h.settled and h.until > now]
        return len(self._held) - self.capacity


_KINDS = {"bucket": Bucket, "sliding": Sliding, "concurrency": Slots}


class Ledger:
    """Reads a journal as it grows. Raises Broken."""

    def __init__(self, policies: dict[str, Policy], probe_ttl: float, probes: int) -> None:
        self._policies, self._probe_ttl, self._probes = policies, probe_ttl, probes
        self._windows: dict[tuple[str, int], Bucket | Sliding | Slots] = {}
        self.leases: dict[str, Held] = {}
        self._read = 0
        self._taken: list[tuple[int, tuple[str, int], float]] = []
        self._trying: list[Held] = []
        self.grants = self.settles = self.probed = 0

    def read(self, journal: Sequence[Ran]) -> None:
        """Take in what has run since."""
        for place, ran in enumerate(journal[self._read :], self._read):
            letter, self._read = ran.reply[8:9], place
            if ran.name == "acquire" and letter == b"G":
                self._granted(ran)
            elif ran.name == "settle" and letter in {b"G", b"g"}:
                self._settled(ran)
            elif ran.name == "renew" and letter == b"G":
                self._renewed(ran)
        self._read = len(journal)

    def _move(
        self, place: tuple[str, int], limit: Limit, lease: Held, at: float, much: float
    ) -> None:
        window = self._windows.get(place)
        if window is None:
            window = self._windows[place] = _KINDS[limit.window](limit)
        window.move(at, much, lease)
        if much > 0:
            self._taken.append((self._read, place, much))

    def lose(self, journal: Sequence[Ran], kept: int, now: float) -> None:
        """What ran after the first *kept* is lost: it happened, but the store forgets it."""
        self.read(journal)
        net: dict[tuple[str, int], float] = defaultdict(float)
        for index, place, amount in self._taken:
            if index >= kept:
                net[place] += amount
        for ran in journal[kept:]:
            lease = self.leases.get(ran.key)
            if lease is None:
                continue
            if ran.name == "acquire" and ran.reply[8:9] == b"G":
                lease.until = lease.probes_until = -1.0
                del self.leases[ran.key]
            elif ran.name == "settle" and ran.reply[8:9] in {b"G", b"g"}:
                lease.settled = False
            elif ran.name == "renew":
                lease.until = lease.probes_until = -1.0
                lease.sure = False  # of what it holds
        for place, amount in net.items():
            self._windows[place].lost(now, amount)

    def step(self, seconds: float, now: float) -> None:
        """The store's clock goes forward: what would have come in that time comes at once; or
        back: nothing comes before its time.
        """
        if seconds < 0:
            for lease in self.leases.values():
                lease.latest -= seconds
            return
        for window in self._windows.values():
            window.leap(now, seconds)
        for lease in self.leases.values():
            lease.until -= seconds
            lease.probes_until -= seconds

    def _granted(self, ran: Ran) -> None:
        if ran.key in self.leases:
            raise Broken(f"{ran.key} was granted twice")
        policy = self._policies[ran.key]
        numbers = struct.unpack(f"<{(len(ran.reply) - 9) // 8}d", ran.reply[9:])
        count = int(numbers[_COUNT])
        probe = int(numbers[_MARKS]) % 64 >= _PROBE
        lease = Held(
            policy=policy,
            nonce=numbers[0],
            charges=list(numbers[_CHARGES : _CHARGES + count]),
            epoch=numbers[_EPOCH],
            probe=probe,
            at=ran.at,
            until=ran.at + numbers[2] / 1e6,
            latest=ran.at + numbers[2] / 1e6,
            probes_until=ran.at + self._probe_ttl if probe else -1.0,
        )
        self.leases[ran.key] = lease
        self.grants += 1
        for place, limit, amount in zip(_places(policy), policy.limits, lease.charges, strict=True):
            self._move(place, limit, lease, ran.at, amount)
            window = self._windows[place]
            if window.over(ran.at) > _LITTLE * max(1.0, limit.capacity):
                raise Broken(f"{limit.name} is over by {window.over(ran.at):g} at {ran.at:.3f}")
        if probe:
            self._probe(lease, ran.at)

    def _probe(self, lease: Held, now: float) -> None:
        self.probed += 1
        self._trying = [h for h in self._trying if not h.settled and h.probes_until > now]
        self._trying.append(lease)
        circuit = (lease.policy.model, lease.epoch)
        same = sum((held.policy.model, held.epoch) == circuit for held in self._trying)
        if same > self._probes:
            raise Broken(f"{same} probes at once at {now:.3f}")

    def _settled(self, ran: Ran) -> None:
        lease = self.leases.get(ran.key)
        if lease is None:
            raise Broken(f"{ran.key} is settled and was never granted")
        if struct.unpack_from("<d", ran.request, 16)[0] % 2 == 1:  # its first token
            lease.probes_until = -1.0
            return
        if lease.settled:
            raise Broken(f"{ran.key} was settled twice")
        if ran.at >= lease.latest + _LITTLE:
            raise Broken(f"{ran.key} was settled when its lease was over")
        moved, lease.settled, lease.moved = lease.moved, True, True
        self.settles += 1
        if lease.sure:
            self._count(lease, ran)
        if moved:  # a failover has lost that it was settled: nothing is used twice
            return
        used = struct.unpack_from(f"<{len(lease.charges)}d", ran.request, 56)
        for place, limit, held, real in zip(
            _places(lease.policy), lease.policy.limits, lease.charges, used, strict=True
        ):
            if real >= 0 and held >= 0:
                self._move(place, limit, lease, ran.at, real - held)

    def _count(self, lease: Held, ran: Ran) -> None:
        """What moved on a bucket is what was used, less what was held."""
        count = len(lease.charges)
        used = struct.unpack_from(f"<{count}d", ran.request, 56)
        moved = struct.unpack(f"<{count}d", ran.reply[-8 * count :])
        for limit, held, real, change in zip(
            lease.policy.limits, lease.charges, used, moved, strict=True
        ):
            due = real - held if real >= 0 else 0.0
            if limit.window == "bucket" and abs(change - due) > _LITTLE * max(1.0, abs(due)):
                raise Broken(f"{limit.name} moved by {change:g} instead of {due:g}")

    def _renewed(self, ran: Ran) -> None:
        lease = self.leases[ran.key]
        life, *used = struct.unpack_from(f"<{1 + len(lease.charges)}d", ran.request, 16)
        lease.until = lease.latest = ran.at + life / 1e6
        if lease.probe and lease.probes_until > ran.at:
            lease.probes_until = ran.at + self._probe_ttl
        places, limits = _places(lease.policy), lease.policy.limits
        for n, (place, limit, real) in enumerate(zip(places, limits, used, strict=True)):
            if real > lease.charges[n] >= 0:
                self._move(place, limit, lease, ran.at, real - lease.charges[n])
                lease.charges[n] = real


def _places(policy: Policy) -> list[tuple[str, int]]:
    return [(scope.key, limit.id) for scope in policy._scopes for limit in scope.limits]
