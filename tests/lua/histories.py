"""Histories of calls, and a run of one against the scripts and the reference."""

import functools
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec
import redis
from hypothesis import strategies as st
from reference import KEEP, NEVER, Lease, Reference
from tests_support.scripts import POOL, Bench, scripts

from limiter_service.config import Config, parse
from limiter_service.engine.levels import left, read, reset
from limiter_service.engine.policy import Policies, Policy
from limiter_service.store.messages import Verdict
from limiter_wire import Meter

US = 1_000_000
MODELS, TENANTS = ("m1", "m2"), ("t1", "t2")

# A period of 2^20 microseconds makes every rate exact in binary, so levels are compared
# exactly; the tolerance of admission has a test of its own.
_EXACT = "1.048576s"

CONFIGS = [
    # Buckets on every scope.
    f"""
    lease_ttl: 30s
    limits: [{{meter: requests, limit: 12, per: {_EXACT}}}]
    models:
      m1: {{limits: [{{meter: tokens, limit: 100, per: {_EXACT}}}, {{meter: requests, limit: 6, per: {_EXACT}, burst: 3}}]}}
      "*": {{limits: [{{meter: tokens, limit: 50, per: {_EXACT}, burst: 120}}]}}
    tenants:
      t1: {{limits: [{{meter: tokens, limit: 64, per: {_EXACT}}}], models: {{m1: {{concurrency: 2}}}}}}
    """,
    # The same with other amounts, another order, and a shadow.
    f"""
    lease_ttl: 30s
    limits: [{{meter: requests, limit: 9, per: {_EXACT}, burst: 20}}]
    models:
      m1: {{limits: [{{meter: requests, limit: 8, per: {_EXACT}}}, {{meter: tokens, limit: 70, per: {_EXACT}}}]}}
      "*": {{limits: [{{meter: tokens, limit: 90, per: {_EXACT}}}, {{meter: input_tokens, limit: 40, per: {_EXACT}, mode: shadow}}]}}
    tenants:
      "*": {{limits: [{{meter: tokens, limit: 80, per: {_EXACT}, burst: 128}}]}}
    """,
    # Sliding and calendar windows, slots.
    """
    lease_ttl: 5s
    limits: [{meter: tokens, limit: 300, per: minute, window: calendar}]
    models:
      m1: {concurrency: 3, limits: [{meter: tokens, limit: 100, per: 3s, window: sliding}]}
      m2: {limits: [{meter: requests, limit: 5, per: 2s, window: sliding}, {meter: tokens, limit: 150, per: minute, window: calendar}]}
    tenants:
      t2: {concurrency: 2, limits: [{meter: tokens, limit: 60, per: 1s, window: sliding, mode: shadow}]}
    """,
    # The same with other amounts, one limit less and one more.
    f"""
    lease_ttl: 5s
    limits: [{{meter: tokens, limit: 200, per: minute, window: calendar}}]
    models:
      m1: {{concurrency: 2, limits: [{{meter: tokens, limit: 140, per: 3s, window: sliding}}, {{meter: tokens, limit: 128, per: {_EXACT}}}]}}
      m2: {{limits: [{{meter: tokens, limit: 180, per: minute, window: calendar, mode: shadow}}]}}
    tenants:
      t2: {{concurrency: 1, limits: [{{meter: tokens, limit: 60, per: 1s, window: sliding}}]}}
    """,
    # No limits at all.
    """
    models: {"*": {}}
    """,
    # Ramps: of a pool, beside buckets, a sliding and a calendar window.
    f"""
    lease_ttl: 30s
    limits: [{{meter: requests, limit: 40, per: {_EXACT}, ramp: {{start: 4, factor: 2, period: 2s}}}}]
    models:
      m1: {{limits: [{{meter: tokens, limit: 500, per: {_EXACT}, ramp: {{start: 60, factor: 1.5, period: 4s}}}}]}}
      m2: {{limits: [{{meter: tokens, limit: 400, per: 3s, window: sliding, ramp: {{start: 50, factor: 3, period: 1s}}}}]}}
    tenants:
      t1: {{limits: [{{meter: tokens, limit: 900, per: minute, window: calendar, ramp: {{start: 100, factor: 4, period: 500ms}}}}]}}
    """,
    # The same with other starts and factors, and one in shadow.
    f"""
    lease_ttl: 30s
    limits: [{{meter: requests, limit: 20, per: {_EXACT}, ramp: {{start: 2, factor: 3, period: 2s}}}}]
    models:
      m1: {{limits: [{{meter: tokens, limit: 300, per: {_EXACT}, ramp: {{start: 90, factor: 1.25, period: 4s}}}}]}}
      m2: {{limits: [{{meter: tokens, limit: 200, per: 3s, window: sliding, mode: shadow, ramp: {{start: 30, factor: 2, period: 1s}}}}]}}
    """,
]


class Step(msgspec.Struct, frozen=True):
    """One thing that happens; which fields count depends on `kind`."""

    kind: str
    who: int
    amount: int
    time: int


_KINDS = ["acquire"] * 10 + ["settle"] * 5 + ["renew", "tick", "tick", "check", "reload"]
_AMOUNTS = [(0, 40), (0, 40), (41, 160)]
_TIMES = [(0, 0), (1, 200_000), (200_000, 2 * US), (2 * US, 8 * US), (-3 * US, -1)]
_LEAPS = [61 * US, 3600 * US, -90 * US]

_kinds = st.sampled_from(_KINDS)
_amounts = st.one_of(*(st.integers(low, high) for low, high in _AMOUNTS))
_times = st.one_of(
    *(st.integers(low, high) for low, high in _TIMES),
    st.sampled_from(_LEAPS),
)
steps = st.builds(Step, kind=_kinds, who=st.integers(0, 15), amount=_amounts, time=_times)
LENGTH = 50
histories = st.tuples(
    st.integers(0, len(CONFIGS) - 1), st.lists(steps, min_size=LENGTH, max_size=LENGTH)
)


def drawn(random: Random) -> tuple[int, list[Step]]:
    """A history as the strategy makes them, from a seed: the same whatever else is loaded."""
    return random.randrange(len(CONFIGS)), [_drawn_step(random) for _ in range(LENGTH)]


def _drawn_step(random: Random) -> Step:
    times = [*(random.randint(low, high) for low, high in _TIMES), random.choice(_LEAPS)]
    return Step(
        kind=random.choice(_KINDS),
        who=random.randint(0, 15),
        amount=random.randint(*random.choice(_AMOUNTS)),
        time=random.choice(times),
    )


_TTL, _REMEMBER = 4 * US, 3600 * US


class Run:
    """One history under way."""

    def __init__(self, client: redis.Redis, loaded: Mapping[str, Any], first: int) -> None:
        self.bench = Bench(client, dict(loaded))
        self.reference = Reference()
        self.used: dict[str, tuple[str, str]] = {}
        self.policies: list[Policies] = [policies_of(text) for text in CONFIGS]
        self.config = first
        self.nonce = 1000
        self.stepped_back = False
        self.most: dict[int, float] = {}
        self.rates: dict[int, float] = {}

    def step(self, step: Step) -> None:
        """Do one step on both sides and compare."""
        getattr(self, step.kind)(step)

    def policy(self, who: int) -> Policy:
        """The chain of one of four callers under the configuration in force."""
        model, tenant = MODELS[who % 2], TENANTS[who // 2 % 2]
        policy = self.policies[self.config].policy(f"{POOL}/{model}", tenant)
        for limit in policy.limits:
            self.most[limit.id] = max(self.most.get(limit.id, 0), limit.capacity)
            rate = limit.factor if limit.window == "ramp" else limit.rate
            self.rates[limit.id] = max(self.rates.get(limit.id, 0), rate)
        return policy

    def tick(self, step: Step) -> None:
        """The server's clock moves, also backwards."""
        self.bench.now += step.time
        self.stepped_back |= step.time < 0

    def reload(self, step: Step) -> None:
        """Another configuration comes into force."""
        self.config = step.who % len(self.policies)

    def acquire(self, step: Step) -> None:
        """A new request, or an old one again."""
        policy = self.policy(step.who)
        self.bench.now += max(0, step.time) // 16
        request = f"r{step.who}" if step.amount % 5 == 0 else f"n{self.nonce}"
        amounts = _amounts_of(policy, step.amount)
        self.nonce += 1
        before = self.bench.dump() if step.amount % 3 == 0 else None
        answer = self.bench.acquire(
            policy,
            request,
            nonce=self.nonce,
            print_=step.amount + 1,
            ttl=_TTL,
            remember=_REMEMBER,
            amounts=amounts,
        )
        key = f"{policy.tenant}/{request}"
        known = self.reference.leases.get(key)
        if known is not None:
            self._assert_replayed(answer, known, key, step.amount + 1)
            return
        wall = self.bench.now
        opened = self.reference.open(policy, wall)
        worst, wait = self.reference.verdict(opened, amounts, wall)
        if worst:
            assert answer.verdict is Verdict.DENIED, f"{answer.verdict} instead of a denial"
            assert answer.numbers[:2] == (worst, wait), "binding limit and wait"
            self._assert_levels(policy, answer.numbers, 2)
            wrote = set() if before is None else _written(before, self.bench.dump())
            wrote -= self.reference.deny(policy, opened, wall)
            assert not wrote, f"a denial wrote {wrote}"
            self._assert_honest(policy, amounts, wait)
            return
        assert answer.verdict is Verdict.DONE, f"{answer.verdict} instead of a grant"
        lease = self.reference.grant(policy, key, self.nonce, _TTL, amounts, wall)
        self.used[key] = (policy.model, str(step.amount + 1))
        charges = [lease.charges[limit.id].amount for limit in policy.limits]
        assert list(answer.numbers[9 : 9 + len(charges)]) == charges, "charges"
        assert answer.numbers[0] == self.nonce, "nonce"
        self._assert_levels(policy, answer.numbers, 9 + len(charges))
        self.reference.assert_conserved(policy, self.most, self.rates, self.stepped_back)

    def check(self, step: Step) -> None:
        """A question changes nothing and says what acquire would."""
        policy, amounts = self.policy(step.who), _amounts_of(self.policy(step.who), step.amount)
        before = self.bench.dump()
        answer = self.bench.check(policy, amounts)
        wrote = _written(before, self.bench.dump())
        assert not wrote, f"a check wrote {wrote}"
        opened = self.reference.open(policy, self.bench.now)
        expected = self.reference.verdict(opened, amounts, self.bench.now)
        assert answer.numbers[:2] == expected, "what a check says"
        self._assert_levels(policy, answer.numbers, 5)

    def settle(self, step: Step) -> None:
        """Report usage for some lease: open, settled, expired or unknown."""
        key, lease = self._some_lease(step)
        policy = self._policy_of(key)
        used = _used_of(policy, step)
        nonce = lease.nonce if step.time != 0 or step.amount % 7 else lease.nonce + 1
        answer = self.bench.settle(policy, key.partition("/")[2], nonce, used)
        if nonce != lease.nonce or key not in self.reference.leases:
            assert answer.verdict is Verdict.UNKNOWN, "a wrong lease settles nothing"
        elif lease.settled is not None:
            assert answer.verdict is Verdict.ALREADY, "a second settle"
            self._assert_moved(answer.numbers, lease)
        elif self.bench.now >= lease.deadline:
            assert answer.verdict is Verdict.EXPIRED, "a late settle"
        else:
            assert answer.verdict is Verdict.DONE, "a settle"
            self.reference.settle(policy, lease, used, self.bench.now)
            self._assert_moved(answer.numbers, lease)
            self._assert_snapshot(policy)

    def renew(self, step: Step) -> None:
        """Keep some lease alive, with or without usage so far."""
        key, lease = self._some_lease(step)
        policy = self._policy_of(key)
        ttl = US + abs(step.time) % (10 * US)
        used = _used_of(policy, step)
        answer = self.bench.renew(policy, key.partition("/")[2], lease.nonce, ttl, used)
        if key not in self.reference.leases:
            assert answer.verdict is Verdict.UNKNOWN, "a renewal of nothing"
        elif lease.settled is not None:
            assert answer.verdict is Verdict.ALREADY, "a renewal after the settle"
        elif self.bench.now >= lease.deadline:
            assert answer.verdict is Verdict.EXPIRED, "a late renewal"
        else:
            assert answer.verdict is Verdict.DONE, "a renewal"
            moved = self.reference.renew(policy, lease, ttl, used, self.bench.now)
            _, end = read(answer.numbers, 9 + len(lease.charges), len(lease.charges))
            expected = [moved.get(i, 0) for i in lease.charges]
            assert list(answer.numbers[end:]) == expected, "what a renewal moved"
            self._assert_snapshot(policy)

    def finish(self) -> None:
        """What holds at the end of every history."""
        for who in range(4):
            policy = self.policy(who)
            self._assert_snapshot(policy)
            self._assert_kept(policy)

    def _some_lease(self, step: Step) -> tuple[str, Lease]:
        keys = list(self.reference.leases)
        if not keys:
            lease = Lease(nonce=1, granted=0, deadline=0, charges={})
            return "t1/nobody", msgspec.structs.replace(lease, nonce=-5)
        key = keys[-1 - step.who % min(len(keys), 6)]
        return key, self.reference.leases[key]

    def _policy_of(self, key: str) -> Policy:
        model, _ = self.used.get(key, ("m1", ""))
        who = MODELS.index(model) + 2 * TENANTS.index(key.partition("/")[0])
        return self.policy(who)

    def _assert_replayed(self, answer: Any, known: Lease, key: str, print_: int) -> None:
        if self.used[key][1] != str(print_):
            assert answer.verdict is Verdict.CONFLICT, "other parameters under the same id"
            return
        assert answer.verdict is Verdict.REPEATED, "the same request again"
        assert answer.numbers[0] == known.nonce, "the first lease again"
        assert (answer.numbers[5] > 0) == (known.settled is not None), "whether it was settled"

    def _assert_honest(self, policy: Policy, amounts: list[int], wait: int) -> None:
        """I7: it fits when the answer says so, and not a microsecond earlier."""
        if wait == NEVER:
            return
        now = self.bench.now
        self.bench.now = now + wait
        late = self.bench.check(policy, amounts)
        self.bench.now = now + wait - 1
        early = self.bench.check(policy, amounts)
        self.bench.now = now
        assert late.verdict is Verdict.DONE, "retry_after"
        assert early.verdict is Verdict.DENIED, "it would have fitted earlier than it said"

    def _assert_levels(self, policy: Policy, numbers: tuple[float, ...], start: int) -> None:
        levels, _ = read(numbers, start, len(policy.limits))
        opened = self.reference.open(policy, self.bench.now)
        for level, (_, limit, window, now) in zip(levels, opened, strict=True):
            assert left(limit, level) == window.left(), f"what is left of {limit.name}"
            expected = float(max(0, window.reset(now, self.bench.now)))
            told = reset(policy, limit, level)
            assert abs(told - expected) <= 1e-6 * max(1.0, expected), f"reset of {limit.name}"

    def _assert_snapshot(self, policy: Policy) -> None:
        levels = self.bench.snapshot(policy)
        opened = self.reference.open(policy, self.bench.now)
        for level, (_, limit, window, _) in zip(levels, opened, strict=True):
            assert left(limit, level) == window.left(), f"what is left of {limit.name}"

    def _assert_moved(self, numbers: tuple[float, ...], lease: Lease) -> None:
        assert lease.settled is not None
        _, end = read(numbers, 9 + len(lease.charges), len(lease.charges))
        assert list(numbers[end:]) == [lease.settled[i] for i in lease.charges], "what moved"

    def _assert_kept(self, policy: Policy) -> None:
        """State is kept at least until every limit is as good as new.

        The server's own clock ran none of the history's time, and in particular not back.
        """
        if self.stepped_back:
            return
        for scope_key, limit, window, now in self.reference.open(policy, self.bench.now):
            scope = self.reference.scopes.get(scope_key)
            slow = limit.window in {"bucket", "ramp"}
            if scope is not None and slow and limit.id in scope.windows:
                reset = float(window.reset(now, self.bench.now))
                kept = self.bench.keeps_for(scope_key) + 5 * US
                assert kept >= reset, f"{scope_key} is forgotten too early"


def run(
    client: redis.Redis, faults: Mapping[str, str] | None = None
) -> Callable[[tuple[int, list[Step]]], None]:
    """A function that runs one history on an emptied server; AssertionError is a difference.

    A history has its own clock, and keys end by the server's: after a pause of the machine one may
    be gone too early. That does not come twice, so a difference is one that comes again.
    """
    loaded = scripts(faults)

    def one(history: tuple[int, list[Step]]) -> None:
        try:
            once(history)
        except AssertionError:
            once(history)

    def once(history: tuple[int, list[Step]]) -> None:
        client.flushall()
        first, what = history
        under_way = Run(client, loaded, first)
        for step in what:
            under_way.step(step)
        under_way.finish()

    return one


def policies_of(pool: str) -> Policies:
    """The policies of one pool, as the file has it."""
    return Policies(_read(pool), "sg:")


@functools.cache  # to read a file takes longer than to run a history
def _read(pool: str) -> Config:
    text = f"pools:\n  {POOL}:\n" + "\n".join("  " + line for line in pool.splitlines())
    return parse(text, ".yaml")


def _written(before: Mapping[bytes, bytes], after: Mapping[bytes, bytes]) -> set[str]:
    """The keys that are not as they were; on a slow machine one may have ended meanwhile."""
    return {key.decode() for key, text in after.items() if before.get(key) != text}


def _amounts_of(policy: Policy, amount: int) -> list[int]:
    return [
        1 if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY} else amount
        for limit in policy.limits
    ]


def _used_of(policy: Policy, step: Step) -> list[float]:
    if step.amount % 4 == 0:
        return [KEEP] * len(policy.limits)
    used = step.amount if step.time % 2 else step.amount // 3
    return [
        KEEP if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY} else float(used)
        for limit in policy.limits
    ]
