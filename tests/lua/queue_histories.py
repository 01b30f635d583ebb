"""Random histories of the queue: one step at a time on the scripts and on the reference."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec
import redis
from hypothesis import strategies as st
from queue_reference import QueueReference, Waiter
from reference import Reference
from tests_support.scripts import CLOCK, POOL, START, names_of_pool, scripts

from limiter_service.config import parse
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.weighing import weigh
from limiter_service.store import messages
from limiter_service.store.commands import Commands
from limiter_service.store.keys import Keys, chain_id, line_id, request_digest, tenant_id
from limiter_service.store.messages import (
    Claim,
    QueueKeys,
    Reply,
    Report,
    Served,
    ServeTerms,
    SweepTerms,
    Terms,
    Verdict,
)
from limiter_service.store.packing import pack, unpack
from limiter_service.store.scripts import Script
from limiter_wire import Meter

US = 1_000_000
GRACE, PATIENCE, TTL, REMEMBER = 5 * US, 5 * US, 4 * US, 60 * US
MODELS, TENANTS, PRIORITIES = ("m1", "m2"), ("t1", "t2", "t3"), (0, 5, 9)
REPLICAS = (11.0, 22.0)

CONFIGS = [
    # A limit for everybody on the pool, one for a model, one for a tenant.
    """
    limits: [{meter: tokens, limit: 256, per: 4.194304, burst: 96}]
    models:
      m1: {limits: [{meter: tokens, limit: 64, per: 1.048576}]}
      m2: {limits: [{meter: requests, limit: 8, per: 1.048576, burst: 2}]}
    tenants:
      t2: {weight: 4}
      t3: {limits: [{meter: tokens, limit: 32, per: 2.097152}]}
    queue: {priority_shares: {"0": 0.25}}
    """,
    # Slots, a sliding window, a shadow, a tenant on a model.
    """
    models:
      m1: {concurrency: 2, limits: [{meter: tokens, limit: 96, per: 3s, window: sliding}]}
      m2: {limits: [{meter: tokens, limit: 128, per: 2.097152}, {name: s, meter: requests, limit: 1, per: 1.048576, mode: shadow}]}
    tenants:
      t1: {weight: 2, models: {m1: {limits: [{meter: requests, limit: 2, per: 1.048576}]}}}
      t3: {concurrency: 1, limits: [{meter: tokens, limit: 64, per: 1.048576}]}
    """,
    # Ramps: of the pool, of a model, of a tenant.
    """
    limits: [{meter: tokens, limit: 256, per: 1.048576, ramp: {start: 48, factor: 1.5, period: 2s}}]
    models:
      m1: {limits: [{meter: requests, limit: 32, per: 1.048576, ramp: {start: 1, factor: 2, period: 1s}}]}
      m2: {limits: [{meter: tokens, limit: 96, per: 2.097152}]}
    tenants:
      t2: {weight: 4}
      t3: {limits: [{meter: tokens, limit: 128, per: 1.048576, ramp: {start: 20, factor: 4, period: 4s}}]}
    """,
]  # fmt: skip


class Step(msgspec.Struct, frozen=True):
    """One thing that happens; which fields count depends on `kind`."""

    kind: str
    who: int
    amount: int
    time: int


_KINDS = (
    ["acquire"] * 8 + ["ask", "ask", "serve", "serve", "serve", "tick", "tick", "settle", "settle"]
    + ["cancel", "let_go", "reload", "sweep"]
)  # fmt: skip
_TIMES = [(1, 300_000), (300_000, 2 * US)]
_LEAPS = [2 * US, 6 * US]
_AMOUNTS = [(1, 40), (1, 40), (41, 64)]
steps = st.builds(
    Step,
    kind=st.sampled_from(_KINDS),
    who=st.integers(0, 35),
    amount=st.one_of(*(st.integers(low, high) for low, high in _AMOUNTS)),
    time=st.one_of(*(st.integers(low, high) for low, high in _TIMES), st.sampled_from(_LEAPS)),
)
LENGTH = 60
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
        who=random.randint(0, 35),
        amount=random.randint(*random.choice(_AMOUNTS)),
        time=random.choice(times),
    )


class Direct:
    """In place of the store's client: runs a script at once, by the clock of the test."""

    sharded = False

    def __init__(self, client: redis.Redis) -> None:
        self._client, self.now = client, START

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run *script* with the clock at `now`."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(CLOCK, self.now, ex=3600)
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        try:
            return pipeline.execute()[1]
        except redis.exceptions.NoScriptError:
            return self._client.eval(script.text, len(keys), *keys, *arguments)


def done(work: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class Run:
    """One history under way."""

    def __init__(self, client: redis.Redis, loaded: Mapping[str, Script], first: int) -> None:
        self.client, self.direct = client, Direct(client)
        self.commands = Commands(self.direct)  # type: ignore[arg-type]  # the method that it needs
        self.commands._scripts = dict(loaded)
        self.keys = Keys(POOL)
        self.queue = QueueKeys.of(self.keys)
        self.limits = Reference()
        self.reference = QueueReference(self.limits, GRACE, PATIENCE)
        self.config = first
        self.policies = [_policies(i) for i in range(len(CONFIGS))]
        self.nonce = 1000
        self.leases: dict[str, tuple[Waiter, float]] = {}
        self.room: set[str] = set()
        self.overdue_seen = 0

    @property
    def now(self) -> int:
        """The server's clock."""
        return self.direct.now

    def policy(self, model: str, tenant: str) -> Policy:
        """The chain under the configuration in force."""
        return self.policies[self.config].policy(f"{POOL}/{model}", tenant)

    def step(self, step: Step) -> None:
        """Do one step on both sides and compare."""
        getattr(self, step.kind)(step)

    def tick(self, step: Step) -> None:
        """Time passes."""
        self.direct.now += step.time

    def reload(self, step: Step) -> None:
        """Another configuration comes into force, now and then."""
        if step.amount % 4 == 0:
            self.config = step.who % len(CONFIGS)

    def acquire(self, step: Step) -> None:
        """A new request that may wait, or (one in five) may not."""
        model, tenant = MODELS[step.who % 2], TENANTS[step.who // 2 % 3]
        line = model, tenant, PRIORITIES[step.who // 6 % 3]
        self.nonce += 1
        policy = self.policy(model, tenant)
        amounts = [
            1 if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY} else step.amount
            for limit in policy.limits
        ]
        weight = weigh(policy, amounts, line[2])
        max_wait = 0 if step.amount % 5 == 0 else step.time * 4
        new = Waiter(
            name=f"r{self.nonce}", line=line, place=0, amounts=amounts, step=weight.step,
            cost=weight.cost, share=weight.share, period=weight.period, began=self.now,
            deadline=self.now + max_wait, seen=self.now, holder=REPLICAS[step.who % 2],
            config=self.config, nonce=self.nonce,
        )  # fmt: skip
        opened = self.limits.open(policy, self.now)
        worst, wait = self.limits.verdict(opened, amounts, self.now)
        behind = self.reference.stands_behind(policy, new, self.now)
        before = self._dump() if step.amount % 3 == 0 else None
        reply = self._ask(new, max_wait)
        if worst and wait == -1:
            assert reply.verdict is Verdict.DENIED, "what can never fit"
            assert reply.numbers[1] == -1
        elif worst == 0 and not behind:
            assert reply.verdict is Verdict.DONE, (
                f"{reply.verdict}: it fits, and nobody is before it"
            )
            self.limits.grant(policy, f"{tenant}/{new.name}", new.nonce, TTL, amounts, self.now)
            self.leases[new.name] = new, new.nonce
            self.reference.passes(new, self.now)
            self.reference.tidy()
            return
        elif max_wait == 0:
            assert reply.verdict is Verdict.DENIED, f"{reply.verdict}: it may not wait"
        else:
            place = len(self.reference.members(line))
            self.reference.join(new, self.now)
            if worst:
                self.reference.shut(policy, new, self.now)
            assert reply.verdict is Verdict.WAITS, f"{reply.verdict}: it has to wait"
            assert reply.numbers[2:4] == unpack(pack([place, len(self.reference.waiters)])), (
                "place and depth"
            )
            return
        after = self._dump()
        changed = [k for k in after if before is not None and before.get(k) != after[k]]
        assert before is None or before == after, f"a denial wrote {changed}"

    def ask(self, step: Step) -> None:
        """Somebody asks again: a waiter, one that has been granted, or one who is too late."""
        late = [waiter for waiter, _ in self.reference.over.values()]
        waiter = self._some(
            [*self.reference.waiters.values(), *self.reference.grants.values(), *late], step
        )
        if waiter is None:
            return
        if waiter.name in self.reference.over:
            reply = self._ask(waiter, step.time * 4)
            assert reply.verdict is Verdict.TIMED_OUT, f"{reply.verdict}: its time was over"
            del self.reference.over[waiter.name]
            self.reference.tidy()
            return
        replica = REPLICAS[step.time % 2]
        left = max(0, waiter.deadline - self.now)
        granted = waiter.name in self.reference.grants
        asked = msgspec.structs.replace(waiter, holder=replica)
        policy = self.policy(*waiter.line[:2])
        if waiter.config != self.config and not granted:
            asked.amounts = [
                1 if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY} else step.amount
                for limit in policy.limits
            ]  # the same request under the policy in force
        opened = self.limits.open(policy, self.now)
        never = not granted and self.limits.verdict(opened, list(asked.amounts), self.now)[1] == -1
        reply = self._ask(asked, left)
        if granted:
            assert reply.verdict is Verdict.REPEATED, f"{reply.verdict}: it has been granted"
            assert reply.numbers[0] == waiter.nonce
            del self.reference.grants[waiter.name]
            self.leases[waiter.name] = waiter, waiter.nonce
            self.reference.tidy()
        elif left == 0:
            assert reply.verdict is Verdict.TIMED_OUT, f"{reply.verdict}: its time is over"
            self.reference.leave(waiter, self.now, noted=False)
            self.reference.tidy()
        else:
            assert reply.verdict is Verdict.WAITS, f"{reply.verdict}: it still waits"
            assert (reply.numbers[1] == -1) == never
            place = self.reference.members(waiter.line).index(waiter)
            assert reply.numbers[2] == place, "its place"
            waiter.seen, waiter.holder = self.now, replica
            waiter.config, waiter.amounts = self.config, asked.amounts

    def serve(self, step: Step) -> None:
        """A pass by one of the replicas, with as many grants as it may make."""
        replica, most = REPLICAS[step.who % 2], (1, 2, 64, 64)[step.amount % 4]
        self._serve(replica, most)

    def _serve(self, replica: float, most: int) -> Served:
        chains, policies = {}, {}
        for model in MODELS:
            for tenant in TENANTS:
                policy = self.policy(model, tenant)
                policies[model, tenant] = policy
                chains[chain_id(model, tenant)] = policy.chain(self.now)
        room = sorted(self.room)
        self.room.clear()
        terms = ServeTerms(
            replica=replica, most=most, grace=GRACE, patience=PATIENCE, keep=600_000,
            room_again=b"".join(map(tenant_id, room)),
        )  # fmt: skip
        served: Served = done(self.commands.dispatch(chains, self.queue, 5.0, terms))
        granted, due = self.reference.serve(policies, self.config, self.now, most, room, replica)
        found = {digest.hex() for digest in self._granted()}
        expected = {_hex(w) for w in self.reference.grants.values()}
        assert found == expected, f"granted {granted}"
        assert served.granted == len(granted)
        assert not served.missing
        if len(granted) < most:
            assert served.due == due, f"when to look again: {served.due}, not {due}"
        self._take_back(served)
        self.reference.forget(self.now)
        self.reference.tidy()
        assert served.waiters == len(self.reference.waiters), "how many wait"
        return served

    def _take_back(self, served: Served) -> None:
        """What nobody has fetched comes back in full."""
        late = [w for w in self.reference.grants.values() if self.now >= (w.granted_until or 0)]
        assert {d.hex() for d, _ in served.overdue} == {_hex(w) for w in late}, "overdue"
        for waiter in late:
            self._remove(waiter)

    def settle(self, step: Step) -> None:
        """A caller reports what it has used."""
        waiter = self._some([w for w, _ in self.leases.values()], step)
        if waiter is None:
            return
        model, tenant, _ = waiter.line
        policy = self.policy(model, tenant)
        used = [
            -1.0 if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY} else float(step.amount // 2)
            for limit in policy.limits
        ]
        report = Report(
            first_token=False, outcome_class=4, kind=0, slow=False, retry_after=0, used=used
        )
        key = self.keys.lease(tenant, waiter.name)
        chain = policy.chain(self.now)
        reply = done(self.commands.settle(chain, key, self.keys.queue(), 7.0, waiter.nonce, report))
        lease = self.limits.leases[f"{tenant}/{waiter.name}"]
        del self.leases[waiter.name]
        if self.now >= lease.deadline:
            assert reply.verdict in {Verdict.EXPIRED, Verdict.UNKNOWN}
            return
        waits = self.reference.exists
        assert reply.verdict is (Verdict.DONE_WHILE_OTHERS_WAIT if waits else Verdict.DONE)
        self.limits.settle(policy, lease, used, self.now)
        self.room.add(tenant)

    def cancel(self, step: Step) -> None:
        """A caller gives up."""
        waiter = self._some(
            [*self.reference.waiters.values(), *self.reference.grants.values()], step
        )
        if waiter is not None:
            self._remove(waiter)

    def _remove(self, waiter: Waiter) -> None:
        model, tenant, _ = waiter.line
        policy = self.policy(model, tenant)
        reply = self._cancel(waiter, None)
        if waiter.name in self.reference.grants:
            assert reply.verdict is Verdict.REPEATED, "a grant that comes back"
            lease = self.limits.leases[f"{tenant}/{waiter.name}"]
            self.limits.settle(policy, lease, [0.0] * len(policy.limits), self.now)
            del self.reference.grants[waiter.name]
        else:
            assert reply.verdict is Verdict.DONE, "a waiter that leaves"
            self.reference.leave(waiter, self.now)
        self.reference.tidy()

    def let_go(self, step: Step) -> None:
        """A caller hangs up: it is out of sight."""
        waiter = self._some(list(self.reference.waiters.values()), step)
        if waiter is None:
            return
        reply = self._cancel(waiter, waiter.holder)
        assert reply.verdict is Verdict.DONE
        waiter.holder, waiter.seen = 0.0, self.now

    def sweep(self, step: Step) -> None:
        """Callers out of sight lose their places, wherever they stand, part by part."""
        gone = [w for w in self.reference.waiters.values() if not self._in_sight(w)]
        terms = SweepTerms(
            grace=GRACE, look_at=1 + step.amount % 8, most=1 + step.who % 3, keep=600_000
        )
        removed, place = 0, b""
        while True:
            count, place = done(self.commands.sweep(self.queue, 4.0, terms, place))
            removed += count
            if not place:
                break
        assert removed == len(gone), "who is out of sight goes, and nobody else"
        for waiter in sorted(gone, key=lambda w: w.place):
            self.reference.leave(waiter, self.now, noted=False)
        self.reference.tidy()

    def _in_sight(self, waiter: Waiter) -> bool:
        return self.reference._in_sight(waiter, self.now)

    def finish(self) -> None:
        """Everybody is served, or gives up, and then nothing of the queue is left."""
        for _ in range(400):
            for waiter in list(self.reference.grants.values()):
                self._remove(waiter)
            if not self.reference.waiters:
                break
            for waiter in list(self.reference.waiters.values()):
                waiter.deadline = max(waiter.deadline, self.now)
            for replica in REPLICAS:
                self._serve(replica, 64)
            self.direct.now += US
        assert not self.reference.waiters, "somebody waits for ever"
        self.direct.now += PATIENCE
        self._serve(REPLICAS[0], 64)
        left = [key for key in self.client.scan_iter() if b":q" in key]
        assert left == [], "an empty queue leaves nothing"

    def _some(self, waiters: list[Waiter], step: Step) -> Waiter | None:
        return waiters[step.who % len(waiters)] if waiters else None

    def _ask(self, w: Waiter, max_wait: int) -> Reply:
        model, tenant, priority = w.line
        policy = self.policy(model, tenant)
        claim = Claim(
            nonce=w.nonce, fingerprint=1.0, ttl=TTL, remember=REMEMBER, marks=0.0, amounts=w.amounts
        )
        terms = Terms(
            max_wait=max_wait, replica=w.holder, step=w.step, cost=w.cost, priority_class=0,
            share=w.share, period=w.period, most_waiters=10_000, keep=600_000,
            allowed=[-1.0] * len(w.amounts),
        )  # fmt: skip
        waiter = messages.Waiter(
            digest=request_digest(tenant, w.name),
            line=line_id(model, tenant, priority),
            names=f"{POOL}/{model}\0{tenant}".encode(),
        )
        key = self.keys.lease(tenant, w.name)
        chain = policy.chain(self.now)
        reply: Reply = done(self.commands.enqueue(chain, key, self.queue, claim, terms, waiter))
        return reply

    def _cancel(self, w: Waiter, let_go_of: float | None) -> Reply:
        model, tenant, _ = w.line
        chain = self.policy(model, tenant).chain(self.now)
        reply: Reply = done(
            self.commands.cancel(
                chain,
                self.keys.lease(tenant, w.name),
                self.queue,
                6.0,
                request_digest(tenant, w.name),
                let_go_of=let_go_of,
                keep=600_000,
            )
        )
        return reply

    def _granted(self) -> list[bytes]:
        members = [member[:16] for member in self.client.zrange(self.keys.grants(), 0, -1)]
        return [digest for digest in members if not self._is_over(digest)]

    def _is_over(self, digest: bytes) -> bool:
        ticket = self.client.hget(self.keys.tickets(), digest)
        return ticket is not None and ticket.startswith(pack([2]))

    def _dump(self) -> dict[bytes, Any]:
        # Not DUMP: the order of a hash changes while the server rehashes it.
        read = {
            b"string": self.client.get,
            b"hash": self.client.hgetall,
            b"zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
        }
        return {key: read[self.client.type(key)](key) for key in names_of_pool(self.client)}


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
        under_way = Run(client, loaded, first)
        for step in what:
            under_way.step(step)
        under_way.finish()

    return one


def _hex(w: Waiter) -> str:
    return request_digest(w.line[1], w.name).hex()


def _policies(config: int) -> Policies:
    text = f"pools:\n  {POOL}:\n" + "\n".join("  " + line for line in CONFIGS[config].splitlines())
    return Policies(parse(text, ".yaml"), "sg:")
