"""From configuration to policies: the limits that one resource meets for one tenant.

A policy is what the scripts read (lua/lib/layout). The chain is pool, model, tenant,
tenant on model; a scope without limits costs nothing and is left out.
"""

from collections import OrderedDict
from typing import TypeVar

from limiter_service.config import Config, entry, match, patterns
from limiter_service.engine import ids
from limiter_service.engine.limits import (
    RAMPS,
    SLOTS_OF_A_RAMP,
    SLOTS_OF_A_WINDOW,
    Limit,
    slot_width,
)
from limiter_service.engine.template import Scope, Template
from limiter_service.prices import Catalogue
from limiter_service.store.keys import Key, Keys
from limiter_service.store.messages import Chain

# Who has to do with policies finds their limits here.
__all__ = [
    "RAMPS",
    "SLOTS_OF_A_RAMP",
    "SLOTS_OF_A_WINDOW",
    "Limit",
    "Policies",
    "Policy",
    "UnknownResource",
    "slot_width",
]

K = TypeVar("K")
V = TypeVar("V")


class Policy:
    """The chain of one resource for one tenant: a template, with the names that are its own.

    There are very many, and most are met once: what not every call needs is made when asked for.
    """

    __slots__ = (
        "_by_id",
        "_chain",
        "_limits",
        "_placed",
        "breaker",
        "config",
        "expects",
        "has_budgets",
        "keys",
        "lease_ttl",
        "model",
        "pool",
        "price",
        "queue",
        "remember_us",
        "resource",
        "shape",
        "slow_after",
        "steady",
        "stem",
        "template",
        "tenant",
        "weight",
    )

    def __init__(self, template: Template, tenant: str) -> None:
        self.template, self.tenant = template, tenant
        self.pool, self.model, self.resource = template.pool, template.model, template.resource
        self.config, self.keys, self.queue = template.config, template.keys, template.queue
        self.lease_ttl, self.remember_us = template.lease_ttl, template.remember_us
        self.slow_after, self.breaker = template.slow_after, template.breaker
        self.weight, self.price = template.weight, template.price
        self.expects, self.has_budgets = template.expects, template.has_budgets
        self.shape = template.shape_of(tenant)
        self.stem = ids.Stem(template.pool, template.model, tenant)
        self.steady: Chain | None = None  # the chain, where it is the same at all times
        self._chain: Chain | None = None
        self._limits = None if template.alone else template.limits
        self._by_id: dict[float, Limit] | None = None
        self._placed: tuple[tuple[tuple[Key, int], Limit], ...] | None = None

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Every limit, in the order of the chain."""
        if self._limits is None:
            self._limits = self.template.limits_of(self.tenant)
        return self._limits

    @property
    def by_id(self) -> dict[float, Limit]:
        """The limits by their ids, as scripts have them."""
        if self._by_id is None:
            self._by_id = {float(limit.id): limit for limit in self.limits}
        return self._by_id

    @property
    def placed(self) -> tuple[tuple[tuple[Key, int], Limit], ...]:
        """Each limit behind the key of its scope, and its id."""
        if self._placed is None:
            self._placed = tuple(
                ((scope.key, limit.id), limit) for scope in self._scopes for limit in scope.limits
            )
        return self._placed

    @property
    def notices(self) -> tuple[Key, ...]:
        """Where it stands of each limit who holds it by hand."""
        return tuple(self.keys.notice(*place) for place, _ in self.placed)

    @property
    def shadows(self) -> tuple[Limit, ...]:
        """The limits that are only watched."""
        if not self.template.watches:
            return ()
        return tuple(limit for limit in self.limits if limit.shadow)

    @property
    def scopes(self) -> int:
        """How many scopes the chain has."""
        return len(self.template.parts)

    @property
    def _scopes(self) -> tuple[Scope, ...]:
        return self.template.scopes_of(self.tenant, self.limits)

    def place(self, limit_id: float) -> int:
        """Where the limit of that id stands in `limits`."""
        return self.limits.index(self.by_id[limit_id])

    def chain(self, now_us: float) -> Chain:
        """Keys and policies for a call at about *now_us* (boundaries of calendars)."""
        policies = self.template.policies(now_us)
        chain = self._chain
        if chain is None or chain.policies is not policies:
            chain = self._chain = self.template.chain_of(self.tenant, policies)
            self.steady = None if self.has_budgets else chain
        return chain

    def window_end(self, limit: Limit, start: float) -> float:
        """When the calendar window that began at *start* ends, in Unix µs."""
        return self.template.window_end(limit, start)

    def window_start(self, limit: Limit, wall: float) -> float:
        """The begin of the calendar window of *limit* at *wall*, in Unix µs."""
        return self.template.window_start(limit, wall)

    def next_edge(self, limit: Limit, wall: float) -> float:
        """The end of the calendar window of *limit* at *wall*, in Unix µs."""
        return self.template.next_edge(limit, wall)


class UnknownResource(LookupError):  # the name of the answer
    """No pool, or no model of the pool, is configured under that name."""


class Policies:
    """Every policy of a configuration, compiled when first asked for.

    Callers choose tenants and models, so what is remembered is bounded: what was compiled first
    is forgotten first, one for one.
    """

    def __init__(
        self,
        config: Config,
        prefix: str,
        most: int = 20_000,
        *,
        catalogue: Catalogue | None = None,
    ) -> None:
        """*catalogue* has the prices of models for which the file has none."""
        self.config, self._catalogue = config, catalogue
        self._prefix, self._most = prefix, most
        self._known: OrderedDict[tuple[str, str], Policy] = OrderedDict()
        self._templates: OrderedDict[tuple[str, str | None], Template] = OrderedDict()
        self._patterns = {name: patterns(pool.tenants) for name, pool in config.pools.items()}
        self.tenants = frozenset(
            tenant
            for pool in config.pools.values()
            for tenant in pool.tenants
            if not tenant.endswith("*")
        )

    def known(self, resource: str, tenant: str) -> Policy | None:
        """The policy of *resource* for *tenant*; None where the resource is not configured."""
        known = self._known.get((resource, tenant))
        return self._compile(resource, tenant) if known is None else known

    def has(self, policy: Policy) -> bool:
        """Whether a policy is one of these, and not of what was configured before."""
        return self.config.pools.get(policy.pool) is policy.config

    def policy(self, resource: str, tenant: str) -> Policy:
        """The policy of *resource* for *tenant*. Raises UnknownResource."""
        known = self.known(resource, tenant)
        if known is None:
            raise self._unknown(resource)
        return known

    def resources(self, most: int) -> list[str]:
        """Resources that the file names, without patterns, and those seen since it was read;
        at most *most*, of which named ones come first.
        """
        named = {
            f"{pool}/{model}"
            for pool, section in self.config.pools.items()
            for model in section.models
            if not model.endswith("*")
        }
        seen = {resource for resource, _ in self._known} - named
        return sorted([*sorted(named), *sorted(seen)][:most])

    def tenants_of(self, pool: str) -> set[str]:
        """Tenants that the file names for *pool*, without patterns, and those seen in it since
        the file was read.
        """
        section = self.config.pools[pool].tenants
        named = {tenant for tenant in section if not tenant.endswith("*")}
        if len(named) == len(section):
            return named  # nobody else has limits
        prefix = f"{pool}/"
        return named | {who for what, who in self._known if what.startswith(prefix)}

    def _compile(self, resource: str, tenant: str) -> Policy | None:
        pool = resource.partition("/")[0]
        config = self.config.pools.get(pool)
        if config is None:
            return None
        section = entry(config.tenants, self._patterns[pool], tenant)
        template = self._templates.get((resource, section))
        if template is None:
            template = self._template(resource, section)
            if template is None:
                return None
            _keep(self._templates, (template.resource, section), template, self._most)
        found = Policy(template, tenant)
        _keep(self._known, (template.resource, tenant), found, self._most)
        return found

    def _template(self, resource: str, section: str | None) -> Template | None:
        pool, _, model = resource.partition("/")
        config = self.config.pools[pool]
        if match(config.models, model) is None:
            return None
        tenants = None if section is None else config.tenants[section]
        keys = Keys(pool, self._prefix)
        return Template(config, pool, model, tenants, keys, self._catalogue)

    def _unknown(self, resource: str) -> UnknownResource:
        pool, _, model = resource.partition("/")
        config = self.config.pools.get(pool)
        if config is None:
            known = ", ".join(sorted(self.config.pools)) or "none"
            return UnknownResource(f"no pool {pool!r}; configured pools: {known}")
        known = ", ".join(sorted(config.models)) or "none"
        return UnknownResource(f"no model {model!r} in pool {pool!r}; configured models: {known}")


def _keep(known: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Remember one more, and the oldest no longer when there are *most*."""
    if len(known) >= most:
        known.popitem(last=False)  # a plain dict looks for its first item where others were
    known[key] = value
