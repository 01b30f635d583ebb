"""Who calls, what it may do, and for whom."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from limiter_service.engine import ids
from limiter_service.engine.refusals import Refusal
from limiter_service.engine.turnstile import Turnstile, Why
from limiter_service.store.keys import FLEET
from limiter_wire import Role

Ended = Callable[[str], None]


class Caller:
    """One key, or everybody who needs none.

    A caller that is bound acts for its pools and tenants alone. `admin` contains the other
    roles: who may change every limit gains nothing that it could not give itself.
    """

    __slots__ = (
        "_turnstile",
        "_watchers",
        "actor",
        "bound",
        "id",
        "pools",
        "roles",
        "tenants",
        "why_ended",
    )

    def __init__(
        self,
        key_id: str | None,
        name: str,
        roles: Collection[str],
        *,
        pools: Collection[str] | None = None,
        tenants: Collection[str] | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        self._turnstile = turnstile or Turnstile()
        self.id = key_id
        self.actor = name if key_id is None else f"{name} ({key_id})"
        self.roles = frozenset(Role) if Role.ADMIN in roles else frozenset(roles)
        self.pools = None if pools is None else frozenset(pools)
        self.tenants = None if tenants is None else tuple(tenants)
        self.bound = pools is not None or tenants is not None
        self.why_ended: str | None = None
        self._watchers: set[Ended] = set()

    # What it may do. Each raises Refusal.

    def needs(self, *roles: Role) -> None:
        """Refuse a caller that has none of *roles*."""
        if self.roles.isdisjoint(roles):
            wanted = " or ".join(roles)
            has = ", ".join(sorted(self.roles)) or "none"
            raise self._turnstile.bar(Why.ROLE, f"this takes the role {wanted}; the key has {has}")

    def needs_no_bounds(self) -> None:
        """Refuse a caller that is bound: what it asks for concerns everybody."""
        if self.bound:
            raise self._bound_to("the key is bound, and this concerns every pool and tenant")

    def reaches(self, resource: str, tenant: str) -> None:
        """Refuse to act on the pool of a resource, or for a tenant, that is another's."""
        if self.bound:
            self.reaches_pool(resource.partition("/")[0])
            if not self.has_tenant(tenant):
                raise self._bound_to(f"the key is bound to {_listed('tenant', self.tenants)}")

    def reaches_pool(self, pool: str) -> None:
        """Refuse to act on another's pool."""
        if not self.has_pool(pool):
            raise self._bound_to(f"the key is bound to {_listed('pool', self.pools)}")

    def reaches_all_of(self, pool: str) -> None:
        """Refuse to change what tenants of a pool share, for a caller that is bound to some."""
        self.reaches_pool(pool)
        if self.tenants is not None:
            raise self._bound_to("the key is bound to tenants, and this concerns all of them")

    def reaches_lease(self, lease: str) -> None:
        """Refuse to report on another's lease. Ids that nobody gave out are not its business."""
        if self.bound:
            ref = ids.decode(lease)
            if ref is not None:
                self.reaches(f"{ref.pool}/{ref.model}", ref.tenant)

    def can_reach(self, resource: str, tenant: str) -> bool:
        """Whether `reaches` refuses nothing; here nobody is turned away, or counted."""
        if not self.bound:
            return True
        return self.has_pool(resource.partition("/")[0]) and self.has_tenant(tenant)

    def can_reach_lease(self, lease: str) -> bool:
        """Whether `reaches_lease` refuses nothing."""
        ref = ids.decode(lease) if self.bound else None
        return ref is None or self.can_reach(f"{ref.pool}/{ref.model}", ref.tenant)

    # What it may see.

    def has_pool(self, pool: str) -> bool:
        """Whether a pool is among its own."""
        return self.pools is None or pool in self.pools

    def has_tenant(self, tenant: str) -> bool:
        """Whether a tenant is among its own."""
        return self.tenants is None or tenant in self.tenants

    def sees(self, resource: str, tenant: str | None = None) -> bool:
        """Whether a resource is in a pool of its own, and is used by a tenant of its own."""
        if not self.bound:
            return True
        pool = resource.partition("/")[0]
        return self.has_pool(pool) and (tenant is None or self.has_tenant(tenant))

    def hears_of(self, pool: str) -> bool:
        """Whether it is told what happens in a pool, or in the fleet, to which bound ones do not
        belong.
        """
        return not self.bound or (pool != FLEET and self.has_pool(pool))

    def tenant(self, asked: str | None) -> str:
        """Whose view it gets: what it asks for, else its first tenant. Raises Refusal."""
        if asked is None:
            return "default" if self.tenants is None else self.tenants[0]
        if not self.has_tenant(asked):
            raise self._bound_to(f"the key is bound to {_listed('tenant', self.tenants)}")
        return asked

    def _bound_to(self, detail: str) -> Refusal:
        return self._turnstile.bar(Why.BOUNDS, detail)

    # When it is over.

    def end(self, why: str) -> None:
        """Tell whoever serves this caller that its key is valid no more."""
        self.why_ended = why
        for watcher in tuple(self._watchers):
            watcher(why)

    @contextmanager
    def watched(self, ended: Ended) -> Iterator[None]:
        """Call *ended*, at once or while the block lasts, when the key is valid no more."""
        self._watchers.add(ended)
        try:
            if self.why_ended is not None:
                ended(self.why_ended)
            yield
        finally:
            self._watchers.discard(ended)


ANYBODY = Caller(None, "anonymous", [*Role])
"""A caller without a key, where none is needed: it has every role."""


def _listed(kind: str, names: Collection[str] | None) -> str:
    return f"{kind} {', '.join(sorted(names or ()))}"[:300]
