"""A replica alone decides as the scripts do, and several together grant no more than one limit."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import _KINDS, Bucket, Calendar, Ramp, Sliding, Slots, Window
from tests_support.scripts import START

from limiter_service.config import parse
from limiter_service.engine import local
from limiter_service.engine.levels import Level
from limiter_service.engine.local import Sight, window_of
from limiter_service.engine.policy import SLOTS_OF_A_RAMP, SLOTS_OF_A_WINDOW, Limit, Policies

US = 1_000_000
RING = SLOTS_OF_A_WINDOW + 1
# A period of 2^20 microseconds makes rates exact in binary, and a share of a half or a fourth too.
LIMITS = {
    "bucket": "{meter: tokens, limit: 128, per: 1.048576s, burst: 64}",
    "sliding": "{meter: tokens, limit: 96, per: 3s, window: sliding}",
    "calendar": "{meter: tokens, limit: 128, per: minute, window: calendar}",
    "concurrency": "{meter: concurrency, limit: 8}",
    "ramp": "{meter: tokens, limit: 9000, per: 3s, ramp: {start: 96, factor: 2, period: 3s}}",
}


def limit_of(kind: str) -> Limit:
    """A limit of each kind."""
    text = f"pools: {{p: {{models: {{m: {{limits: [{LIMITS[kind]}]}}}}}}}}"
    return Policies(parse(text, ".yaml"), "sg:").policy("p/m", "t").limits[-1]


def seen(truth: Window, now: int) -> Level:
    """What a look shows of the reference."""
    match truth:
        case Bucket():
            cell = [float(truth.level)]
        case Sliding():
            ring = [0.0] * RING
            for slot, amount in truth.slots.items():
                ring[slot % RING] = amount
            cell = [truth.newest, sum(ring), *ring]
        case Calendar():
            cell = [truth.start, truth.spent]
        case Ramp():
            slots = [0.0] * 2 * (SLOTS_OF_A_RAMP + 1)
            for slot, amount in truth.slots.items():
                slots[slot % len(slots)] = amount
            cell = [truth.newest, *slots]
        case _:
            assert isinstance(truth, Slots)
            cell = [truth.limit.capacity - truth.left()]
    return Level(limit_id=truth.limit.id, cell=cell, now=now, wall=now)


class Alone:
    """One replica, and the whole truth that it does not see."""

    def __init__(self, kind: str, parts: int, begin: list[int]) -> None:
        self.limit, self.now, self.nonce = limit_of(kind), START, 0
        self.truth = _KINDS[kind](self.limit, START)
        for amount in begin:
            self.pass_time(amount * 1000)
            self.take(1 if kind == "concurrency" else amount)
        self.look = seen(self.truth, self.now)
        self.parts = parts

    def pass_time(self, time: int) -> None:
        """Let time go by."""
        self.now += time
        self.truth.advance(self.now, self.now)

    def take(self, amount: int) -> bool:
        """Take from the truth when it has room."""
        if self.truth.wait(amount, self.now, self.now) != 0:
            return False
        self.charge(amount)
        return True

    def charge(self, amount: int) -> None:
        """Take from the truth, whether it has room or not."""
        self.truth.charge(amount)
        if isinstance(self.truth, Slots):
            self.nonce += 1
            self.truth.live[self.nonce] = self.now + 2 * US

    def share(self, *taken: tuple[float, float]) -> local.Window:
        """What a replica begins with that has *taken* so much by then, since the look."""
        sight = Sight(level=self.look, taken=taken, part=1 / self.parts, now=self.now)
        return window_of(self.limit, sight)


AMOUNTS = st.integers(1, 40)
SMALL = st.integers(1, 12)
SOMETIMES = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(0, 1_500_000))
STEPS = st.lists(st.tuples(st.integers(0, 2_000_000), AMOUNTS), max_size=30)


@pytest.mark.parametrize("kind", ["bucket", "sliding", "calendar"])
@given(begin=st.lists(AMOUNTS, max_size=5), steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_one_replica_with_the_whole_limit_decides_as_the_scripts_do(
    kind: str, begin: list[int], steps: list[tuple[int, int]]
) -> None:
    """The same verdict, the same wait, the same level, from what was seen on."""
    world = Alone(kind, 1, begin)
    share = world.share()
    for time, amount in steps:
        world.pass_time(time)
        share.advance(world.now)
        assert share.left(world.now) == pytest.approx(float(world.truth.left()), abs=1e-3)
        wait = world.truth.wait(amount, world.now, world.now)
        assert share.wait(amount, world.now) == pytest.approx(wait, abs=1)
        assert share.reset(world.now) == pytest.approx(
            float(world.truth.reset(world.now, world.now)), abs=1
        )
        if wait == 0:
            world.charge(amount)
            share.take(amount, world.now, 1.0, 1.0)


@pytest.mark.parametrize("kind", list(LIMITS))
@given(
    begin=st.lists(AMOUNTS, max_size=5),
    before=st.lists(st.tuples(st.integers(0, 3), SOMETIMES, SMALL), max_size=12),
    since=SOMETIMES,
    steps=st.lists(st.tuples(st.integers(0, 3), SOMETIMES, SMALL), min_size=20, max_size=60),
    parts=st.sampled_from([2, 3, 4]),
)
@settings(max_examples=60, deadline=None)
def test_shares_never_exceed_the_limit_together(
    kind: str,
    begin: list[int],
    before: list[tuple[int, int, int]],
    since: int,
    steps: list[tuple[int, int, int]],
    parts: int,
) -> None:
    """Whatever each has taken through the store since the look, up to its share of it."""
    world = Alone(kind, parts, begin)
    fair = world.share().left(world.now)
    own: list[list[tuple[float, float]]] = [[] for _ in range(parts)]
    for who, time, wanted in before:
        world.pass_time(time)
        amount, mine = 1 if kind == "concurrency" else wanted, own[who % parts]
        if sum(much for _, much in mine) + amount <= fair and world.take(amount):
            mine.append((world.now, amount))
    world.pass_time(since)
    shares = [world.share(*each) for each in own]
    for who, time, wanted in steps:
        world.pass_time(time)
        share = shares[who % parts]
        amount = 1 if kind == "concurrency" else wanted
        share.advance(world.now)
        if share.wait(amount, world.now) == 0:
            world.charge(amount)
            share.take(amount, world.now, world.nonce, 2 * US)
        elif kind == "ramp":
            continue  # its room goes with time
        assert world.truth.left() >= -Fraction(1, 1000)


@pytest.mark.parametrize("kind", ["bucket", "sliding", "ramp"])
def test_what_has_come_back_since_the_look_belongs_to_whoever_took_it(kind: str) -> None:
    """Of a limit that was spent: one has taken all of it since, so the others get nothing."""
    world = Alone(kind, 2, [])
    world.charge(int(world.limit.capacity))
    world.look = seen(world.truth, world.now)
    world.pass_time(250_000 if kind == "bucket" else 3_200_000)
    back = math.floor(world.truth.left())
    assert back > 0
    assert world.take(back)
    shares = [world.share((world.now, back)), world.share()]
    for share in shares:
        share.advance(world.now)
    assert sum(max(0.0, share.left(world.now)) for share in shares) <= world.truth.left()


@pytest.mark.parametrize("kind", ["bucket", "sliding", "calendar"])
@given(begin=st.lists(AMOUNTS, max_size=3), steps=STEPS, back=st.lists(AMOUNTS, max_size=30))
@settings(max_examples=40, deadline=None)
def test_what_is_owed_is_what_the_truth_lacks(
    kind: str, begin: list[int], steps: list[tuple[int, int]], back: list[int]
) -> None:
    """Charging it at the end leaves the level that charging each grant in time would have."""
    world, bare = Alone(kind, 1, begin), Alone(kind, 1, begin)
    share = world.share()
    taken: list[tuple[int, float]] = []
    for (time, amount), less in zip(steps, back, strict=False):
        world.pass_time(time)
        bare.pass_time(time)
        share.advance(world.now)
        if share.wait(amount, world.now) != 0:
            continue
        place = world.truth.charge(amount)
        share.take(amount, world.now, 1.0, 1.0)
        used = max(1, amount - less)
        moved = share.settle(used - amount, world.now, world.now, 1.0)
        assert moved == world.truth.adjust(used - amount, place)
        taken.append((world.now, used))
    share.advance(world.now)
    debt = 0.0
    for at, used in reversed(taken):
        if share.counts(at, world.now):
            debit = min(used, share.owed(world.now))
            share.paid(debit)
            debt += debit
    assert float(bare.truth.left()) - debt == pytest.approx(float(world.truth.left()), abs=1e-3)


@pytest.mark.parametrize("kind", list(LIMITS))
def test_a_limit_that_was_never_seen_begins_with_nothing(kind: str) -> None:
    """Never with a full share; time fills it where it would."""
    limit = limit_of(kind)
    window = window_of(limit, Sight(level=None, taken=[], part=1.0, now=START))
    assert window.left(START) <= 0
    assert window.wait(1, START) != 0
