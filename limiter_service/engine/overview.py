"""The whole fleet at one moment, bounded, for dashboards."""

import asyncio
import time
from collections.abc import Callable, Iterator

from limiter_service.config import Config, match, seconds
from limiter_service.engine.admission import Engine
from limiter_service.engine.circuits import Circuits
from limiter_service.engine.fleet_traffic import FleetTraffic
from limiter_service.engine.refusals import Refusal
from limiter_service.engine.timeline import Step, traffic
from limiter_wire import (
    BreakerList,
    ErrorCode,
    LimitView,
    Live,
    QueueView,
    ResourceView,
    TenantLimits,
)

_MOST_RESOURCES, _MOST_TENANTS, _MOST_LINES = 200, 100, 100
_OF_TENANTS = {"tenant", "tenant_model"}
_TENANT = "default"


class Overview:
    """Looks at everything at once; a store that does not answer is part of what it sees."""

    def __init__(
        self,
        engine: Engine,
        circuits: Circuits,
        fleet: FleetTraffic,
        wall_us: Callable[[], float],
        version: str,
    ) -> None:
        self._engine, self._circuits, self._fleet = engine, circuits, fleet
        self._wall_us, self._version = wall_us, version
        self._since = time.monotonic()

    async def look(self) -> Live:
        """This moment."""
        names = self._engine.policies.resources(_MOST_RESOURCES + 1_000)
        told, store = names[:_MOST_RESOURCES], None
        resources: list[ResourceView] = []
        tenants: list[TenantLimits] = []
        queues: list[QueueView] = []
        circuits = BreakerList(breakers=[], providers=[])
        try:
            resources, tenants, queues, circuits = await asyncio.gather(
                self._resources(told), self._tenants(told), self._queues(), self._circuits.all()
            )
        except Refusal as refusal:
            if refusal.problem.code is not ErrorCode.STORE_UNAVAILABLE:
                raise
            store = refusal.problem.detail
        seconds_of_it, counts = await self._fleet.of_late()
        shown = set(told)
        return Live(
            time=self._wall_us() / 1_000_000,
            uptime=time.monotonic() - self._since,
            version=self._version,
            store=store,
            resources=resources,
            tenants=tenants,
            breakers=[each for each in circuits.breakers if each.resource in shown],
            providers=circuits.providers,
            queues=queues,
            traffic=traffic(counts, self._engine.tally.decisions),
            traffic_seconds=seconds_of_it,
            omitted=len(names) - len(told),
        )

    async def past(self) -> list[Step]:
        """What was decided in the last minutes."""
        return await self._fleet.steps(self._wall_us() / 1_000_000)

    async def _resources(self, names: list[str]) -> list[ResourceView]:
        return await asyncio.gather(*(self._engine.view(name, _TENANT) for name in names))

    async def _tenants(self, resources: list[str]) -> list[TenantLimits]:
        """Limits of tenants' own. Those on the whole pool are seen through any of its models."""
        found: dict[tuple[str, str], dict[str, LimitView]] = {}
        policies = self._engine.policies
        pairs = [*_pairs(policies.config, resources, policies.tenants_of)][:_MOST_TENANTS]
        views = await asyncio.gather(*(self._engine.view(*pair) for pair in pairs))
        for view in views:
            own = found.setdefault((view.resource.partition("/")[0], view.tenant), {})
            own.update({each.name: each for each in view.limits if each.scope in _OF_TENANTS})
        return [
            TenantLimits(pool=pool, tenant=tenant, limits=[*own.values()])
            for (pool, tenant), own in found.items()
            if own
        ]

    async def _queues(self) -> list[QueueView]:
        lines = self._engine.lines
        return await asyncio.gather(
            *(
                lines.view(
                    pool, config.queue.max_waiters, seconds(config.queue.max_wait), _MOST_LINES
                )
                for pool, config in self._engine.policies.config.pools.items()
            )
        )


def _pairs(
    config: Config, resources: list[str], tenants: Callable[[str], set[str]]
) -> Iterator[tuple[str, str]]:
    """Resource and tenant of every chain in which a limit of the tenant's own may stand."""
    for pool, section in config.pools.items():
        mine = [each for each in resources if each.startswith(f"{pool}/")]
        if not section.tenants or not mine:
            continue
        for tenant in sorted(tenants(pool)):
            own = match(section.tenants, tenant)
            if own is None:
                continue
            models = [each for each in mine if match(own.models, each.partition("/")[2])]
            for resource in models or mine[:1]:
                yield resource, tenant
