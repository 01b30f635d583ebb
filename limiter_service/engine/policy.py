"""From configuration to policies: the limits that one resource meets for one tenant.

A policy is what the scripts read (lua/lib/layout). The chain is pool, model, tenant,
tenant on model; a scope without limits costs nothing and is left out.
"""

import math
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import cast

import msgspec
from msgspec.structs import replace

from limiter_service.config import (
    RAMP,
    Config,
    Learn,
    LimitConfig,
    Limited,
    PoolConfig,
    RampConfig,
    match,
    period,
    seconds,
)
from limiter_service.engine import breaking, ids
from limiter_service.engine.calendar import Span, boundaries
from limiter_service.engine.shape import Shape
from limiter_service.presets import limits_in_force
from limiter_service.prices import Catalogue, PriceConfig
from limiter_service.store.keys import Key, Keys
from limiter_service.store.messages import Chain
from limiter_service.store.packing import pack
from limiter_service.store.parcels import Kin
from limiter_wire import Meter

SLOTS_OF_A_WINDOW = 90
"""Slots of a sliding window: it is late by at most a ninetieth of its period."""

SLOTS_OF_A_RAMP = 20
"""Slots of one period of a ramp; one more counts (lua/lib/ramp)."""

RAMPS = 2**50
"""Ids of ramps are this and more; those of other limits are less (lua/lib/layout)."""

_KINDS = {"bucket": 1, "sliding": 2, "calendar": 3, "concurrency": 4, "ramp": 5}
_WINDOWS = {kind: window for window, kind in _KINDS.items()}
_IN_AN_ID = 4  # kinds that its last two bits can say
_SHADOW = 8
_LEARN = {"down": 0, "both": 1, "never": 2}
_MOST_THAT_LEARN = 26  # two bits each of a whole number in a double (lua/lib/learned)
_MICRO = 1_000_000
_LEAST_KEPT = 60 * _MICRO
_KEPT_FOR_COLD_START = 86_400 * _MICRO


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit, ready to be decided over.

    `unit` is how many units of the scripts make one of the meter: money is counted in
    millionths of a dollar, everything else as it is. `rate` is units per microsecond. A ramp
    is a limit beside the one that it belongs to, and shares its `config`: `limit` is where it
    starts, `factor` how far it may grow in a period.
    """

    id: int
    name: str
    scope: str
    meter: Meter
    kind: int
    unit: int
    capacity: float
    limit: float
    per: float | None
    rate: float
    config: LimitConfig
    learn: Learn = "never"
    factor: float = 1.0

    @property
    def shadow(self) -> bool:
        """Whether the limit is only watched."""
        return self.config.mode == "shadow"

    @property
    def window(self) -> str:
        """The window's name, also of what has none in the file: concurrency, ramps."""
        return _WINDOWS[self.kind]


class _Scope(msgspec.Struct, frozen=True):
    key: Key
    limits: tuple[Limit, ...]
    level: int


_LEVELS = {"pool": 1, "model": 2, "tenant": 3, "tenant_model": 3}
"""Who shares a scope: the pool, a model, or nobody but one tenant (lua/lib/serving)."""


class Policy:
    """The chain of one resource for one tenant."""

    def __init__(
        self,
        config: PoolConfig,
        pool: str,
        model: str,
        tenant: str,
        keys: Keys,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.pool, self.model, self.tenant = pool, model, tenant
        self.resource = f"{pool}/{model}"
        self.config = config
        self.lease_ttl = seconds(config.lease_ttl)
        self.remember = seconds(config.remember)
        self.remember_us = int(self.remember * _MICRO)
        self.slow_after = seconds(config.breaker.slow_ttft)
        self.keys, self.queue = keys, keys.queue()
        self.stem = ids.Stem(pool, model, tenant)
        self.weight = _weight(config, tenant)
        self.price: PriceConfig | None = match(config.prices, model)
        if self.price is None and catalogue is not None:
            self.price = catalogue.price(config.provider, model)
        self._scopes = _chain(config, pool, model, tenant, keys)
        self.notices = tuple(
            keys.notice(scope.key, limit.id) for scope in self._scopes for limit in scope.limits
        )
        self.limits = tuple(limit for scope in self._scopes for limit in scope.limits)
        self.placed = tuple(
            ((scope.key, limit.id), limit) for scope in self._scopes for limit in scope.limits
        )
        self.by_id = {float(limit.id): limit for limit in self.limits}
        self._slots = tuple(
            tuple(
                keys.slots(scope.key, limit.id)
                for limit in scope.limits
                if limit.kind == _KINDS["concurrency"]
            )
            for scope in self._scopes
        )
        self.breaker = breaking.policy(config.breaker, model, _place_of_model(self._scopes))
        self._breaker_keys = (keys.circuit(model), keys.pin(), keys.events())
        self._mark = keys.mark() if config.durability == "replicated" else None
        self.shadows = tuple(limit for limit in self.limits if limit.shadow)
        plain = self._mark is None and all(map(_is_plain, self.limits))
        self._kins = (Kin(), Kin()) if plain else (None, None)
        counts_money = any(limit.meter is Meter.COST_USD for limit in self.limits)
        # None where a grant has to be explained limit by limit.
        self.shape: Shape | None = None
        if plain and not counts_money:
            self.shape = Shape([scope.limits for scope in self._scopes])
        self.expects = any(_expects(limit) for limit in self.limits)
        self._shape = _version([limit.id for limit in self.limits])
        self.has_budgets = self._has_calendar = any(
            limit.kind == _KINDS["calendar"] for limit in self.limits
        )
        self._edges: dict[int, tuple[int, int, int]] = {}
        self._chain: Chain | None = None
        self.steady: Chain | None = None  # the chain, where it is the same at all times
        self._valid = (0, 0)

    @property
    def scopes(self) -> int:
        """How many scopes the chain has."""
        return len(self._scopes)

    def place(self, limit_id: float) -> int:
        """Where the limit of that id stands in `limits`."""
        return self.limits.index(self.by_id[limit_id])

    def chain(self, now_us: float) -> Chain:
        """Keys and policies for a call at about *now_us* (boundaries of calendars)."""
        start, end = self._valid
        if self._chain is None or (self._has_calendar and not start <= now_us < end):
            self._chain, self._valid = self._build(now_us)
            self.steady = None if self._has_calendar else self._chain
        return self._chain

    def window_end(self, limit: Limit, start: float) -> float:
        """When the calendar window that began at *start* ends, in Unix µs."""
        return next((edge for edge in self._edges[limit.id] if edge > start), start)

    def window_start(self, limit: Limit, wall: float) -> float:
        """The begin of the calendar window of *limit* at *wall*, in Unix µs."""
        start, end, _ = self._edges.get(limit.id) or self._edges_of(limit, wall)
        return start if wall < end else end

    def next_edge(self, limit: Limit, wall: float) -> float:
        """The end of the calendar window of *limit* at *wall*, in Unix µs."""
        _, end, after = self._edges.get(limit.id) or self._edges_of(limit, wall)
        return end if wall < end else after

    def _build(self, now_us: float) -> tuple[Chain, tuple[int, int]]:
        before = len(self._scopes)
        kept = max(_LEAST_KEPT, self.lease_ttl * _MICRO)
        if self.config.cold_start < 1:
            # Otherwise an idle limit would lose its state and start cold.
            kept = max(kept, _KEPT_FOR_COLD_START)
        policies = []
        for scope, slots in zip(self._scopes, self._slots, strict=True):
            records: list[float] = []
            slot = 0
            for limit in scope.limits:
                kind = limit.kind + (_SHADOW if limit.shadow else 0)
                records += [kind, limit.id, limit.capacity]
                match limit.window:
                    case "bucket":
                        records.append(limit.rate)
                    case "sliding":
                        records.append(slot_width(limit))
                    case "calendar":
                        edges = self._edges_of(limit, now_us)
                        records += edges
                    case "ramp":
                        records += [limit.factor, slot_width(limit)]
                    case _:
                        slot += 1
                        records.append(slot)
            head = [len(scope.limits), kept, self.config.cold_start]
            modes = enumerate(scope.limits[:_MOST_THAT_LEARN])
            learn = sum(_LEARN[limit.learn] * 4.0**nth for nth, limit in modes)
            version = _version([*head, learn, *records])
            policies.append(pack([version, *head, before, learn, *records]))
            before += len(slots)
        spans = list(self._edges.values())
        valid = (max(e[0] for e in spans), min(e[1] for e in spans)) if spans else (0, 0)
        scopes = tuple(scope.key for scope in self._scopes)
        levels = tuple(scope.level for scope in self._scopes)
        chain = Chain(
            scopes,
            tuple(policies),
            levels,
            self._slots,
            self._shape,
            self.breaker,
            self._breaker_keys,
            self._mark,
            *self._kins,
        )
        return chain, valid

    def _edges_of(self, limit: Limit, now_us: float) -> tuple[int, int, int]:
        span = cast("Span", limit.config.per)
        self._edges[limit.id] = boundaries(span, limit.config.timezone, now_us)
        return self._edges[limit.id]


def _is_plain(limit: Limit) -> bool:
    """Whether *limit* is decided at once where nothing is unusual (lua/lib/fast)."""
    return limit.window == "bucket" and not limit.shadow


def _expects(limit: Limit) -> bool:
    """Whether what *limit* holds may depend on learned sizes."""
    return limit.meter is Meter.COST_USD or "expected" in (limit.config.reserve or "")


def slot_width(limit: Limit) -> int:
    """Microseconds of one slot of a sliding window or a ramp: whole, and never too narrow."""
    assert limit.per is not None
    slots = SLOTS_OF_A_RAMP if limit.window == "ramp" else SLOTS_OF_A_WINDOW
    return math.ceil(limit.per * _MICRO / slots)


def _version(values: list[float]) -> int:
    """A number that is equal for equal policies of a scope."""
    return int.from_bytes(blake2b(pack(values), digest_size=6).digest(), "big")


class UnknownResource(LookupError):  # the name of the answer
    """No pool, or no model of the pool, is configured under that name."""


class Policies:
    """Every policy of a configuration, compiled when first asked for."""

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
        self._known: dict[tuple[str, str], Policy] = {}
        self.tenants = frozenset(
            tenant
            for pool in config.pools.values()
            for tenant in pool.tenants
            if not tenant.endswith("*")
        )

    def known(self, resource: str, tenant: str) -> Policy | None:
        """The policy of *resource* for *tenant* if it was asked for before."""
        return self._known.get((resource, tenant))

    def has(self, policy: Policy) -> bool:
        """Whether a policy is one of these, and not of what was configured before."""
        return self._known.get((policy.resource, policy.tenant)) is policy

    def policy(self, resource: str, tenant: str) -> Policy:
        """The policy of *resource* for *tenant*. Raises UnknownResource."""
        known = self._known.get((resource, tenant))
        if known is None:
            known = self._compile(resource, tenant)
            if len(self._known) >= self._most:  # callers choose tenants and models: bounded
                self._known.clear()
            self._known[resource, tenant] = known
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

    def _compile(self, resource: str, tenant: str) -> Policy:
        pool, _, model = resource.partition("/")
        config = self.config.pools.get(pool)
        if config is None:
            known = ", ".join(sorted(self.config.pools)) or "none"
            raise UnknownResource(f"no pool {pool!r}; configured pools: {known}")
        if match(config.models, model) is None:
            known = ", ".join(sorted(config.models)) or "none"
            raise UnknownResource(
                f"no model {model!r} in pool {pool!r}; configured models: {known}"
            )
        keys = Keys(pool, self._prefix)
        return Policy(config, pool, model, tenant, keys, self._catalogue)


def _chain(
    config: PoolConfig, pool: str, model: str, tenant: str, keys: Keys
) -> tuple[_Scope, ...]:
    on_model: Limited | None = match(config.models, model)
    on_tenant = match(config.tenants, tenant)
    on_both: Limited | None = match(on_tenant.models, model) if on_tenant else None
    candidates: list[tuple[str, str, Key, Limited | None]] = [
        ("pool", pool, keys.pool_scope(), config),
        ("model", model, keys.model_scope(model), on_model),
        ("tenant", tenant, keys.tenant_scope(tenant), on_tenant),
        ("tenant_model", f"{tenant}.{model}", keys.tenant_model_scope(tenant, model), on_both),
    ]
    scopes = [
        _Scope(
            key,
            tuple(_limits(scope, label, limits, config)),
            _LEVELS[scope],
        )
        for scope, label, key, section in candidates
        if section is not None and (limits := limits_in_force(config, scope, model, section))
    ]
    # A lease needs the time of its grant, which stands in the first scope.
    return tuple(scopes) or (_Scope(keys.model_scope(model), (), _LEVELS["model"]),)


def _place_of_model(scopes: tuple[_Scope, ...]) -> int:
    """Where the model's scope stands in the chain, counted from 1; 0 when it has none."""
    levels = [scope.level for scope in scopes]
    return levels.index(_LEVELS["model"]) + 1 if _LEVELS["model"] in levels else 0


def _weight(config: PoolConfig, tenant: str) -> float:
    section = match(config.tenants, tenant)
    return section.weight if section else 1.0


def _learn(pool: PoolConfig, scope: str, limit: LimitConfig) -> Learn:
    """What a limit learns: headers are about a model, and tenants are nobody's but ours."""
    if scope == "model":
        return limit.learn or pool.learn
    return limit.learn or "never" if scope == "pool" else "never"


def _limits(
    scope: str, label: str, configs: list[LimitConfig], pool: PoolConfig
) -> Iterator[Limit]:
    for config in configs:
        limit = _limit(scope, label, config, _learn(pool, scope, config))
        yield limit
        if config.ramp is not None:
            yield _ramp(limit, config.ramp)


def _ramp(limit: Limit, ramp: RampConfig) -> Limit:
    per = seconds(ramp.period)
    shape = f"{limit.scope}|{limit.config.name}|{limit.meter}|ramp|{per}/{SLOTS_OF_A_RAMP}"
    digest = blake2b(shape.encode(), digest_size=6)
    return replace(
        limit,
        id=RAMPS + int.from_bytes(digest.digest(), "big"),
        name=f"{limit.name}.{RAMP}",
        kind=_KINDS["ramp"],
        capacity=float(ramp.start * limit.unit),
        limit=ramp.start,
        per=per,
        rate=0.0,
        learn="never",
        factor=ramp.factor,
    )


def _limit(scope: str, label: str, config: LimitConfig, learn: Learn) -> Limit:
    per = period(config) if config.meter is not Meter.CONCURRENCY else None
    unit = _MICRO if config.meter is Meter.COST_USD else 1
    window = _window(config)
    capacity = (config.burst if config.burst is not None else config.limit) * unit
    rate = config.limit * unit / (per * _MICRO) if per and window == "bucket" else 0.0
    # Whatever changes the meaning of the stored cell makes another limit of it. The kind in
    # the last two bits lets scripts read a state without its policy (lua/lib/layout).
    shape = f"{scope}|{config.name}|{config.meter}|{window}|{_shape_of[window](config, per)}"
    digest = blake2b(shape.encode(), digest_size=6)
    return Limit(
        id=int.from_bytes(digest.digest(), "big") * _IN_AN_ID + _KINDS[window] - 1,
        name=f"{label}.{config.name}",
        scope=scope,
        meter=config.meter,
        kind=_KINDS[window],
        unit=unit,
        capacity=float(capacity),
        limit=config.limit,
        per=per,
        rate=rate,
        config=config,
        learn=learn,
    )


def _window(config: LimitConfig) -> str:
    return "concurrency" if config.meter is Meter.CONCURRENCY else config.window or "bucket"


_shape_of: dict[str, Callable[[LimitConfig, float | None], str]] = {
    "bucket": lambda _config, _per: "",
    "sliding": lambda _config, per: f"{per}/{SLOTS_OF_A_WINDOW}",
    "calendar": lambda config, _per: f"{config.per}/{config.timezone}",
    "concurrency": lambda _config, _per: "",
}
