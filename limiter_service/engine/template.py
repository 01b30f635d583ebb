"""What the chains of one resource have in common for all tenants that match the same section.

Tenants of a section have the same limits, but for the names of those that each has alone, and
meet them under keys of their own. All else is compiled here once, however many there are.
"""

from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import cast

import msgspec
from msgspec.structs import replace

from limiter_service.config import Limited, PoolConfig, TenantConfig, match, seconds
from limiter_service.engine import breaking
from limiter_service.engine.calendar import Span, boundaries
from limiter_service.engine.cells import Edges, end_of
from limiter_service.engine.limits import (
    KINDS,
    Limit,
    expects,
    has_shape,
    is_plain,
    limits,
    slot_width,
)
from limiter_service.engine.shape import Shape, any_money
from limiter_service.presets import limits_in_force
from limiter_service.prices import Catalogue, PriceConfig
from limiter_service.store.keys import Key, Keys
from limiter_service.store.messages import Chain
from limiter_service.store.packing import pack
from limiter_service.store.parcels import Kin

_SHADOW = 8
_LEARN = {"down": 0, "both": 1, "never": 2}
_MOST_THAT_LEARN = 26  # two bits each of a whole number in a double (lua/lib/learned)
_MICRO = 1_000_000
_LEAST_KEPT = 60 * _MICRO
_KEPT_FOR_COLD_START = 86_400 * _MICRO

_POOL, _MODEL, _TENANT = 1, 2, 3
"""Who shares a scope: the pool, a model, or nobody but one tenant (lua/lib/serving)."""


class Scope(msgspec.Struct, frozen=True):
    """One scope of a chain: its key, the limits in it, and who shares it."""

    key: Key
    limits: tuple[Limit, ...]
    level: int


class Part(msgspec.Struct, frozen=True):
    """The same for any tenant: the key depends on whom it is."""

    key: Callable[[str], Key]
    limits: tuple[Limit, ...]
    level: int


class Template:
    """The chain of one resource, for whichever tenant matches a *section*.

    The names of limits that a tenant has alone begin where its own ends.
    """

    def __init__(
        self,
        config: PoolConfig,
        pool: str,
        model: str,
        section: TenantConfig | None,
        keys: Keys,
        catalogue: Catalogue | None = None,
    ) -> None:
        self.pool, self.model, self.resource = pool, model, f"{pool}/{model}"
        self.config, self.keys, self.queue = config, keys, keys.queue()
        self.lease_ttl = seconds(config.lease_ttl)
        self.remember_us = int(seconds(config.remember) * _MICRO)
        self.slow_after = seconds(config.breaker.slow_ttft)
        self.weight = section.weight if section else 1.0
        self.price: PriceConfig | None = match(config.prices, model)
        if self.price is None and catalogue is not None:
            self.price = catalogue.price(config.provider, model)
        self.parts = _parts(config, pool, model, section, keys)
        self.limits = tuple(limit for part in self.parts for limit in part.limits)
        shared = [part for part in self.parts if part.level != _TENANT]
        self.alone = len(shared) < len(self.parts)  # whether a tenant has limits alone
        self._shared = sum(len(part.limits) for part in shared)
        self.expects = any(map(expects, self.limits))
        self.watches = any(limit.shadow for limit in self.limits)
        self.has_budgets = any(limit.kind == KINDS["calendar"] for limit in self.limits)
        place = next((n for n, each in enumerate(self.parts, 1) if each.level == _MODEL), 0)
        self.breaker = breaking.policy(config.breaker, model, place)
        self._breaker_keys = (keys.circuit(model), keys.pin(), keys.events())
        self._mark = keys.mark() if config.durability == "replicated" else None
        self._edges: dict[int, Edges] = {}
        self._plain = self._mark is None and all(map(is_plain, self.limits))
        self.shape: Shape | None = None
        priced = self.price is not None or not any_money(self.limits)
        if priced and self._mark is None and all(map(has_shape, self.limits)):
            self.shape = Shape([part.limits for part in self.parts], self._edges)
        self._same = _version([limit.id for limit in self.limits])
        self._levels = tuple(part.level for part in self.parts)
        self._policies: tuple[bytes, ...] | None = None
        self._valid = (0, 0)

    # For one tenant

    def limits_of(self, tenant: str) -> tuple[Limit, ...]:
        """The limits as the tenant knows them."""
        shared, alone = self.limits[: self._shared], self.limits[self._shared :]
        return shared + tuple([replace(limit, name=tenant + limit.name) for limit in alone])

    def shape_of(self, tenant: str) -> Shape | None:
        """The shape of the chain; None where a grant has to be explained limit by limit."""
        shape = self.shape
        if shape is None or not self.alone:
            return shape
        shared, alone = shape.faces[: self._shared], shape.faces[self._shared :]
        return shape.named(shared + tuple([(tenant + face[0], *face[1:]) for face in alone]))

    def chain_of(self, tenant: str, policies: tuple[bytes, ...]) -> Chain:
        """The chain, with what `policies` says now."""
        scopes = tuple([part.key(tenant) for part in self.parts])
        return Chain(
            scopes,
            policies,
            self._levels,
            tuple(map(self._slots, scopes, self.parts)),
            self._same,
            self.breaker,
            self._breaker_keys,
            self._mark,
            Kin() if self._plain else None,
            Kin() if self._plain else None,
        )

    def scopes_of(self, tenant: str, limits: Sequence[Limit]) -> tuple[Scope, ...]:
        """The scopes, with the *limits* as the tenant knows them."""
        left = iter(limits)
        return tuple(
            Scope(part.key(tenant), tuple(islice(left, len(part.limits))), part.level)
            for part in self.parts
        )

    def _slots(self, key: Key, part: Part) -> tuple[Key, ...]:
        return tuple([self.keys.slots(key, limit.id) for limit in part.limits if _counts(limit)])

    # For all of them

    def policies(self, now_us: float) -> tuple[bytes, ...]:
        """What the scripts read of each scope in a call at about *now_us*: the same tuple until
        the boundaries of calendars are others.
        """
        start, end = self._valid
        if self._policies is None or (self.has_budgets and not start <= now_us < end):
            self._policies = self._built(now_us)
        return self._policies

    def window_end(self, limit: Limit, start: float) -> float:
        """When the calendar window that began at *start* ends, in Unix µs."""
        return end_of(self._edges[limit.id], start)

    def window_start(self, limit: Limit, wall: float) -> float:
        """The begin of the calendar window of *limit* at *wall*, in Unix µs."""
        start, end, _ = self._edges.get(limit.id) or self._edges_of(limit, wall)
        return start if wall < end else end

    def next_edge(self, limit: Limit, wall: float) -> float:
        """The end of the calendar window of *limit* at *wall*, in Unix µs."""
        _, end, after = self._edges.get(limit.id) or self._edges_of(limit, wall)
        return end if wall < end else after

    def _built(self, now_us: float) -> tuple[bytes, ...]:
        before = len(self.parts)
        kept = max(_LEAST_KEPT, self.lease_ttl * _MICRO)
        if self.config.cold_start < 1:
            # Otherwise an idle limit would lose its state and start cold.
            kept = max(kept, _KEPT_FOR_COLD_START)
        policies = []
        for part in self.parts:
            records: list[float] = []
            slot = 0
            for limit in part.limits:
                kind = limit.kind + (_SHADOW if limit.shadow else 0)
                records += [kind, limit.id, limit.capacity]
                match limit.window:
                    case "bucket":
                        records.append(limit.rate)
                    case "sliding":
                        records.append(slot_width(limit))
                    case "calendar":
                        records += self._edges_of(limit, now_us)
                    case "ramp":
                        records += [limit.factor, slot_width(limit)]
                    case _:
                        slot += 1
                        records.append(slot)
            head = [len(part.limits), kept, self.config.cold_start]
            modes = enumerate(part.limits[:_MOST_THAT_LEARN])
            learn = sum(_LEARN[limit.learn] * 4.0**nth for nth, limit in modes)
            version = _version([*head, learn, *records])
            policies.append(pack([version, *head, before, learn, *records]))
            before += slot
        spans = list(self._edges.values())
        if spans:
            self._valid = max(e[0] for e in spans), min(e[1] for e in spans)
        return tuple(policies)

    def _edges_of(self, limit: Limit, now_us: float) -> Edges:
        span = cast("Span", limit.config.per)
        self._edges[limit.id] = boundaries(span, limit.config.timezone, now_us)
        return self._edges[limit.id]


def _parts(
    config: PoolConfig, pool: str, model: str, section: TenantConfig | None, keys: Keys
) -> tuple[Part, ...]:
    on_model: Limited | None = match(config.models, model)
    on_both: Limited | None = match(section.models, model) if section else None
    of_model = _for_anybody(keys.model_scope(model))
    of_both = partial(keys.tenant_model_scope, model=model)
    candidates: list[tuple[str, str, int, Callable[[str], Key], Limited | None]] = [
        ("pool", pool, _POOL, _for_anybody(keys.pool_scope()), config),
        ("model", model, _MODEL, of_model, on_model),
        ("tenant", "", _TENANT, keys.tenant_scope, section),
        ("tenant_model", f".{model}", _TENANT, of_both, on_both),
    ]
    found = [
        Part(key, tuple(limits(scope, label, in_force, config)), level)
        for scope, label, level, key, part in candidates
        if part is not None and (in_force := limits_in_force(config, scope, model, part))
    ]
    # A lease needs the time of its grant, which stands in the first scope.
    return tuple(found) or (Part(of_model, (), _MODEL),)


def _for_anybody(key: Key) -> Callable[[str], Key]:
    return lambda _: key


def _counts(limit: Limit) -> bool:
    """Whether leases that live stand in a set of their own."""
    return limit.kind == KINDS["concurrency"]


def _version(values: list[float]) -> int:
    """A number that is equal for equal policies of a scope."""
    return int.from_bytes(blake2b(pack(values), digest_size=6).digest(), "big")
