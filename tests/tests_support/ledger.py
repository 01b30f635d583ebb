"""Whether a journal keeps the promises, told from what ran and when, by no window's arithmetic.

What a fault may cost is itemised: writes that a failover loses may be granted again, up to the
limit, and the debt that calls have left who used more than they reserved is lost as far as those
writes have made it; what came back with a report or a cancel that it loses comes back with the
next, less what the call has used beyond by then, which counts from its grant; a clock that steps
forward lets in what would have come in that time. Replicas that decide alone may grant on top what
they took after their last look, what calls of others use beyond what they reserved, and one that is
cut off what it has not been able to charge; one that has never seen a limit begins with nothing,
also where there is less: in a debt. All are over when the limit has been whole, or a period has
gone by. Nothing else is forgiven.
"""

import struct
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from limiter_service.engine.policy import SLOTS_OF_A_WINDOW, Limit, Policy

_CHARGES, _EPOCH, _MARKS, _COUNT = 9, 6, 7, 8  # places in a lease (lua/lib/lease)
_PROBE = 32
_SPARE = 0.02  # of a limit, for what is not known to the microsecond
_OF_A_MODEL = 2
_ALL = 2  # a block's last report
_LITTLE = 1e-6
_BRIEF = 0.001  # seconds that a slot may be longer, for whole microseconds
_LONGEST = 20.0  # seconds within which every lease of before is over
_RECENT = 10.0  # seconds that a replica may have looked before it decides alone
_BLUR = 1.0  # seconds by which the times of a lease that was granted alone are known
_PAST = 60.0  # seconds for which a debt is remembered
_GRANTING = frozenset({"acquire", "enqueue", "pass", "lend"})

ALONE = struct.Struct("<5d")
"""What a replica says of a grant of its own: its name, since when it is alone, since when all
have looked, into how many shares limits are divided (0: they are not enforced), and which of its
limits it had never seen, a bit each.
"""


class Broken(AssertionError):
    """A promise was not kept."""


class Ran(NamedTuple):
    """What happened: when, in seconds of the world, what, to which lease, and what was answered.

    Beside scripts there are `pass` (a waiter was granted, by a dispatch) and `places` (who stands
    in the queue after a dispatch or a sweep); and what happens without the store: `alone` (a
    replica has granted) and `ended` (it has heard of the end).
    """

    at: float
    name: str
    key: str
    request: bytes
    reply: bytes


class Held(msgspec.Struct):
    """A lease. Until `until` it surely runs, as far as the store knows, and after `latest` it
    surely does not; `moved` says that what was used is known, `sure` that what it holds is.
    `alone` is the replica that has granted it without the store, which was away `since` then and
    has heard of it when it is `stored`. Who waited has `fetched` it, and a replica has heard that
    its call has `ended`. So much of each limit has come `back` that a failover has lost: the next
    report brings it back again. All of it was `returned`, by a cancel.
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
    alone: float = 0.0
    since: float = 0.0
    stored: bool = True
    fetched: bool = False
    ended: bool = False
    returned: bool = False
    back: dict[int, float] = msgspec.field(default_factory=dict)
    told: list[tuple[int, int, float]] = msgspec.field(default_factory=list)
    """What reports have given back: which entry of the journal, limit, amount."""


class Taken(NamedTuple):
    """What was taken through the store: when, how much, and whether by a call that uses more than
    it has reserved, which nobody was asked for.
    """

    at: float
    much: float
    beyond: bool


class Bucket:
    """How far below full: what was taken and has not come back by time."""

    def __init__(self, limit: Limit, parts: float = 1.0) -> None:
        self.capacity, self.rate = limit.capacity / parts, limit.rate * 1e6 / parts
        self._debt, self._at, self._forgiven = 0.0, 0.0, 0.0
        self._past: deque[tuple[float, float]] = deque()
        """When the debt was how much, after each move."""
        self._most, self.behind, self._seen_at = 0.0, False, 0.0
        """The most that the debt can be, and whether the clock has stepped back since: the time
        until the store has seen that brings nothing.
        """

    def move(self, now: float, amount: float, _lease: Held) -> None:
        """Take, or give back."""
        self.seen(now)
        self._most = max(0.0, self._most + amount)
        self._debt = max(0.0, self._debt - (now - self._at) * self.rate)
        # What was let in is paid off with the rest of the debt, and with nothing else.
        self._forgiven = min(self._forgiven, self._debt)
        self._debt, self._at = max(0.0, self._debt + amount), now
        self._past.append((now, self._debt))
        while len(self._past) > 1 and self._past[1][0] < now - _PAST:
            self._past.popleft()

    def beyond(self, then: float) -> float:
        """How much more than there is was taken then, and is not let in."""
        at, debt = next((past for past in reversed(self._past) if past[0] <= then), (then, 0.0))
        return max(0.0, debt - (then - at) * self.rate - self.capacity - self._forgiven)

    def seen(self, now: float) -> None:
        """The store has looked, and goes on from here."""
        self._most, self.behind = self.capacity - self.left(now), False
        self._seen_at = now

    def left(self, now: float) -> float:
        """How much there surely is."""
        gained = 0.0 if self.behind else (now - self._seen_at) * self.rate
        return self.capacity - max(0.0, self._most - gained)

    def back(self) -> None:
        """The store's clock steps back."""
        self.behind = True

    def lost(self, now: float, amount: float) -> None:
        """The store has forgotten so much: it may be whole again, however deep the debt was."""
        self._forgiven += min(self.capacity + self.beyond(now), amount)

    def leap(self, now: float, seconds: float) -> None:
        """The store believes that so much time has gone by: all debt of that time is paid."""
        debt = max(0.0, self._debt - (now - self._at) * self.rate)
        self._forgiven = min(debt, self._forgiven + self.rate * seconds)

    def over(self, _now: float, late: float = 0.0) -> float:
        """How much more is taken than there is, by who is so late."""
        return self._debt - self.capacity - self._forgiven - self.rate * late


class Sliding:
    """What calls of the last period have taken."""

    def __init__(self, limit: Limit, parts: float = 1.0) -> None:
        assert limit.per is not None
        self.capacity, self._period = limit.capacity / parts, float(limit.per)
        self._slot = self._period / SLOTS_OF_A_WINDOW + _BRIEF
        self._taken: deque[list[float]] = deque()
        self._of: dict[int, tuple[Held, list[list[float]]]] = {}
        """When how much was taken, and at most counts: the store gives back to when a lease was
        granted, also what a renewal took; of all calls, and of each lease.
        """
        self._forgiven: list[tuple[float, float]] = []
        self.behind, self._sure_at = False, 0.0

    def move(self, now: float, amount: float, lease: Held) -> None:
        """Take; what comes back comes back of the call that took it, once."""
        self.seen(now)
        _, mine = self._of.setdefault(id(lease), (lease, []))
        if amount >= 0:
            mine.append([now, amount, amount])
            self._taken.append(mine[-1])
            return
        for taken in mine[:1]:
            taken[2] = max(0.0, taken[2] + amount)
        for taken in mine:
            part = min(-amount, taken[1])
            taken[1] -= part
            amount += part

    def stays(self, lease: Held, amount: float) -> None:
        """So much of what has come back of a call has not, for the store."""
        for taken in self._of[id(lease)][1][:1]:
            taken[1], taken[2] = taken[1] + amount, taken[2] + amount

    def seen(self, now: float) -> None:
        """The store has looked, and goes on from here."""
        if self.behind:
            self.behind, self._sure_at = False, now + self._period + self._slot

    def left(self, now: float) -> float:
        """How much there surely is: what was taken counts for a period and a slot."""
        if self.behind or now < self._sure_at:
            return 0.0
        self._sum(now)
        since = now - self._period - self._slot
        return self.capacity - sum(most for at, _, most in self._taken if at > since)

    def back(self) -> None:
        """The store's clock steps back: what was taken counts for longer."""
        self.behind = True

    def lost(self, now: float, amount: float) -> None:
        """The store has forgotten so much, and with it what calls have used beyond the limit."""
        most = self.capacity + max(0.0, self.over(now))
        self._forgiven.append((now + self._period, min(most, amount)))

    def leap(self, now: float, _seconds: float) -> None:
        """The store's window has moved on, however little; what calls have used beyond the limit
        has gone with it.
        """
        self._forgiven.append((now + self._period, max(self.capacity, self._sum(now))))

    def _sum(self, now: float, late: float = 0.0) -> float:
        while self._taken and self._taken[0][0] <= now - self._period - self._slot:
            self._taken.popleft()
        since = now - self._period + late
        return sum(amount for at, amount, _ in self._taken if at > since)

    def over(self, now: float, late: float = 0.0) -> float:
        """How much more is taken than there is, by who is so late."""
        taken = self._sum(now, late)
        self._forgiven = [(until, amount) for until, amount in self._forgiven if until >= now]
        return taken - self.capacity - sum(amount for _, amount in self._forgiven)


class Slots:
    """Calls that surely run: granted, not reported, their lease not over."""

    def __init__(self, limit: Limit, parts: float = 1.0) -> None:
        self.capacity = limit.capacity / parts
        self._held: list[Held] = []
        self._perhaps: list[Held] = []
        self._forgiven: list[tuple[float, float]] = []

    def move(self, _now: float, amount: float, lease: Held) -> None:
        """Take a slot."""
        if amount > 0:
            self._held = [*(h for h in self._held if h is not lease), lease]
            self._perhaps = [*(h for h in self._perhaps if h is not lease), lease]

    def lost(self, now: float, amount: float) -> None:
        """A lease that the store has forgotten does not count."""

    def free(self, now: float) -> float:
        """How many slots are surely free: of a call that is over none is held."""
        self._perhaps = [h for h in self._perhaps if not h.settled and h.latest > now]
        return self.capacity - len(self._perhaps)

    def allow(self, until: float, amount: float) -> None:
        """Until then so many more may run."""
        self._forgiven.append((until, amount))

    def leap(self, now: float, seconds: float) -> None:
        """Leases end sooner, which they know themselves."""

    def over(self, now: float, _late: float = 0.0) -> float:
        """How many more run than may."""
        self._held = [h for h in self._held if not (h.settled or h.ended or h.until <= now)]
        self._forgiven = [(until, amount) for until, amount in self._forgiven if until >= now]
        return len(self._held) - self.capacity - sum(amount for _, amount in self._forgiven)


Window = Bucket | Sliding | Slots
_KINDS: dict[str, type[Window]] = {"bucket": Bucket, "sliding": Sliding, "concurrency": Slots}

Place = tuple[str, int]
"""A limit: the key of its scope, and its id."""


class Ledger:
    """Reads a journal as it grows. Raises Broken.

    `torn` says that replicas may be apart: one that is alone while others reach the store grants
    its share on top of what they grant. Otherwise all are alone together, and that is nothing but
    what comes in the seconds within which they know the store's time, `late`. With `refusals` a
    refusal for want of what is there is a broken promise, too.
    """

    def __init__(
        self,
        policies: dict[str, Policy],
        probe_ttl: float,
        probes: int,
        *,
        torn: bool = True,
        late: float = 0.0,
        refusals: bool = False,
    ) -> None:
        self._policies, self._probe_ttl, self._probes = policies, probe_ttl, probes
        self._late, self._refusals = late, refusals
        self._torn = torn
        self._windows: dict[Place, Window] = {}
        self._shares: dict[tuple[float, float, Place], Window] = {}
        self._recent: dict[Place, deque[Taken]] = defaultdict(deque)
        self._looked: dict[Place, float] = {}
        self.leases: dict[str, Held] = {}
        self.owing: dict[str, Held] = {}
        """What was granted alone and is not charged yet, by the key of its lease."""
        self._twins: dict[str, Held] = {}
        self._also: dict[str, Held] = {}
        """What replicas have granted that the store had granted too, as they have."""
        self._cancelled: dict[int, tuple[str, dict[str, Held], Held]] = {}
        """Leases that were taken back, by the entry of the journal that says so: their keys, and
        among which they were.
        """
        self.left: set[str] = set()
        """Leases whose callers have said that they do not want them."""
        self._read = 0
        self._sure_at = -1.0
        """From when on it is known again which slots are held at most."""
        self._doubtful = False
        self._taken: list[tuple[int, Place, float]] = []
        self._trying: list[Held] = []
        self.grants = self.settles = self.probed = self.alone = self.charged = 0
        self.waited = self.returned = 0

    def read(self, journal: Sequence[Ran]) -> None:
        """Take in what has run since."""
        for place in range(self._read, len(journal)):
            ran, self._read = journal[place], place
            name, letter = ran.name, ran.reply[8:9]
            if name in _GRANTING and letter == b"G":
                self._granted(ran)
            elif name == "acquire" and letter == b"D" and self._refusals:
                self._denied(ran)
                self._looked_at(ran)
            elif name == "settle" and letter in {b"G", b"g"}:
                self._settled(ran)
            elif name == "repay" and letter in {b"G", b"g"}:
                self._repaid(ran)
            elif name == "renew" and letter == b"G":
                self._renewed(ran)
            elif name == "enqueue" and letter == b"R":
                self._fetched(ran)
            elif name == "cancel" and letter == b"R":
                self._returned(ran)
            elif name == "charge" and letter in {b"G", b"R"}:
                self._charged(ran, letter)
            elif name == "alone":
                self._alone(ran)
            elif name == "ended":
                self._ended(ran)
        self._read = len(journal)

    def _window(self, place: Place, limit: Limit) -> Window:
        window = self._windows.get(place)
        if window is None:
            window = self._windows[place] = _KINDS[limit.window](limit)
        return window

    def _move(
        self,
        place: Place,
        limit: Limit,
        lease: Held,
        at: float,
        much: float,
        *,
        beyond: bool = False,
    ) -> None:
        self._window(place, limit).move(at, much, lease)
        if much > 0:
            self._note(place, Taken(at, much, beyond))

    def _note(self, place: Place, taken: Taken) -> None:
        """So much was taken through the store."""
        self._taken.append((self._read, place, taken.much))
        recent = self._recent[place]
        recent.append(taken)
        while recent[0].at < taken.at - _RECENT:
            recent.popleft()

    def lose(self, journal: Sequence[Ran], kept: int, now: float) -> None:
        """What ran after the first *kept* is lost: it happened, but the store forgets it."""
        self.read(journal)
        self._sure_at, self._doubtful = now + _LONGEST, True
        net: dict[Place, float] = defaultdict(float)
        for index, place, amount in self._taken:
            if index >= kept:
                net[place] += amount
        for ran in journal[kept:]:
            lease, letter = self.leases.get(ran.key), ran.reply[8:9]
            if lease is None:
                continue
            if ran.name in _GRANTING and letter == b"G":
                if ran.name == "pass" and ran.key in self._twins:
                    twin = self._twins.pop(ran.key)
                    twin.until = twin.probes_until = -1.0
                    continue
                if lease.alone:
                    lease.stored = False
                    continue
                lease.until = lease.probes_until = -1.0
                if not self._still(ran.key, lease):
                    del self.leases[ran.key]
            elif ran.name in {"settle", "repay"} and letter in {b"G", b"g"}:
                lease.settled = False
                self._unsay(lease, kept)
            elif ran.name == "renew":
                lease.until = lease.probes_until = -1.0
                lease.sure = False  # of what it holds
            elif ran.name == "enqueue" and letter == b"R":
                lease.fetched = lease.sure = False
            elif ran.name == "charge" and letter == b"G":
                lease.stored = False
        self._uncancel(journal, kept)
        for place, amount in net.items():
            self._windows[place].lost(now, amount)

    def _still(self, key: str, lease: Held) -> bool:
        """Whether a replica has granted it as well, when a failover has lost that the store had."""
        also = self._also.pop(key, None)
        if also is None:
            return False
        lease.alone, lease.since, lease.stored = also.alone, also.since, False
        lease.nonce, lease.until, lease.latest = also.nonce, also.until, also.latest
        if not also.stored:
            self.owing[key] = lease
        return True

    def _uncancel(self, journal: Sequence[Ran], kept: int) -> None:
        """The store has forgotten which grants have come back after the first *kept*."""
        granted = {
            (ran.key, ran.at)
            for ran in journal[kept:]
            if ran.name in _GRANTING and ran.reply[8:9] == b"G"
        }
        for index, (key, among, lease) in list(self._cancelled.items()):
            if index >= kept:
                del self._cancelled[index]
                if (key, lease.at) not in granted and key not in among:
                    lease.returned, among[key] = True, lease

    def step(self, seconds: float, now: float) -> None:
        """The store's clock goes forward: what would have come in that time comes at once; or
        back: nothing comes before its time.
        """
        if seconds < 0:
            for window in self._windows.values():
                if isinstance(window, Bucket | Sliding):
                    window.back()
            for lease in self.leases.values():
                lease.latest -= seconds
            return
        for window in self._windows.values():
            window.leap(now, seconds)
        for lease in self.leases.values():
            lease.until -= seconds
            lease.probes_until -= seconds

    def _lease(self, ran: Ran) -> Held:
        policy = self._policies[ran.key]
        numbers = struct.unpack(f"<{(len(ran.reply) - 9) // 8}d", ran.reply[9:])
        count, until = int(numbers[_COUNT]), ran.at + numbers[2] / 1e6
        probe = int(numbers[_MARKS]) % 64 >= _PROBE
        return Held(
            policy=policy,
            nonce=numbers[0],
            charges=list(numbers[_CHARGES : _CHARGES + count]),
            epoch=numbers[_EPOCH],
            probe=probe,
            at=ran.at,
            until=until,
            latest=until,
            probes_until=ran.at + self._probe_ttl if probe else -1.0,
            fetched=ran.name != "pass",
        )

    def _granted(self, ran: Ran) -> None:
        known = self.leases.get(ran.key)
        if known is not None and known.returned:
            known = None
        if known is not None and ran.name != "pass" and known.alone and not known.stored:
            known.stored = True  # it was asked for here before it was granted alone
            for place, amount in zip(_places(known.policy), known.charges, strict=True):
                if amount > 0:
                    self._note(place, Taken(ran.at, amount, beyond=False))
            return
        lease = self._lease(ran)
        if known is not None and ran.name == "pass" and known.alone:
            self._twins[ran.key] = lease  # its place in the queue has outlived its wait
        elif known is not None:
            raise Broken(f"{ran.key} was granted twice")
        else:
            self.leases[ran.key] = lease
        policy = lease.policy
        self.grants += 1
        self.waited += ran.name == "pass"
        for place, limit, amount in zip(_places(policy), policy.limits, lease.charges, strict=True):
            self._move(place, limit, lease, ran.at, amount)
            self._bound(place, limit, ran.at)
        if lease.probe:
            self._probe(lease, ran.at)

    def _denied(self, ran: Ran) -> None:
        """Nobody is refused for a slot that is free, nor for tokens that are there."""
        policy, nth = self._policies[ran.key], int(struct.unpack_from("<d", ran.reply, 9)[0]) - 1
        limit, place = policy.limits[nth], _places(policy)[nth]
        window = self._windows.get(place)
        even = isinstance(window, Sliding) or place[0] in _apart(policy)
        if isinstance(window, Bucket | Sliding) and not self._doubtful and even:
            (amount,) = struct.unpack_from("<d", ran.request, 8 * (_CHARGES + nth))
            spare = window.left(ran.at) - amount
            if spare > _SPARE * limit.capacity:
                raise Broken(f"{spare:g} of {limit.name} are there at {ran.at:.3f}, and refused")
        if not isinstance(window, Slots) or ran.at < self._sure_at:
            return
        free = window.free(ran.at)
        if free >= 1:
            raise Broken(f"{free:g} of {limit.name} are free at {ran.at:.3f}, and none is granted")

    def _looked_at(self, ran: Ran) -> None:
        """A refusal writes that a clock has stepped back, and nothing else."""
        for place in _places(self._policies[ran.key]):
            window = self._windows.get(place)
            if isinstance(window, Bucket | Sliding) and window.behind:
                window.seen(ran.at)

    def _bound(self, place: Place, limit: Limit, now: float) -> None:
        over = self._windows[place].over(now, self._late if self.alone else 0.0)
        if over > _LITTLE * max(1.0, limit.capacity):
            if self._torn and over <= self._uncharged(place, now) + _LITTLE:
                return
            raise Broken(f"{limit.name} is over by {over:g} at {now:.3f}")

    def _uncharged(self, place: Place, now: float) -> float:
        """What replicas have granted alone that the store has not been told."""
        total = 0.0
        for lease in self.owing.values():
            for other, limit, amount in zip(
                _places(lease.policy), lease.policy.limits, lease.charges, strict=True
            ):
                over = lease.settled or lease.ended or lease.until <= now
                if other == place and amount > 0 and not (limit.window == "concurrency" and over):
                    total += amount
        return total

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
        self._revive(lease, ran.at)
        if lease.settled:
            raise Broken(f"{ran.key} was settled twice")
        if ran.at >= lease.latest + _LITTLE:
            raise Broken(f"{ran.key} was settled when its lease was over")
        moved, lease.settled, lease.moved = lease.moved, True, True
        self.settles += 1
        if lease.sure:
            self._count(lease, ran)
        used = struct.unpack_from(f"<{len(lease.charges)}d", ran.request, 56)
        places, limits = _places(lease.policy), lease.policy.limits
        for n, (place, limit, held, real) in enumerate(
            zip(places, limits, lease.charges, used, strict=True)
        ):
            if real < 0 or held < 0:
                continue
            if not moved:  # else a failover has lost that it was settled: nothing is used twice
                self._move(place, limit, lease, ran.at, real - held, beyond=True)
                lease.told.append((self._read, n, held - real))
            elif n in lease.back:
                self._again(lease, n, ran.at)

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

    def _repaid(self, ran: Ran) -> None:
        """Of a block stays charged what its report says, unless it is only about endings."""
        lease = self.leases.get(ran.key)
        if lease is None:
            raise Broken(f"{ran.key} is repaid and was never granted")
        if lease.settled:
            raise Broken(f"{ran.key} was settled twice")
        if ran.at >= lease.latest + _LITTLE:
            raise Broken(f"{ran.key} was repaid when its lease was over")
        stage, *stays = struct.unpack_from(f"<{1 + len(lease.charges)}d", ran.request, 24)
        if stage == 0:
            return
        places, limits = _places(lease.policy), lease.policy.limits
        for n, (place, limit, real) in enumerate(zip(places, limits, stays, strict=True)):
            change = real - lease.charges[n]
            self._move(place, limit, lease, ran.at, change - self._stayed(lease, n, change))
            self._again(lease, n, ran.at)
            lease.told.append((self._read, n, -change))
            lease.charges[n] = real
        if stage == _ALL:
            lease.settled = lease.moved = True
            self.settles += 1

    def _stayed(self, lease: Held, n: int, change: float) -> float:
        """How much of what is charged now has come back before, which a failover has lost: for the
        store it has counted since the grant.
        """
        window = self._window(_places(lease.policy)[n], lease.policy.limits[n])
        if not isinstance(window, Sliding):
            return 0.0
        much = max(0.0, min(change, lease.back.get(n, 0.0)))
        window.stays(lease, much)
        return much

    def _again(self, lease: Held, n: int, now: float) -> None:
        """What has come back of a limit, and was forgotten, comes back now."""
        place, limit, much = (
            _places(lease.policy)[n],
            lease.policy.limits[n],
            lease.back.pop(n, 0.0),
        )
        window = self._window(place, limit)
        if isinstance(window, Bucket):  # which may have been whole when it came back at first
            _forgive(window, now, much)
        lease.told.append((self._read, n, much))

    def _unsay(self, lease: Held, kept: int) -> None:
        """The store has forgotten what has come back with reports after the first *kept*."""
        for index, n, amount in lease.told:
            if index >= kept:
                lease.back[n] = lease.back.get(n, 0.0) + amount
        lease.told = [each for each in lease.told if each[0] < kept]

    def _renewed(self, ran: Ran) -> None:
        lease = self.leases.get(ran.key)
        if lease is None:
            raise Broken(f"{ran.key} is renewed and was never granted")
        self._revive(lease, ran.at)
        life, *used = struct.unpack_from(f"<{1 + len(lease.charges)}d", ran.request, 16)
        lease.until = lease.latest = ran.at + life / 1e6
        if lease.probe and lease.probes_until > ran.at:
            lease.probes_until = ran.at + self._probe_ttl
        places, limits = _places(lease.policy), lease.policy.limits
        for n, (place, limit, real) in enumerate(zip(places, limits, used, strict=True)):
            if real > lease.charges[n] >= 0:
                more = real - lease.charges[n]
                self._move(place, limit, lease, ran.at, more, beyond=True)
                lease.charges[n] = real

    def _fetched(self, ran: Ran) -> None:
        lease = self._twins.pop(ran.key, None) or self.leases.get(ran.key)
        if lease is not None:
            lease.fetched = True
            self._revive(lease, ran.at)

    def _revive(self, lease: Held, now: float) -> None:
        """A failover has lost that a grant came back, and somebody has it."""
        if not lease.returned:
            return
        lease.returned = lease.settled = False
        for place, limit, held in zip(
            _places(lease.policy), lease.policy.limits, lease.charges, strict=True
        ):
            if held > 0:
                self._move(place, limit, lease, now, held)
                _forgive(self._window(place, limit), now, held)

    def _returned(self, ran: Ran) -> None:
        """A grant that nobody has heard of has come back, in full."""
        among = self._twins if ran.key in self._twins else self.leases
        lease = among.get(ran.key)
        if lease is None or lease.alone:
            return  # a failover has lost it
        del among[ran.key]
        self._cancelled[self._read] = ran.key, among, lease
        if lease.fetched and ran.key not in self.left:
            raise Broken(f"{ran.key} was taken back from a caller who has it")
        self.returned += 1
        if lease.settled and not lease.returned:
            return
        again, lease.settled = lease.returned, lease.sure
        for place, limit, held in zip(
            _places(lease.policy), lease.policy.limits, lease.charges, strict=True
        ):
            window = self._window(place, limit)
            if held > 0 and lease.sure and not again:
                self._move(place, limit, lease, ran.at, -held)
            # A failover has lost that its caller has it, or that it has come back before, when a
            # bucket may have been whole.
            elif held > 0 and (isinstance(window, Bucket) or not again):
                _forgive(window, ran.at, held)

    # Without the store.

    def _alone(self, ran: Ran) -> None:
        """A replica has granted by its share of every limit."""
        replica, since, looked, parts, unseen = ALONE.unpack(ran.request)
        self._doubtful = True
        known, lease = self.leases.get(ran.key), self._lease(ran)
        lease.alone, lease.since, lease.stored = replica, since, False
        lease.until -= _BLUR
        lease.latest += _BLUR
        if known is not None and not known.fetched and not known.alone:
            self._twins[ran.key] = known  # a pass has just granted it too
        elif known is not None:  # by the store, and nobody has heard; or by another replica
            if not known.stored:
                self.owing[ran.key] = known
            elif not known.alone:
                self._also[ran.key] = lease
            return
        self.leases[ran.key] = self.owing[ran.key] = lease
        self.alone += 1
        places, limits = _places(lease.policy), lease.policy.limits
        for n, (place, limit, amount) in enumerate(zip(places, limits, lease.charges, strict=True)):
            window = self._window(place, limit)
            if parts:
                self._look(place, window, ran.at, looked, since)
                if int(unseen) >> n & 1 and limit.window != "concurrency":
                    self._unseen((replica, since, place), limit, parts, lease)
            window.move(ran.at, amount, lease)
            if not parts:
                continue
            self._bound(place, limit, ran.at)
            if limit.window != "concurrency":  # slots that end at a replica are its own
                share = self._shares.get((replica, since, place))
                if share is None:
                    share = _KINDS[limit.window](limit, parts)
                    self._shares[replica, since, place] = share
                share.move(ran.at, amount, lease)
                over = share.over(ran.at, self._late)
                if over > _LITTLE * max(1.0, limit.capacity):
                    raise Broken(f"a share of {limit.name} is over by {over:g} at {ran.at:.3f}")

    def _look(self, place: Place, window: Window, now: float, looked: float, since: float) -> None:
        """What was taken after the last look of some replica may be granted by others again, once;
        and what calls use beyond what they reserved is never known to who has not looked since.
        """
        # Where all are alone together, they may be so again before all have looked.
        begun = looked if self._torn else max(looked, since)
        anew = self._looked.get(place, -1.0) < begun
        if anew:
            self._looked[place] = now
        known: deque[Taken] = deque()
        unknown = 0.0
        for taken in self._recent[place]:
            if taken.at >= looked and (anew or taken.beyond):
                unknown += taken.much
            else:
                known.append(taken)
        self._recent[place] = known
        _forgive(window, now, unknown)

    def _unseen(
        self, share_of: tuple[float, float, Place], limit: Limit, parts: float, lease: Held
    ) -> None:
        """A share of what a replica has never seen begins with nothing. It cannot know of a debt
        that calls have left who used more than they reserved.
        """
        if share_of in self._shares:
            return
        _, since, place = share_of
        share = self._shares[share_of] = _KINDS[limit.window](limit, parts)
        share.move(since, share.capacity, msgspec.structs.replace(lease))  # nobody gives it back
        window = self._windows[place]
        if isinstance(window, Bucket):
            _forgive(window, lease.at, window.beyond(since))

    def _ended(self, ran: Ran) -> None:
        """A replica has heard of the end of a call, without the store."""
        lease = self.leases.get(ran.key)
        if lease is None:
            return
        lease.ended = True
        if not ran.request:  # the store is to hear what was used
            return
        known, lease.moved = lease.moved, True  # by the store, if another has told it
        moved = struct.unpack(f"<{len(lease.charges)}d", ran.request)
        for place, limit, much in zip(
            _places(lease.policy), lease.policy.limits, moved, strict=True
        ):
            if not much:
                continue
            window = self._window(place, limit)
            if not known:
                window.move(ran.at, much, lease)
                _forgive(window, ran.at, much)  # of what it used beyond, other replicas do not know
            share = self._shares.get((lease.alone, lease.since, place))
            if share is not None:
                share.move(ran.at, much, lease)

    def _charged(self, ran: Ran, letter: bytes) -> None:
        """What was granted alone is charged at the store, or was known there."""
        lease = self.leases.get(ran.key)
        if lease is None:
            raise Broken(f"{ran.key} is charged and was never granted")
        self.owing.pop(ran.key, None)
        if letter == b"R":
            if ran.key in self._also:
                self._also[ran.key].stored = True
            return
        if lease.stored:
            raise Broken(f"{ran.key} was charged twice")
        lease.stored = True
        self.charged += 1
        count, now = len(lease.charges), ran.at
        debits = struct.unpack_from(f"<{count}d", ran.request, 8 * (_CHARGES + count))
        for place, limit, held, debit in zip(
            _places(lease.policy), lease.policy.limits, lease.charges, debits, strict=True
        ):
            window = self._window(place, limit)
            if debit > 0:
                self._note(place, Taken(now, debit, beyond=False))
                if self._torn:
                    _forgive(window, now, window.over(now))
            if self._torn and isinstance(window, Bucket):  # its share of the rate came on top
                _forgive(window, now, held - debit)


def _forgive(window: Window, now: float, amount: float) -> None:
    if amount > 0 and isinstance(window, Slots):
        window.allow(now + _RECENT, amount)
    elif amount > 0:
        window.lost(now, amount)


def _apart(policy: Policy) -> list[str]:
    """The scopes that no circuit slows down when it has closed."""
    return [scope.key for scope in policy._scopes if scope.level != _OF_A_MODEL]


def _places(policy: Policy) -> list[Place]:
    return [(scope.key, limit.id) for scope in policy._scopes for limit in scope.limits]
