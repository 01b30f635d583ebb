"""One story, told by a seed: replicas, callers, and what befalls them."""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from hashlib import blake2b
from random import Random
from typing import Any

import redis
from callers import Caller
from fate import Fate
from holders import Holder
from lives import lasting
from loans import Loans
from msgspec.structs import replace
from order import Lines
from plots import APART, FAULTS, LEASE, PLOTS, PROBE_TTL, PROBES, REPLICAS, plot_of
from tests_support.ledger import ALONE, Broken, Ledger
from tests_support.scripts import POOL, START, scripts
from trips import GatheringWay
from wakes import Wakes
from world import US, Hints, LoadedCommands, Store, Way, Weather, names_of

from limiter_service.engine import ids
from limiter_service.engine.admission import Engine
from limiter_service.engine.journal import Entry, Journal
from limiter_service.engine.local import Sight
from limiter_service.engine.outages import Phase
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.presence import STALE, Place, Presence, Sights
from limiter_service.engine.refusals import Refusal
from limiter_service.store.commands import Commands
from limiter_service.store.keys import Keys
from limiter_service.store.scripts import Script
from limiter_wire import Acquire, Granted, Outcome, Settle

_KEYS = Keys(POOL)
_FOR_EVER = -1  # of a key that has gone since it is -2
_LAST = 300
_SWEPT = 2.5  # seconds after its grace in which the place of somebody who is gone is found


class Told:
    """What a story has come to."""

    def __init__(self) -> None:
        self.calls = 0
        self.faults: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self.history = ""


class _Journal(Journal):
    """Tells of what a replica grants alone."""

    def __init__(self, story: "Story", engine: Engine) -> None:
        super().__init__()
        self._story, self._engine = story, engine

    def add(self, entry: Entry) -> None:
        """Remember a lease."""
        super().add(entry)
        if not self._story.is_dead(self._engine):
            self._story.granted_alone(self._engine, entry)


class _Sights(Sights):
    """Knows which shares were begun without a level."""

    def __init__(self) -> None:
        super().__init__()
        self.unseen: dict[Place, bool] = {}

    def sight(self, place: Place, presence: Presence, now: float) -> Sight:
        """What is known of a limit at the moment when its share begins."""
        found = super().sight(place, presence, now)
        self.unseen[place] = found.level is None
        return found


class Story:
    """Everything of one seed. `tell` raises Broken when a promise is not kept."""

    def __init__(
        self,
        client: redis.Redis,
        seed: int,
        loaded: Mapping[str, Script],
        *,
        calls: int,
        pace: float | None = None,
    ) -> None:
        self.luck, name = Random(seed), plot_of(seed)
        self.plot = PLOTS[name] if pace is None else replace(PLOTS[name], pace=pace)
        self.policies = Policies(self.plot.config, "sg:")
        self.told, self.most = Told(), calls
        drawn = {name for name in self.plot.faults if self.luck.random() < 0.4}
        if self.luck.random() < self.plot.calm:
            drawn -= APART | {"lost messages"}
        self.faults = drawn | self.plot.always
        self.weather = Weather(
            lost=self._bad("lost requests", 0.08),
            unheard=self._bad("lost replies", 0.12),
            doubled=self._bad("doubled requests", 0.2),
            slow=self.plot.slowest if "slow way" in self.faults else 0.02,
            deaf=self._bad("lost messages", 1.0),
        )
        self.told.faults["slow way"] += "slow way" in self.faults
        self.scripts = dict(loaded)
        self.store = Store(client, names_of(self.scripts))
        self.known: dict[str, Policy] = {}
        self.standing: dict[str, bytes] = {}
        apart = bool(self.faults & APART)
        self.ledger = Ledger(
            self.known,
            PROBE_TTL,
            PROBES,
            torn=apart,
            late=4 * self.weather.slow,
            refusals=True,
        )
        self.lines = Lines(self.standing, None if apart else _SWEPT)
        self.loans = Loans(self.known, self.plot.config.pools[POOL].blocks.share)
        self.down = False
        self.upheavals, self.quiet_until, self._started = 0, 0.0, 0
        self.dead = -1
        self.held: list[dict[asyncio.Task[Any], None]] = [{} for _ in range(REPLICAS)]
        self.ways: list[Way | GatheringWay] = []
        self.engines: list[Engine] = []
        for at in range(REPLICAS):
            self.start_replica(at)

    def _bad(self, name: str, most: float) -> float:
        if name not in self.faults:
            return 0.0
        self.told.faults[name] += 1
        return self.luck.uniform(0, most)

    def commands(self, way: Any) -> Commands:
        """The scripts of this story, by some way."""
        return LoadedCommands(way, self.scripts)

    # Replicas.

    def start_replica(self, at: int) -> None:
        """A new process in the place of another."""
        loop = asyncio.get_running_loop()
        kind = GatheringWay if self.plot.beat else Way
        way = kind(self.store, self.luck, self.weather)
        hints = Hints(self.store, way, self.luck, self.weather)
        engine = Engine(
            self.commands(way),
            self.policies,
            lambda: START + loop.time() * US,
            "sg:",
            hints=hints,  # type: ignore[arg-type]  # the methods that it needs
            observe=lambda _: None,
            nonces=lambda: self.luck.getrandbits(52),
        )
        self._started += 1
        engine.passes.replica = engine.outages._replica = float(self._started)
        self.ways[at : at + 1], self.engines[at : at + 1] = [way], [engine]
        self.dead = -1
        if self.plot.alone:
            pool = engine.outages.pool(POOL)
            pool.journal, pool.sights = _Journal(self, engine), _Sights()
            engine.outages.start()

    def end_replica(self, at: int) -> None:
        """A process dies: nothing of it goes on, and those whom it held have no answer."""
        engine, self.ways[at].cut, self.dead = self.engines[at], True, at
        for task in list(self.held[at]):
            task.cancel()
        engine.passes._ended = True
        pools = engine.passes._pools.values()
        engine.passes._errands.forget()
        tasks = [pool.task for pool in pools if pool.task]
        tasks += engine.passes._errands._under_way
        tasks += engine.lending.recalls._looking.values()
        for task in (*tasks, *engine.outages._watches.values()):
            task.cancel()
        engine.outages._watches.clear()
        for outage in engine.outages.all():
            outage.turn(Phase.STORE)  # whom it has held goes on, and hears nothing of it

    def is_dead(self, engine: Engine) -> bool:
        """Whether nobody hears of it any more."""
        return engine not in self.engines or self.engines.index(engine) == self.dead

    def some_replica(self) -> int:
        """One that lives."""
        at = self.luck.randrange(REPLICAS)
        return at if at != self.dead else (at + 1) % REPLICAS

    def some_engine(self) -> Engine:
        """That of one that lives."""
        return self.engines[self.some_replica()]

    def granted_alone(self, engine: Engine, entry: Entry) -> None:
        """Write down what a replica has granted."""
        claim, pool = entry.claim, engine.outages.pool(POOL)
        numbers = [claim.nonce, claim.fingerprint, claim.ttl, claim.remember, 0, 0, 0, 0]
        text = struct.pack(
            f"<{9 + len(claim.amounts)}d", *numbers, len(claim.amounts), *claim.amounts
        )
        key = _KEYS.lease(entry.policy.tenant, entry.request_id)
        parts = [e.outages.pool(POOL).presence.part for e in self.engines if not self.is_dead(e)]
        if sum(parts) > 1.000001:
            raise Broken(f"the shares are {parts} at {self.store.now():.3f}")
        assert isinstance(pool.sights, _Sights)
        unseen = sum(
            pool.sights.unseen[place] << n for n, (place, _) in enumerate(entry.policy.placed)
        )
        said = ALONE.pack(
            engine.passes.replica, pool.since, self._looked(), 1 / pool.presence.part, unseen
        )
        self.store.write("alone", key, said, text[:8] + b"G" + text)

    def _looked(self) -> float:
        """Since when every replica has looked at the limits."""
        walls = [START + self.store.now() * US]
        for engine in self.engines:
            pool = engine.outages.pool(POOL)
            levels = [level.wall for level in pool.sights._levels.values()]
            walls += [wall for wall in levels if wall >= pool.presence.wall - STALE * US]
        return (min(walls) - START) / US - 0.001

    async def do(self, work: Awaitable[Any]) -> Any:
        """The answer of an engine to one call, or the refusal."""
        told = self.told
        told.calls += 1
        try:
            answer = await work
        except Refusal as refusal:
            told.answers[refusal.problem.code] += 1
            return refusal
        told.answers[type(answer).__name__] += 1
        return answer

    def ended(self, engine: Engine, lease: str, *, anew: bool) -> None:
        """Write down that a replica has heard of the end of a call, without the store."""
        ref = ids.decode(lease)
        assert ref is not None
        entry = engine.outages.pool(POOL).journal.find(ref.tenant, ref.request_id)
        moved = b""
        if anew and entry is not None and entry.claim.nonce == ref.nonce and entry.moved:
            moved = struct.pack(f"<{len(entry.moved)}d", *entry.moved)
        self.store.write("ended", _KEYS.lease(ref.tenant, ref.request_id), moved, b"")

    # What is checked.

    def look(self) -> None:
        """Read what has happened since. Raises Broken."""
        journal = self.store.journal
        self.ledger.read(journal)
        if self.plot.holders:
            self.loans.read(journal)
        if not self.plot.alone and len(self.plot.waits) > 1:
            self.lines.read(journal)

    def lose(self, kept: int) -> None:
        """The store forgets what has happened after the first *kept*."""
        self.look()
        self.ledger.lose(self.store.journal, kept, self.store.now())
        self.lines.lose(self.store.journal)
        self.loans.lose(self.store.journal, kept)

    async def tell(self) -> Told:
        """Let everything happen, then look whether everything comes back."""
        loop = asyncio.get_running_loop()
        works: list[Coroutine[Any, Any, None]] = [Fate(self).run()]
        if not self.plot.alone and len(self.plot.waits) > 1:
            works.append(Wakes(self).run())
        callers = [loop.create_task(Caller(self, n).run()) for n in range(self.plot.callers)]
        callers += [loop.create_task(Holder(self, n).run()) for n in range(self.plot.holders)]
        others = [loop.create_task(work) for work in works]
        try:
            await _until(callers, others)
            for task in others:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            self.look()
            await self._afterwards()
        finally:
            for task in (*callers, *others):
                task.cancel()
            for at in range(REPLICAS):
                self.end_replica(at)
            await asyncio.sleep(0)
            self.store.close()
        self._count()
        self.told.history = self._digest()
        return self.told

    def _count(self) -> None:
        ledger, told = self.ledger, self.told
        told.seconds = self.store.now()
        told.counts.update(
            grants=ledger.grants, settles=ledger.settles, probes=ledger.probed,
            waited=ledger.waited, returned=ledger.returned, alone=ledger.alone,
            charged=ledger.charged, swept=self.lines.swept,
            lent=self.loans.lent, reports=self.loans.reports,
            groups=self.store.groups, grouped=self.store.grouped, mixed=self.store.mixed,
            rowed=self.store.rowed,
        )  # fmt: skip
        told.counts["most waiters"] = self.lines.most

    # The end.

    async def _afterwards(self) -> None:
        """When all leases are over and all has had time to refill, every limit is whole."""
        weather = self.weather
        weather.lost = weather.unheard = weather.doubled = weather.deaf = 0.0
        weather.slow = 0.003
        if self.dead >= 0:
            self.start_replica(self.dead)
        for way in self.ways:
            way.cut = False
        self.store.up = True
        if self.plot.alone:
            await self._all_is_charged()
        await asyncio.sleep(LEASE + 120.0)
        stepped, resources = "clock back" in self.faults, (f"{POOL}/m1", f"{POOL}/m2")
        if not stepped:
            await self._is_whole(resources)
        for resource in resources:
            await self._recovers(resource)
        if self.plot.holders:
            await self._lends_again()
        if stepped:  # the time of a scope goes on once a call has seen that
            for resource in resources:
                for tenant in ("big", "small"):
                    await self._calls(resource, tenant)
            await asyncio.sleep(LEASE + 120.0)
            await self._is_whole(resources)
        # Who is refused for those who wait sees to it that they are still there; what nobody looks
        # at ends with the life of its keys, which is in real time.
        self.engines[0].passes.watch(self.policies.policy(f"{POOL}/m1", "big"))
        await asyncio.sleep(15.0)
        self.look()
        keys = self.store.stored()
        lives = self.store.lives(keys)
        for key, life in zip(keys, lives, strict=True):
            if not key.endswith(b":clock") and life == _FOR_EVER:
                raise Broken(f"{key.decode()} stays for ever")
        if _KEYS.queue().encode() in keys:
            raise Broken("somebody is left in the queue")

    async def _is_whole(self, resources: Iterable[str]) -> None:
        """Every limit, of everybody."""
        for resource in resources:
            for tenant in ("big", "small"):
                view = await self.engines[0].view(resource, tenant)
                limits = self.policies.policy(resource, tenant).limits
                for level, limit in zip(view.limits, limits, strict=True):
                    if level.remaining < 0.999 * limit.capacity:
                        raise Broken(f"{level.name} is at {level.remaining} at the end")

    async def _all_is_charged(self) -> None:
        """What was granted alone is charged, unless the replica that has granted it is dead."""
        await asyncio.sleep(5.0)
        self.look()
        living = {engine.passes.replica for engine in self.engines}
        owing = [key for key, lease in self.ledger.owing.items() if lease.alone in living]
        if owing:
            raise Broken(f"{owing} are not charged at the end")
        for engine in self.engines:
            pool = engine.outages.pool(POOL)
            if pool.phase is not Phase.STORE or len(pool.journal):
                raise Broken(f"a replica is {pool.phase} at the end, {len(pool.journal)} to charge")
        for engine in self.engines:  # what they would do all night has been seen
            for watch in engine.outages._watches.values():
                watch.cancel()

    async def _lends_again(self) -> None:
        """Blocks whose holders are dead have come back, and another comes back."""
        for n in range(8):
            key = _KEYS.lease("big", f"again-{n}")
            self.known[key] = self.policies.policy(f"{POOL}/m1", "big")
            self.standing[key] = b""
            asked = Acquire(
                resource=f"{POOL}/m1", tenant="big", tokens=1, request_id=f"again-{n}", block=4
            )
            granted = await self.do(self.engines[0].acquire(asked))
            await asyncio.sleep(5.0)
            if isinstance(granted, Granted):
                break
        else:
            raise Broken("no block is lent at the end")
        # Where the clock has stepped back, who lends has seen to it that nothing is held longer.
        held = await self.engines[0].lending.held(POOL)
        if held != (0, 0):
            raise Broken(f"blocks hold {held} at the end")

    async def _calls(self, resource: str, tenant: str) -> None:
        """One call, whether it is granted or not."""
        name = f"look-{resource}-{tenant}"
        key = _KEYS.lease(tenant, name)
        self.known[key] = self.policies.policy(resource, tenant)
        self.standing[key] = b""
        asked = Acquire(resource=resource, tenant=tenant, tokens=1, request_id=name)
        with contextlib.suppress(Refusal):
            granted = await self.engines[0].acquire(asked)
            assert isinstance(granted, Granted)
            await self.engines[0].settle(Settle(lease=granted.lease, outcome=Outcome.SUCCESS))

    async def _recovers(self, resource: str) -> None:
        """Whatever became of its probes, a circuit closes when calls go well again."""
        for n in range(8):
            name = f"end-{resource}-{n}"
            key = _KEYS.lease("big", name)
            self.known[key] = self.policies.policy(resource, "big")
            self.standing[key] = b""
            asked = Acquire(
                resource=resource, tenant="big", tokens=1, request_id=name, max_wait=12.0
            )
            with contextlib.suppress(Refusal):
                granted = await self.engines[n % REPLICAS].acquire(asked)
                assert isinstance(granted, Granted)
                report = Settle(lease=granted.lease, outcome=Outcome.SUCCESS)
                closed = (await self.engines[0].settle(report)).breaker == "closed"
                if closed:
                    return
            await asyncio.sleep(2.0)
        raise Broken(f"the circuit of {resource} stays shut")

    def account(self) -> str:
        """What there is to know when a promise is broken."""
        lines = [f"{sorted(self.faults)} at {self.store.now():.6f}, {self.weather}"]
        for ran in self.store.written[-_LAST:]:
            if ran.name != "places":
                said = ran.reply[8:9].decode("latin-1")
                lines.append(f"{ran.at:.6f} {ran.name} {ran.key} {said}")
        return "\n".join(lines)

    def _digest(self) -> str:
        digest = blake2b(digest_size=16)
        for ran in self.store.journal:
            digest.update(f"{ran.at:.6f}{ran.name}{ran.key}".encode() + ran.reply[8:])
        return digest.hexdigest()


async def _until(callers: list[asyncio.Task[None]], others: list[asyncio.Task[None]]) -> None:
    """Return when all *callers* have ended, and raise what any of all has raised."""
    running = {*callers, *others}
    while not all(task.done() for task in callers):
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


def story(
    client: redis.Redis,
    seed: int,
    loaded: Mapping[str, Script] | None = None,
    *,
    calls: int,
    pace: float | None = None,
) -> Any:
    """The coroutine that tells the story of *seed* on an empty store."""

    async def tell() -> Told:
        known = lasting(loaded or scripts())
        client.flushall()
        there = client.script_exists(*(script.sha for script in known.values()))
        for script, is_there in zip(known.values(), there, strict=True):
            if not is_there:  # whatever story was told before
                client.script_load(script.text)
        told = Story(client, seed, known, calls=calls, pace=pace)
        try:
            return await told.tell()
        except Exception as error:
            error.add_note(told.account())
            raise

    return tell()


__all__ = ["FAULTS", "Story", "Told", "story"]
