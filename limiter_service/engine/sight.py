"""What of the picture a caller sees that is bound to pools or tenants. Pure."""

from msgspec.structs import replace

from limiter_service.engine.callers import Caller
from limiter_wire import Event, LevelPast, Live, Past, QueueView, ResourceView

_TENANT = "default"
_OF_TENANTS = {"tenant", "tenant_model"}


def moment_for(caller: Caller, live: Live) -> Live:
    """Its pools, and its tenants in them; what tenants share is seen by each of them."""
    return replace(
        live,
        resources=[_levels(caller, each) for each in live.resources if caller.sees(each.resource)],
        tenants=[
            each
            for each in live.tenants
            if caller.has_pool(each.pool) and caller.has_tenant(each.tenant)
        ],
        breakers=[each for each in live.breakers if caller.sees(each.resource)],
        providers=[each for each in live.providers if caller.has_pool(each.pool)],
        queues=[_lines(caller, each) for each in live.queues if caller.has_pool(each.pool)],
        traffic=[each for each in live.traffic if caller.sees(each.resource)],
    )


def past_for(caller: Caller, past: Past) -> Past:
    """The last minutes of what it sees."""
    return replace(
        past,
        traffic=[each for each in past.traffic if caller.sees(each.resource)],
        levels=[each for each in past.levels if caller.sees(each.resource, _tenant_of(each))],
    )


def hears(caller: Caller, event: Event) -> bool:
    """Whether it is told of an event."""
    if event.resource is None:
        return not caller.bound
    return caller.hears_of(event.resource.partition("/")[0])


def _tenant_of(past: LevelPast) -> str | None:
    """Whose own limit it is; None for those that tenants share."""
    _, at, tenant = past.resource.partition("/@")
    return tenant if at else _TENANT if past.limit.startswith(f"{_TENANT}.") else None


def _levels(caller: Caller, view: ResourceView) -> ResourceView:
    if caller.has_tenant(_TENANT):
        return view
    limits = [each for each in view.limits if each.scope not in _OF_TENANTS]
    names = {each.name for each in limits}
    budgets = [each for each in view.budgets if each.name in names]
    return replace(view, limits=limits, budgets=budgets)


def _lines(caller: Caller, queue: QueueView) -> QueueView:
    return replace(queue, lines=[each for each in queue.lines if caller.has_tenant(each.tenant)])
