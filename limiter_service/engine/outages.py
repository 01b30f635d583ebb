"""Pools whose store is lost: noticed, decided alone, and made up for when it is back.

Each pool has a watch. While the store answers, it says that this replica lives and looks at the
levels. When it does not, acquires are decided here (engine/degraded), and the watch tries whether
the store writes again. Then everything that was granted is charged, this replica says so, and
callers are held until every other has said it too, for as long as PATIENCE: from a store that does
not know yet what others have granted, too much could be taken.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from itertools import islice

import structlog

from limiter_service.engine import ids
from limiter_service.engine.calls import Calls
from limiter_service.engine.journal import Entry, Journal
from limiter_service.engine.levels import Level, read
from limiter_service.engine.local import Slots, Window, window_of
from limiter_service.engine.policy import Policies, Policy, UnknownResource
from limiter_service.engine.presence import SILENT, Place, Presence, Sights
from limiter_service.engine.refusals import Refusal
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError, StoreUnavailable
from limiter_service.store.keys import Keys
from limiter_service.store.messages import Seen
from limiter_wire import Event, Settle

BEAT = 0.5
"""Seconds between two beats of a replica."""

TRY = 0.1
"""Seconds between two tries while the store is lost."""

PATIENCE = 0.5
"""Seconds that callers are held, at most, until every replica has charged what it granted."""

_BLUR = 5000.0  # microseconds by which the store's time is known here
_LOOK = 1.0
_ASK = 0.02
_AT_ONCE = 200
_MOST_LOOKED_AT = 64
MOST_SHARES = 100_000
"""Limits of a pool that a replica tells apart while the store is lost: callers make up tenants."""
_TENANT = "default"
_MICRO = 1_000_000

_log = structlog.get_logger()


class Phase(StrEnum):
    """Who decides."""

    STORE = "store"
    """The store."""
    ALONE = "alone"
    """This replica: the store is lost."""
    CHARGING = "charging"
    """This replica still: the store is back, and is being told what was granted."""
    HELD = "held"
    """Nobody: everything is charged here, and not yet everywhere."""


class Outage:
    """One pool: who decides, and what is needed for deciding alone."""

    def __init__(self, name: str) -> None:
        self.name, self.phase = name, Phase.STORE
        self.presence, self.sights, self.journal = Presence(), Sights(), Journal()
        self.windows: dict[Place, Window] = {}
        self.part = 0.0  # the largest share that this replica had, or that any of them has
        self.since = 0.0
        self.granted = self.charged = 0
        self.reason = ""
        self.changed = asyncio.Event()
        self.used: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.looked_at = -_LOOK
        self.freed: set[str] = set()

    def turn(self, phase: Phase) -> None:
        """Go on to another phase, and tell whoever waits for that."""
        self.phase = phase
        self.changed.set()
        self.changed = asyncio.Event()

    def windows_of(self, policy: Policy, now: float) -> list[Window]:
        """This replica's share of every limit of a chain."""
        found: list[Window] = []
        for place, limit in policy.placed:
            window = self.windows.get(place)
            if window is None:
                self.part = max(self.part, self.presence.part)  # it may have grown meanwhile
                window = window_of(limit, self.sights.sight(place, self.presence, now))
                if len(self.windows) < MOST_SHARES:
                    self.windows[place] = window
            found.append(window)
        return found

    def is_strange(self, policy: Policy) -> bool:
        """Whether a chain has limits that are one too many to be told apart."""
        fresh = sum(place not in self.windows for place, _ in policy.placed)
        return fresh > 0 and len(self.windows) + fresh > MOST_SHARES

    def taken(
        self, policy: Policy, amounts: Sequence[float], now: Callable[["Outage"], float]
    ) -> None:
        """This replica has taken through the store."""
        self.sights.taken(policy, amounts)
        if self.windows:
            self._spend(policy, amounts, now(self))

    def note_use(self) -> None:
        """Take in whose limits were taken from lately."""
        for policy in self.sights.lately():
            name = (policy.resource, policy.tenant)
            self.used[name] = None
            self.used.move_to_end(name)
        while len(self.used) > _MOST_LOOKED_AT:
            self.used.popitem(last=False)

    def _spend(self, policy: Policy, amounts: Sequence[float], now: float) -> None:
        for (place, _), amount in zip(policy.placed, amounts, strict=True):
            window = self.windows.get(place)
            if window is not None and amount > 0:
                window.spent(amount, now)

    def ended(self, policy: Policy, lease: str, now: float) -> None:
        """A lease of the store has ended here; its slots are free, once."""
        if lease not in self.freed:
            self.freed.add(lease)
            for window in self.windows_of(policy, now):
                if isinstance(window, Slots):
                    window.freed()


class Outages:
    """The pools of one replica."""

    def __init__(
        self,
        commands: Commands,
        calls: Calls,
        policies: Callable[[], Policies],
        prefix: str,
        replica: float,
    ) -> None:
        self._commands, self._calls, self._policies = commands, calls, policies
        self._prefix, self._replica = prefix, replica
        self._pools: dict[str, Outage] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._settle: Callable[[Settle], Awaitable[object]] | None = None
        self._lost: Callable[[str], None] = lambda _: None
        self.told: Callable[[str, Event], None] = lambda *_: None
        """Hears what happens to the store of a pool, at the moment of its loss."""

    def tell(
        self, settle: Callable[[Settle], Awaitable[object]], lost: Callable[[str], None]
    ) -> None:
        """Let *settle* take in kept reports, and *lost* hear which pool is decided alone."""
        self._settle, self._lost = settle, lost

    def all(self) -> list[Outage]:
        """Every pool that was met."""
        return list(self._pools.values())

    def pool(self, name: str) -> Outage:
        """One pool."""
        found = self._pools.get(name)
        if found is None:
            found = self._pools[name] = Outage(name)
        return found

    def mode(self, name: str) -> str:
        """What the configuration says for a pool."""
        config = self._policies().config.pools.get(name)
        return "closed" if config is None else config.on_store_loss

    def is_lost(self, pool: Outage) -> bool:
        """Whether a pool is decided without the store, or not at all."""
        return pool.phase is not Phase.STORE

    def is_away(self, name: str) -> bool:
        """The same of a pool by its name."""
        pool = self._pools.get(name)
        return pool is not None and self.is_lost(pool)

    def goes_on(self) -> bool:
        """Whether any pool is decided while the store is lost."""
        config = self._policies().config.pools
        return any(
            config[pool.name].on_store_loss != "closed" and pool.presence.known
            for pool in self._pools.values()
            if pool.name in config
        )

    def describe(self, pool: Outage) -> str:
        """One line for probes about a pool that is not decided by the store."""
        lasts = asyncio.get_running_loop().time() - pool.since
        mode, share = self.mode(pool.name), ""
        if mode == "degrade":
            share = (
                f" as one of {pool.presence.replicas}" if pool.presence.part else " with no share"
            )
        return (
            f"{mode}{share} for {lasts:.1f} s ({pool.phase}), {pool.granted} granted, "
            f"{len(pool.journal)} to be charged: {pool.reason}"
        )

    def now_us(self, pool: Outage) -> float:
        """The store's time, in microseconds."""
        if pool.presence.known:
            return pool.presence.now_us(asyncio.get_running_loop().time())
        return self._calls.now_us()

    def lost(self, name: str, reason: str) -> Outage:
        """The store has not answered for a pool."""
        pool = self.pool(name)
        if name not in self._watches or pool.phase is Phase.ALONE:
            return pool  # nobody would see it come back, or everybody knows
        if pool.phase is Phase.STORE:
            pool.since, pool.reason = asyncio.get_running_loop().time(), reason
            pool.windows, pool.freed, pool.part = {}, set(), pool.presence.part
            _log.error("the store is lost", pool=name, mode=self.mode(name), problem=reason)
            if pool.presence.known:  # else it was never there, and its return is no event either
                self.told(name, self._loss(pool))
        pool.turn(Phase.ALONE)
        self._lost(name)
        return pool

    def watches(self, name: str) -> bool:
        """Whether it is noticed here when the store of a pool is back."""
        return name in self._watches

    def taken(self, policy: Policy, amounts: Sequence[float]) -> None:
        """This replica has taken *amounts* through the store."""
        pool = self._pools.get(policy.pool)
        if pool is not None and policy.pool in self._watches:
            pool.taken(policy, amounts, self.now_us)

    def start(self) -> None:
        """Watch every pool of the configuration; again after a reload."""
        names = set(self._policies().config.pools)
        for name in names - set(self._watches):
            watch = asyncio.get_running_loop().create_task(self._watch(self.pool(name)))
            self._watches[name] = watch

    async def aclose(self) -> None:
        """Charge what is not charged yet, if the store is there, and leave."""
        for watch in self._watches.values():
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        for pool in self._pools.values():
            with contextlib.suppress(StoreError, Refusal):
                if len(pool.journal) > 0:
                    await self._charge(pool)
                await self._beat(pool, -1)
            if len(pool.journal) > 0:
                _log.error("grants were not charged", pool=pool.name, leases=len(pool.journal))
        self._watches.clear()

    async def _watch(self, pool: Outage) -> None:
        while True:
            try:
                if pool.phase is Phase.STORE:
                    await self._live(pool)
                else:
                    await self._come_back(pool)
            except (StoreError, Refusal) as error:
                self.lost(pool.name, str(error))
                await asyncio.sleep(TRY)
            except Exception:  # noqa: BLE001  # whatever it is: a pool needs its watch
                _log.exception("the watch over a pool has failed", pool=pool.name)
                await asyncio.sleep(BEAT)

    async def _live(self, pool: Outage) -> None:
        """One beat, a look when it is due, and some of the reports that were kept."""
        seen = await self._beat(pool, 1)
        now = asyncio.get_running_loop().time()
        pool.presence.hear(seen, now)
        pool.sights.pause(pool.presence.now_us(now))
        if now - pool.looked_at >= _LOOK:
            await self._look(pool)
            pool.looked_at = now
        if await self._take_in_reports(pool):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT):
                await pool.changed.wait()

    async def _look(self, pool: Outage) -> None:
        """See the levels of every resource that the file names, and of those in use."""
        policies = self._looked_at(pool)
        pool.sights.begin(self.now_us(pool))
        try:
            levels = await asyncio.gather(*map(self._levels, policies))
        except (StoreError, Refusal):
            pool.sights.failed()
            raise
        pool.sights.end(zip(policies, levels, strict=True))

    async def _levels(self, policy: Policy) -> list[Level]:
        tag = ids.new_nonce()
        reply = await self._calls.run(policy, lambda chain: self._commands.snapshot(chain, tag))
        return read(reply.numbers, 2, len(policy.limits))[0]

    def _looked_at(self, pool: Outage) -> list[Policy]:
        policies = self._policies()
        config = policies.config.pools.get(pool.name)
        models = [] if config is None else [m for m in config.models if not m.endswith("*")]
        named = [(f"{pool.name}/{model}", _TENANT) for model in models[:_MOST_LOOKED_AT]]
        pool.note_use()
        found: list[Policy] = []
        for resource, tenant in dict.fromkeys([*named, *pool.used]):
            with contextlib.suppress(UnknownResource):
                found.append(policies.policy(resource, tenant))
        return found

    async def _come_back(self, pool: Outage) -> None:
        """Try whether the store writes; if so, charge, say so, and wait for the others."""
        if not pool.presence.known and len(pool.journal) == 0:
            await self._beat(pool, 0)
            pool.turn(Phase.STORE)
            return
        loop = asyncio.get_running_loop()
        lost_at = pool.presence.now_us(pool.since) + _BLUR if pool.presence.known else 0.0
        seen = await self._beat(pool, 0)
        if pool.presence.known:
            pool.presence.hear(seen, loop.time())
        pool.turn(Phase.CHARGING)
        count = await self._charge(pool)
        pool.turn(Phase.HELD)
        lasts = (loop.time() - pool.since) * _MICRO
        seen = await self._beat(pool, 1, since=lost_at, event=self._event(pool, lasts, count))
        deadline = loop.time() + PATIENCE
        while seen.after < pool.presence.replicas and loop.time() < deadline:
            await asyncio.sleep(_ASK)
            seen = await self._beat(pool, 1, since=lost_at)
        pool.presence.hear(seen, loop.time())
        if pool.phase is not Phase.HELD:
            return  # a call has met the loss of the store since, and more was granted alone
        pool.windows, pool.freed = {}, set()
        pool.looked_at = -_LOOK
        pool.turn(Phase.STORE)
        _log.warning("the store is back", pool=pool.name, lasted=lasts / _MICRO, charged=count)

    def _loss(self, pool: Outage) -> Event:
        """What is told here; the return is told by the store, to everybody."""
        return Event(
            time=self.now_us(pool) / _MICRO,
            type="degraded",
            resource=f"{pool.name}/*",
            from_="store",
            to=self.mode(pool.name),
            reason=pool.reason[:200],
        )

    def _event(self, pool: Outage, lasts: float, count: int) -> tuple[str, ...]:
        words = {
            "type": "degraded",
            "from": self.mode(pool.name),
            "to": "store",
            "reason": pool.reason[:200],
            "lasts": f"{lasts:.0f}",
            "count": str(count),
        }
        return ("*", *(text for pair in words.items() for text in pair))

    async def _charge(self, pool: Outage) -> int:
        """Charge everything that was granted; how many leases."""
        count = 0
        while due := pool.journal.due(pool.windows, self.now_us(pool), _AT_ONCE):
            await asyncio.gather(*(self._charge_one(pool, entry) for entry in due))
            count += len(due)
        pool.charged += count
        return count

    async def _charge_one(self, pool: Outage, entry: Entry) -> None:
        policy, debits = entry.policy, entry.debits or []
        claim = entry.late_claim(self.now_us(pool))
        key = Keys(policy.pool, self._prefix).lease(policy.tenant, entry.request_id)
        await self._calls.run(
            policy, lambda chain: self._commands.charge(chain, key, claim, debits, entry.moved)
        )
        pool.journal.done(entry)
        # Until the next look: if the store is lost before that, its share is not granted again.
        pool.sights.taken(policy, entry.spent())

    async def _take_in_reports(self, pool: Outage) -> bool:
        """Settle leases that have ended while the store was lost and were not granted here, some at
        a time: a replica that says nothing meanwhile is taken for dead. Whether there are more.
        """
        settle, reports = self._settle, pool.journal.reports
        if settle is None or not reports:
            return False
        some = [reports.pop(name) for name in list(islice(reports, _AT_ONCE))]
        taken = await asyncio.gather(*(self._take_in(pool, settle, each) for each in some))
        return all(taken) and len(reports) > 0

    async def _take_in(
        self, pool: Outage, settle: Callable[[Settle], Awaitable[object]], report: Settle
    ) -> bool:
        """Settle one; False when the store has not heard it, which it will later."""
        try:
            await settle(report)
        except Refusal as refusal:
            if isinstance(refusal.__cause__, StoreUnavailable):
                pool.journal.reports.setdefault(report.lease, report)
                return False
        return True

    async def _beat(
        self, pool: Outage, mode: int, since: float = 0.0, event: Sequence[str] = ()
    ) -> Seen:
        return await self._commands.beat(
            Keys(pool.name, self._prefix),
            ids.new_nonce(),
            self._replica,
            mode=mode,
            silent=SILENT * _MICRO,
            since=since,
            event=event,
        )
