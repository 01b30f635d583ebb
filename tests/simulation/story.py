"""One story, told by a seed: replicas, callers, and what befalls them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from random import Random
from typing import Any

import redis
from tests_support.ledger import Broken, Ledger
from tests_support.scripts import POOL, START, scripts
from world import US, Store, Way, Weather

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies, Policy
from limiter_service.engine.refusals import Refusal
from limiter_service.store.commands import Commands
from limiter_service.store.keys import Keys
from limiter_service.store.scripts import Script
from limiter_wire import Acquire, ErrorCode, Granted, Outcome, Renew, Settle, Usage

PROBE_TTL, PROBES, LEASE = 4.0, 2, 6.0
CONFIG = f"""
pools:
  {POOL}:
    lease_ttl: {LEASE:g}s
    on_store_loss: closed
    remember: 20s
    limits: [{{name: all, meter: tokens, limit: 500, per: 10s, window: sliding}}]
    models:
      m1: {{limits: [{{name: tokens, meter: tokens, limit: 400, per: 10s, burst: 200}}, {{name: slots, meter: concurrency, limit: 6}}]}}
      m2: {{limits: [{{name: calls, meter: requests, limit: 8, per: second, burst: 4}}]}}
    tenants:
      small: {{limits: [{{name: own, meter: tokens, limit: 100, per: 10s}}], models: {{m2: {{concurrency: 2}}}}}}
    breaker: {{window: 6s, min_calls: 5, consecutive: 4, workers: 1, open: 1s, max_open: 4s,
      probes: {PROBES}, successes: 2, probe_ttl: {PROBE_TTL:g}s, ramp: 2s, decay: 5s}}
"""
REPLICAS, CALLERS = 3, 12
OUTCOMES = [Outcome.SUCCESS] * 6 + [Outcome.SERVER_ERROR, Outcome.RATE_LIMITED, Outcome.CANCELLED]
FAULTS = (
    "lost requests", "lost replies", "doubled requests", "slow way", "partition",
    "replica crash", "failover", "clock forward", "clock back", "scripts forgotten",
    "dead callers", "provider down",
)  # fmt: skip

# Seconds that calls take; the longest outlives its lease.
_HELD = [0.01] * 6 + [0.1] * 4 + [0.5] * 4 + [2.0] * 3 + [5.5, 8.0]
_UNANSWERED = frozenset({ErrorCode.STORE_UNAVAILABLE})


class _NoHints:
    """Nobody waits here, so nobody listens."""

    def listen(self, channel: str, listener: Any) -> None:
        """Nothing arrives."""

    def ignore(self, channel: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""


class Told:
    """What a story has come to."""

    def __init__(self) -> None:
        self.calls = 0
        self.faults: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.grants = self.settles = self.probes = 0
        self.seconds = 0.0
        self.history = ""


class Story:
    """Everything of one seed. `tell` raises Broken when a promise is not kept."""

    def __init__(
        self,
        client: redis.Redis,
        seed: int,
        loaded: Mapping[str, Script],
        *,
        calls: int,
        faults: frozenset[str] | None = None,
    ) -> None:
        self.luck = Random(seed)
        self.told, self._most, self._client = Told(), calls, client
        drawn = {name for name in FAULTS if self.luck.random() < 0.4}
        self.faults = drawn if faults is None else faults
        self.weather = Weather(
            lost=self._bad("lost requests", 0.08),
            unheard=self._bad("lost replies", 0.12),
            doubled=self._bad("doubled requests", 0.2),
            slow=0.4 if "slow way" in self.faults else 0.003,
        )
        self.scripts = dict(loaded)
        self.store = Store(client, {s.sha: name for name, s in self.scripts.items()})
        self.ways = [Way(self.store, self.luck, self.weather) for _ in range(REPLICAS)]
        self.policies = Policies(parse(CONFIG, ".yaml"), "sg:")
        self.engines = [self._engine(way) for way in self.ways]
        self._known: dict[str, Policy] = {}
        self.ledger = Ledger(self._known, PROBE_TTL, PROBES)
        self._down = False
        self._leases: dict[str, int] = {}

    def _bad(self, name: str, most: float) -> float:
        if name not in self.faults:
            return 0.0
        self.told.faults[name] += 1
        return self.luck.uniform(0, most)

    def _engine(self, way: Way) -> Engine:
        commands = Commands(way)  # type: ignore[arg-type]  # the methods that it needs
        commands._scripts = self.scripts
        loop = asyncio.get_running_loop()
        return Engine(
            commands,
            self.policies,
            lambda: START + loop.time() * US,
            "sg:",
            hints=_NoHints(),  # type: ignore[arg-type]  # likewise
            observe=lambda _: None,
            nonces=lambda: self.luck.getrandbits(52),
        )

    async def tell(self) -> Told:
        """Let everything happen, then look whether everything comes back."""
        loop = asyncio.get_running_loop()
        callers = [loop.create_task(self._caller(n)) for n in range(CALLERS)]
        fate = loop.create_task(self._fate())
        try:
            await asyncio.gather(*callers)
            self.ledger.read(self.store.journal)
            fate.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await fate
            await self._afterwards()
        finally:
            for task in (*callers, fate):
                task.cancel()
            self.store.close()
        told = self.told
        told.grants, told.settles = self.ledger.grants, self.ledger.settles
        told.probes, told.seconds = self.ledger.probed, loop.time()
        told.history = self._digest()
        return told

    # Callers.

    async def _caller(self, number: int) -> None:
        luck, turn = self.luck, 0
        while self.told.calls < self._most:
            turn += 1
            await asyncio.sleep(luck.expovariate(8.0))
            tokens = luck.choice([1, 5, 20, 60, 150])
            asked = Acquire(
                resource=f"{POOL}/{luck.choice(['m1', 'm1', 'm2'])}",
                tenant=luck.choice(["big", "big", "small"]),
                tokens=tokens,
                request_id=f"{number}-{turn}",
                worker=f"w{number}",
            )
            key = Keys(POOL).lease(asked.tenant, f"{number}-{turn}")
            self._known[key] = self.policies.policy(asked.resource, asked.tenant)
            lease = await self._acquire(asked)
            if lease is not None:
                await self._use(asked, lease)
            if turn % 8 == 0:
                self.ledger.read(self.store.journal)

    async def _acquire(self, asked: Acquire) -> str | None:
        """Ask until there is an answer, of whichever replica; now and then once more."""
        luck = self.luck
        for _ in range(6):
            answer = await self._do(self.luck.choice(self.engines).acquire(asked))
            if isinstance(answer, Granted):
                if luck.random() < 0.1:
                    again = await self._do(luck.choice(self.engines).acquire(asked))
                    if isinstance(again, Granted) and again.lease != answer.lease:
                        self._excuse(asked, "a second lease for one request")
                return answer.lease
            if not isinstance(answer, Refusal) or answer.problem.code not in _UNANSWERED:
                if isinstance(answer, Refusal) and luck.random() < 0.5:
                    await asyncio.sleep(min(2.0, answer.problem.retry_after or 0.1))
                return None
            if luck.random() < 0.2:
                return None
            await asyncio.sleep(luck.uniform(0.01, 0.3))
        return None

    def _excuse(self, asked: Acquire, what: str) -> None:
        if "failover" not in self.faults:
            raise Broken(f"{what}: {asked.request_id}")

    async def _use(self, asked: Acquire, lease: str) -> None:
        luck = self.luck
        await asyncio.sleep(luck.choice(_HELD))
        if "dead callers" in self.faults and luck.random() < 0.1:
            self.told.faults["dead callers"] += 1
            return
        if luck.random() < 0.1:
            used = Usage(input_tokens=luck.randint(0, 2 * (asked.tokens or 0)))
            await self._do(luck.choice(self.engines).renew(Renew(lease=lease, usage=used)))
            await asyncio.sleep(luck.choice([0.1, 3.0]))
        if luck.random() < 0.2:
            early = Settle(lease=lease, phase="first_token", ttft=0.2)
            await self._do(luck.choice(self.engines).settle(early))
        outcome = Outcome.SERVER_ERROR if self._down else luck.choice(OUTCOMES)
        used = Usage(input_tokens=luck.randint(0, round(1.2 * (asked.tokens or 0))))
        report = Settle(
            lease=lease,
            outcome=outcome,
            usage=used if luck.random() < 0.8 else None,
            retry_after=0.3 if outcome is Outcome.RATE_LIMITED else None,
        )
        for _ in range(luck.choice([1, 6, 6, 6])):
            answer = await self._do(luck.choice(self.engines).settle(report))
            known = not isinstance(answer, Refusal) or answer.problem.code not in _UNANSWERED
            if known and luck.random() < 0.9:
                return
            await asyncio.sleep(luck.uniform(0.01, 0.5))

    async def _do(self, work: Any) -> Any:
        """The answer, or the refusal."""
        self.told.calls += 1
        try:
            answer = await work
        except Refusal as refusal:
            self.told.answers[refusal.problem.code] += 1
            return refusal
        self.told.answers[type(answer).__name__] += 1
        return answer

    # What befalls them.

    async def _fate(self) -> None:
        events = {
            "partition": self._partition, "replica crash": self._crash,
            "failover": self._failover, "clock forward": self._forward,
            "clock back": self._back, "scripts forgotten": self._forget,
            "provider down": self._provider,
        }  # fmt: skip
        mine = [events[name] for name in FAULTS if name in self.faults and name in events]
        names = [name for name in FAULTS if name in self.faults and name in events]
        while mine:
            await asyncio.sleep(self.luck.expovariate(0.25))
            chosen = self.luck.randrange(len(mine))
            self.told.faults[names[chosen]] += 1
            await mine[chosen]()

    async def _partition(self) -> None:
        way = self.luck.choice(self.ways)
        way.cut = True
        await asyncio.sleep(self.luck.uniform(0.2, 3.0))
        way.cut = False

    async def _crash(self) -> None:
        """A replica forgets all that it had in memory."""
        n = self.luck.randrange(REPLICAS)
        self.ways[n].cut = True
        await asyncio.sleep(self.luck.uniform(0.1, 1.0))
        self.ways[n] = Way(self.store, self.luck, self.weather)
        self.engines[n] = self._engine(self.ways[n])

    async def _failover(self) -> None:
        """The primary dies; what the replica had not got yet is lost."""
        kept, dumps = self.store.photograph()
        await asyncio.sleep(self.luck.uniform(0.0, 1.0))
        self.store.up = False
        self.ledger.lose(self.store.journal, kept, self.store.now())
        await asyncio.sleep(self.luck.uniform(0.1, 2.0))
        self.store.restore(dumps)
        if self.luck.random() < 0.5:
            self._step(self.luck.uniform(-2.0, 2.0))
        self.store.forget_scripts()
        self.store.up = True

    def _step(self, seconds: float) -> None:
        self.ledger.read(self.store.journal)
        self.store.ahead += seconds
        self.ledger.step(seconds, self.store.now())

    async def _forward(self) -> None:
        self._step(self.luck.choice([0.1, 1.0, 30.0]))

    async def _back(self) -> None:
        self._step(-self.luck.choice([0.1, 1.0, 30.0]))

    async def _forget(self) -> None:
        self.store.forget_scripts()

    async def _provider(self) -> None:
        self._down = True
        await asyncio.sleep(self.luck.uniform(0.5, 4.0))
        self._down = False

    # The end.

    async def _afterwards(self) -> None:
        """When all leases are over and all has had time to refill, every limit is whole."""
        self.weather.lost = self.weather.unheard = self.weather.doubled = 0.0
        self.weather.slow = 0.003
        for way in self.ways:
            way.cut = False
        self.store.up = True
        await asyncio.sleep(LEASE + 120.0)
        for resource in (f"{POOL}/m1", f"{POOL}/m2"):
            for tenant in ("big", "small"):
                view = await self.engines[0].view(resource, tenant)
                limits = self.policies.policy(resource, tenant).limits
                for level, limit in zip(view.limits, limits, strict=True):
                    if level.remaining < 0.999 * limit.capacity:
                        raise Broken(f"{level.name} is at {level.remaining} at the end")
        for key in self._client.scan_iter(count=10_000):
            if not key.endswith(b":clock") and self._client.pttl(key) < 0:
                raise Broken(f"{key.decode()} stays for ever")

    def _digest(self) -> str:
        digest = blake2b(digest_size=16)
        for ran in self.store.journal:
            digest.update(f"{ran.at:.6f}{ran.name}{ran.key}".encode() + ran.reply)
        return digest.hexdigest()


def story(
    client: redis.Redis, seed: int, loaded: Mapping[str, Script] | None = None, *, calls: int
) -> Any:
    """The coroutine that tells the story of *seed* on an empty store."""

    async def tell() -> Told:
        client.flushall()
        return await Story(client, seed, loaded or scripts(), calls=calls).tell()

    return tell()
