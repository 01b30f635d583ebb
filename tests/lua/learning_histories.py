"""Histories in which limits are learned and held, and a run of one against the reference."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import redis
from histories import CONFIGS, LENGTH, US, Run, Step, _drawn_step, _used_of, policies_of
from learning_reference import Learning, Reading, Told
from reference import KEEP, Bucket, Lease
from tests_support.scripts import scripts

from limiter_service.engine.levels import limit_of
from limiter_service.engine.policy import Limit, Policy
from limiter_service.store.messages import Verdict

# The same limits as in `histories`, and how they learn: 0 down, 1 both, 2 never, 3 down. Those
# with ramps come in histories of their own, so that the others meet hard faults soon.
_MODES = ("down", "both", "never", "down", "down")
# Half and a quarter of a rate stay above what admission forgives when periods are an eighth.
# A circuit adopts a clock that has stepped back, whatever it answers: another test's.
_CONFIGS = [
    text.replace("1.048576s", "0.131072s") + f"\n    learn: {mode}\n    breaker: {{enabled: false}}"
    for text, mode in zip(CONFIGS[:5], _MODES, strict=True)
]
_RAMPS = [text + "\n    learn: both\n    breaker: {enabled: false}" for text in CONFIGS[5:]]
_KINDS = (
    ["acquire"] * 8
    + ["settle"] * 3
    + ["report"] * 4
    + ["overtaken"] * 2
    + ["observe"] * 4
    + ["hold", "tick", "tick", "check", "reload", "renew"]
)
_FACTORS = (0.25, 0.5, 1.0, 2.0)
_FORGIVEN = 1e-6
_LIVES = (2 * US, 20 * US, 200 * US)


def drawn(random: Random) -> tuple[int, list[Step]]:
    """A history from a seed."""
    return random.randrange(len(_CONFIGS) - 1), [_drawn(random) for _ in range(LENGTH)]


def drawn_with_ramps(random: Random) -> tuple[int, list[Step]]:
    """A history of limits with ramps."""
    first = len(_CONFIGS) + random.randrange(len(_RAMPS))
    return first, [_drawn(random) for _ in range(LENGTH)]


def _drawn(random: Random) -> Step:
    step = _drawn_step(random)
    return Step(random.choice(_KINDS), step.who, step.amount, step.time)


class LearningRun(Run):
    """One history under way."""

    reference: Learning

    def __init__(self, client: redis.Redis, loaded: Mapping[str, Any], first: int) -> None:
        super().__init__(client, loaded, first)
        self.reference = Learning()
        ramps = first >= len(_CONFIGS)
        self.policies = [policies_of(text) for text in (_RAMPS if ramps else _CONFIGS)]
        self.config = first - len(_CONFIGS) if ramps else first
        self.levels: dict[str, dict[int, float]] = {}

    def policy(self, who: int) -> Policy:
        """As there; what is in force may be more than any configuration says."""
        policy = super().policy(who)
        for _, limit, _, _ in self.reference.open(policy, self.bench.now):
            self.most[limit.id] = max(self.most.get(limit.id, 0), limit.capacity)
            self.rates[limit.id] = max(self.rates.get(limit.id, 0), limit.rate)
        return policy

    def acquire(self, step: Step) -> None:
        """As there; and levels at the moment of the grant are remembered for reports."""
        before = set(self.reference.leases)
        super().acquire(step)
        policy = self.policy(step.who)
        for key in set(self.reference.leases) - before:
            opened = self.reference.open(policy, self.bench.now)
            self.levels[key] = {limit.id: _figure(window) for _, limit, window, _ in opened}
        self.reference.assert_never_above(policy, self.bench.now)

    def observe(self, step: Step) -> None:
        """Somebody without a lease reports what a provider said, once or several times."""
        policy = self.policy(step.who)
        for _ in range(1 + step.amount % 4):
            self.bench.now += max(0, step.time) // 2
            readings = _readings(policy, step)
            answer = self.bench.observe(policy, readings)
            assert answer.verdict is Verdict.DONE, "an observation"
            before = len(self.reference.events)
            self.reference.observe(policy, readings, self.bench.now)
            assert answer.numbers[0] == len(self.reference.events) - before, "events"
            self._assert_in_force(policy)

    def report(self, step: Step) -> None:
        """Some lease is settled with what the provider said to its call."""
        self._report(step, *self._some_lease(step))

    def overtaken(self, step: Step) -> None:
        """Between a grant and its report, refusals of others have changed the limit."""
        before = set(self.reference.leases)
        self.acquire(Step("acquire", step.who, 3 * (step.amount % 7) + 1, 0))
        self.observe(Step("observe", step.who, 12 * (step.amount % 13), 1000))
        for key in set(self.reference.leases) - before:
            told = Step("report", step.who, 3 * (step.amount % 41), 0)
            self._report(told, key, self.reference.leases[key])

    def _report(self, step: Step, key: str, lease: Lease) -> None:
        if key not in self.reference.leases or lease.settled is not None:
            return
        policy = self._policy_of(key)
        readings = _readings(policy, step)
        refused = step.amount % 3 == 0
        used = [0.0 if each == KEEP else each for each in _used_of(policy, step)]
        used = used if refused else [KEEP] * len(policy.limits)
        answer = self.bench.report(
            policy, key.partition("/")[2], lease.nonce, used, readings, refused=refused
        )
        if self.bench.now >= lease.deadline:
            assert answer.verdict is Verdict.EXPIRED, "a late report"
            return
        assert answer.verdict is Verdict.DONE, "a report"
        back = {
            limit.id: lease.charges[limit.id].amount - amount
            for limit, amount in zip(policy.limits, used, strict=True)
            if refused and amount >= 0 and limit.id in lease.charges
        }
        wall = self.bench.now
        self.reference.observe(policy, readings, wall, lease, self.levels[key], back)
        self.reference.settle(policy, lease, used, wall)
        self._assert_moved(answer.numbers, lease)
        self._assert_in_force(policy)

    def hold(self, step: Step) -> None:
        """An operator holds a limit to another value, or lets go of it."""
        policy = self.policy(step.who)
        place = step.amount % len(policy.limits) if policy.limits else None
        if place is None:
            return
        told = None
        if step.amount % 5:
            told = _told(policy.limits[place], step)
        before = len(self.reference.events)
        answer = self.bench.hold(policy, place, told)
        assert answer.verdict is Verdict.DONE, "an order"
        self.reference.hold(policy, place, told, self.bench.now)
        assert answer.numbers[0] == len(self.reference.events) - before, "events"
        self._assert_in_force(policy)

    def finish(self) -> None:
        """What holds at the end, and what the stream of events says."""
        super().finish()
        told = [
            tuple(fields[name.encode()].decode() for name in ("type", "limit", "from", "to"))
            for fields in self.bench.events()
        ]
        assert told == self.reference.events, "each change is told once"

    def _assert_honest(self, policy: Policy, amounts: list[int], wait: int) -> None:
        """As there, where no limit ends meanwhile: then another one decides; and where more is
        missing a microsecond before than admission forgives.
        """
        if self.reference.ends_within(policy, self.bench.now, wait):
            return
        wall = self.bench.now + wait - 1
        missing = max(
            amount - window.left()
            for amount, (_, limit, window, now) in zip(
                amounts, self.reference.open(policy, wall), strict=True
            )
            if not limit.shadow and window.wait(amount, now, wall) != 0
        )
        if missing > _FORGIVEN:
            super()._assert_honest(policy, amounts, wait)

    def _assert_in_force(self, policy: Policy) -> None:
        levels = self.bench.snapshot(policy)
        opened = self.reference.open(policy, self.bench.now)
        for level, (_, limit, _, _), own in zip(levels, opened, policy.limits, strict=True):
            capacity = own.capacity if level.capacity is None else level.capacity
            assert capacity == limit.capacity, f"capacity of {limit.name}"
            if own.window == "bucket":
                assert (level.rate or own.rate) == limit.rate, f"rate of {limit.name}"
                assert limit_of(own, level) == round(own.limit * limit.rate / own.rate, 6)
        self._assert_snapshot(policy)


def run(
    client: redis.Redis, faults: Mapping[str, str] | None = None
) -> Callable[[tuple[int, list[Step]]], None]:
    """As `histories.run`."""
    loaded = scripts(faults)

    def one(history: tuple[int, list[Step]]) -> None:
        try:
            once(history)
        except AssertionError:  # perhaps a pause of the machine
            once(history)

    def once(history: tuple[int, list[Step]]) -> None:
        client.flushall()
        first, what = history
        under_way = LearningRun(client, loaded, first)
        for step in what:
            under_way.step(step)
        under_way.finish()

    return one


def _figure(window: Any) -> float:
    if isinstance(window, Bucket):
        return window.level  # type: ignore[return-value]  # exact
    return int(window.limit.capacity) - window.left()


def _readings(policy: Policy, step: Step) -> list[Reading]:
    if not policy.limits:
        return []
    places = {step.who % len(policy.limits), step.amount % len(policy.limits)}
    return [
        _reading(policy.limits[place], place, step)
        for place in sorted(places)
        if policy.limits[place].window not in {"concurrency", "ramp"}  # no provider states them
    ]


def _reading(limit: Limit, place: int, step: Step) -> Reading:
    told = _told_of(limit, _FACTORS[(step.amount + place) % 4], 0)
    says = step.amount % 7 > 0
    return Reading(
        place=place,
        stated=told.value if says else 0.0,
        capacity=told.capacity if says else 0.0,
        rate=told.rate if says else 0.0,
        remaining=-1.0 if step.amount % 5 == 1 else float(step.amount % 64),
        refused=step.amount % 3 == 0,
        life=_LIVES[step.who % 3],
        cut=step.amount % 6 == 0 and limit.window == "bucket",
    )


def _told(limit: Limit, step: Step) -> Told:
    life = -1 if step.who == 15 else _LIVES[step.amount % 3]
    return _told_of(limit, _FACTORS[step.who % 4], life)


def _told_of(limit: Limit, share: float, until: int) -> Told:
    """A share of a limit: exact for buckets, whole for the others."""
    if limit.window == "bucket":
        return Told(limit.limit * share, limit.capacity * share, limit.rate * share, until)
    value = float(max(1, int(limit.limit * share)))
    return Told(value, value, 0.0, until)
