"""Circuits for operators: look at them, hold them by hand, reset them."""

import asyncio
from collections.abc import Callable
from itertools import groupby

import msgspec

from limiter_service.engine import breaking, ids
from limiter_service.engine.breaking import MODE_NUMBERS, Note
from limiter_service.engine.policy import Policies, Policy, UnknownResource
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.breaker_commands import RESET, BreakerCommands, Order
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Keys
from limiter_wire import BreakerList, BreakerView, ErrorCode, Override, ProviderView

_MICRO = 1_000_000
_MOST_LISTED = 1000  # callers make up names for wildcards
_RETRY_AFTER = 1.0
_TENANT = "default"  # circuits know no tenants

_note_encoder = msgspec.msgpack.Encoder()
_note_decoder = msgspec.msgpack.Decoder(Note)


class Circuits:
    """The use cases of operators. Every method raises Refusal when it has no answer."""

    def __init__(
        self, commands: BreakerCommands, policies: Callable[[], Policies], prefix: str
    ) -> None:
        self._commands, self._policies, self._prefix = commands, policies, prefix

    async def one(self, resource: str) -> BreakerView:
        """The circuit of one resource."""
        policy = self._policy(resource)
        views, _ = await self._pool(policy.pool, [policy])
        return views[0]

    async def all(
        self,
        pool: str | None = None,
        state: str | None = None,
        among: Callable[[str], bool] = lambda _: True,
    ) -> BreakerList:
        """Every circuit that is configured or was asked for, and what pools say about their
        providers; of one pool, in one state, and of pools *among* some, where those are given.
        """
        policies = self._policies()
        listed = policies.resources(_MOST_LISTED)
        names = [n for n in listed if pool in {None, _pool_of(n)} and among(_pool_of(n))]
        chosen = [policies.policy(name, _TENANT) for name in names]
        grouped = [(name, list(each)) for name, each in groupby(chosen, lambda policy: policy.pool)]
        found = await asyncio.gather(*(self._pool(name, each) for name, each in grouped))
        return BreakerList(
            breakers=[
                view
                for views, _ in found
                for view in views
                if state in {None, view.state, view.effective}
            ],
            providers=[provider for _, provider in found],
        )

    async def hold(self, resource: str, order: Override, actor: str) -> BreakerView:
        """Hold a circuit by hand."""
        life = -1.0 if order.ttl is None else max(1.0, order.ttl * _MICRO)
        note = _note_encoder.encode(Note(actor, order.reason))
        return await self._order(
            resource,
            Order(
                mode=MODE_NUMBERS[order.mode],
                life=life,
                expected=_expected(order.expected_generation),
                actor=actor,
                reason=order.reason or "override",
                note=note,
            ),
        )

    async def release(
        self, resource: str, expected: int | None, actor: str, reason: str = ""
    ) -> BreakerView:
        """Let go of a circuit."""
        why = reason or "cleared"
        order = Order(mode=0, expected=_expected(expected), actor=actor, reason=why)
        return await self._order(resource, order)

    async def reset(
        self, resource: str, expected: int | None, actor: str, reason: str = ""
    ) -> BreakerView:
        """Say that all is well: close the circuit, and lift what its pool is latched by."""
        why = reason or "reset"
        order = Order(mode=RESET, expected=_expected(expected), actor=actor, reason=why)
        return await self._order(resource, order)

    async def _order(self, resource: str, order: Order) -> BreakerView:
        policy = self._policy(resource)
        keys = Keys(policy.pool, self._prefix)
        if not policy.breaker:
            raise refuse(
                ErrorCode.INVALID,
                f"the breaker of pool {policy.pool} is off: breaker.enabled is false",
                resource=resource,
            )
        try:
            obeyed, generation = await self._commands.override(
                keys, policy.model, policy.breaker, ids.new_nonce(), order
            )
        except StoreError as error:
            raise _unavailable(error, resource) from error
        if not obeyed:
            raise refuse(
                ErrorCode.GENERATION_CONFLICT,
                f"generation {order.expected:.0f} was expected and it is {generation}: "
                "look at the circuit again",
                resource=resource,
            )
        return await self.one(resource)

    async def _pool(
        self, pool: str, policies: list[Policy]
    ) -> tuple[list[BreakerView], ProviderView]:
        keys = Keys(pool, self._prefix)
        models = [policy.model for policy in policies]
        try:
            raw = await self._commands.circuits(keys, models, ids.new_nonce())
        except StoreError as error:
            raise _unavailable(error, f"{pool}/{models[0]}") from error
        views, pin = [], breaking.decode_pin(raw.pin)
        for policy, (numbers, note) in zip(policies, raw.circuits, strict=True):
            views.append(
                breaking.view(
                    policy.resource,
                    policy.config.breaker,
                    breaking.decode(numbers),
                    pin,
                    _note_decoder.decode(note) if note else None,
                    raw.wall,
                )
            )
        config = policies[0].config.breaker
        return views, breaking.provider(pool, config, pin, views, raw.wall)

    def _policy(self, resource: str) -> Policy:
        try:
            return self._policies().policy(resource, _TENANT)
        except UnknownResource as error:
            raise refuse(ErrorCode.UNKNOWN_RESOURCE, str(error), resource=resource) from error


def _pool_of(resource: str) -> str:
    return resource.partition("/")[0]


def _expected(generation: int | None) -> float:
    return -1.0 if generation is None else float(generation)


def _unavailable(error: StoreError, resource: str) -> Refusal:
    return refuse(
        ErrorCode.STORE_UNAVAILABLE,
        f"the store did not answer: {error}",
        resource=resource,
        retry_after=_RETRY_AFTER,
    )
