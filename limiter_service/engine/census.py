"""What stands in the fleet at this moment, for metrics: limits, leases, queues."""

import asyncio
from collections.abc import Iterator

import msgspec

from limiter_service.engine.learning import Learning
from limiter_service.engine.lending import Lending
from limiter_service.engine.lines import Lines
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_wire import LimitView, ResourceView

MOST_VIEWS = 200
"""Chains that are looked at; the others are left out."""

_NOBODY = "default"


class QueueNow(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of one pool. Times are seconds."""

    pool: str
    depth: int
    oldest: float
    most: int


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Limits by their names with the pool's in front, live leases by resource, queues; by pool
    the calls and tokens that blocks hold.
    """

    limits: dict[str, LimitView] = {}
    in_flight: dict[str, int] = {}
    queues: list[QueueNow] = []
    blocks: dict[str, tuple[int, int]] = {}


async def census(policies: Policies, learning: Learning, lines: Lines, lending: Lending) -> Census:
    """Look at every resource that is configured or was asked for, and at the limits of tenants
    that the file names. What cannot be looked at is left out.
    """
    pools = list(policies.config.pools)
    views, queues, blocks = await asyncio.gather(
        asyncio.gather(*(_view(learning, *chain) for chain in _chains(policies))),
        asyncio.gather(
            *(
                _queue(lines, pool, config.queue.max_waiters)
                for pool, config in policies.config.pools.items()
            )
        ),
        asyncio.gather(*(_held(lending, pool) for pool in pools)),
    )
    known = [view for view in views if view is not None]
    return Census(
        limits={
            f"{view.resource.partition('/')[0]}/{limit.name}": limit
            for view in known
            for limit in view.limits
        },
        in_flight={v.resource: v.in_flight for v in known if v.in_flight is not None},
        queues=[queue for queue in queues if queue is not None],
        blocks={pool: held for pool, held in zip(pools, blocks, strict=True) if held is not None},
    )


def _chains(policies: Policies) -> Iterator[tuple[str, str]]:
    """Resources and tenants whose chains have every limit that has a name."""
    resources = policies.resources(MOST_VIEWS)
    chains = [(resource, _NOBODY) for resource in resources]
    for pool, config in policies.config.pools.items():
        own = [each for each in resources if each.partition("/")[0] == pool]
        for tenant, section in config.tenants.items():
            if tenant.endswith("*"):
                continue
            named = [f"{pool}/{model}" for model in section.models if not model.endswith("*")]
            chains += [(each, tenant) for each in named or own[:1]]
    yield from chains[:MOST_VIEWS]


async def _view(learning: Learning, resource: str, tenant: str) -> ResourceView | None:
    try:
        return await learning.view(resource, tenant)
    except Refusal:
        return None


async def _held(lending: Lending, pool: str) -> tuple[int, int] | None:
    try:
        return await lending.held(pool)
    except Refusal:
        return None


async def _queue(lines: Lines, pool: str, most: int) -> QueueNow | None:
    try:
        depth, oldest = await lines.depth(pool)
    except Refusal:
        return None
    return QueueNow(pool=pool, depth=depth, oldest=oldest, most=most)
