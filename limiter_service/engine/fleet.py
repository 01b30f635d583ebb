"""The replicas over one store: who lives, and what operators have ordered of them.

Orders lie in the store until they end or are taken back. A replica hears of a new one by a
message, which may be lost, and asks at each BEAT, which is the guarantee.
"""

import secrets
import socket
from collections.abc import Sequence

import msgspec

from limiter_service.engine import ids
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.errors import StoreError
from limiter_service.store.fleet_commands import NOW, UNTIL_CLEARED, FleetCommands, Seen, Stored
from limiter_wire import ErrorCode, FleetOrder, FleetView, ReplicaView

BEAT = 0.5
"""Seconds between looks at the store."""

DRAIN, LOG_LEVEL, RELOAD = "drain", "log_level", "reload"
EVERYBODY = "*"

_ALIVE = 5.0
_RELOAD_HOLDS = 600.0  # for replicas that the store is away from; who starts later reads anyway
_MICRO = 1_000_000
_RETRY_AFTER = 1.0
_MOST_DETAIL = 1000

_card_encoder = msgspec.json.Encoder()
_card_decoder = msgspec.json.Decoder(ReplicaView)


class Orders:
    """What is ordered, as one replica has to obey it."""

    def __init__(self, stored: Sequence[Stored], replica: str) -> None:
        self._stored, self._replica = {order.name: order for order in stored}, replica

    def of(self, kind: str) -> Stored | None:
        """The order of a kind that holds here: this replica's own before everybody's."""
        return self._stored.get(f"{kind} {self._replica}") or self._stored.get(
            f"{kind} {EVERYBODY}"
        )


class Fleet:
    """The use cases. Those of operators raise Refusal when they have no answer."""

    def __init__(self, commands: FleetCommands, name: str | None = None) -> None:
        self._commands = commands
        self.name = name or f"{socket.gethostname()[:150]}-{secrets.token_hex(2)}"

    @property
    def channel(self) -> str:
        """Where orders are announced."""
        return self._commands.channel

    async def alive(self, card: ReplicaView) -> Orders:
        """Say that this replica lives, and what is to be known of it. Raises StoreError."""
        text = _card_encoder.encode(card).decode()
        seen = await self._commands.alive(ids.new_nonce(), self.name, text, _ALIVE * _MICRO)
        return Orders(seen.orders, self.name)

    async def leave(self) -> None:
        """Say that this replica is gone. Raises StoreError."""
        await self._commands.leave(ids.new_nonce(), self.name)

    async def tell(self, kind: str, actor: str, reason: str, **fields: str) -> None:
        """Raise an event about this replica. Raises StoreError."""
        event = _event(kind, self.name, actor, reason, fields)
        await self._commands.tell(ids.new_nonce(), event)

    async def view(self) -> FleetView:
        """Every replica, and every order."""
        return _view(await self._look(), self.name)

    async def order(
        self, kind: str, replica: str | None, value: str, ttl: float | None, actor: str, reason: str
    ) -> FleetView:
        """Order something of a replica, or of all."""
        life = UNTIL_CLEARED if ttl is None else max(1.0, ttl * _MICRO)
        lasts = {} if ttl is None else {"lasts": f"{life:.0f}"}
        target = await self._target(replica)
        event = _event(kind, target, actor, reason or "order", lasts)
        return await self._send(f"{kind} {target}", value, life, actor, reason, event)

    async def clear(self, kind: str, replica: str | None, actor: str, reason: str) -> FleetView:
        """Take an order back; a replica that is gone may have left one."""
        target = replica or EVERYBODY
        event = _event(kind, target, actor, reason or "cleared", {})
        return await self._send(f"{kind} {target}", "", NOW, actor, reason, event)

    async def order_reload(self, actor: str, reason: str) -> None:
        """Let every replica read its pools file."""
        life = _RELOAD_HOLDS * _MICRO
        await self._send(f"{RELOAD} {EVERYBODY}", self.name, life, actor, reason, ())

    async def _send(
        self, name: str, value: str, life: float, actor: str, reason: str, event: Sequence[str]
    ) -> FleetView:
        try:
            await self._commands.order(ids.new_nonce(), name, value, life, actor, reason, event)
        except StoreError as error:
            raise _unavailable(error) from error
        return await self.view()

    async def _target(self, replica: str | None) -> str:
        if replica is None:
            return EVERYBODY
        alive = [each.name for each in (await self._look()).replicas]
        if replica not in alive:
            known = ", ".join(sorted(alive)) or "none"
            raise refuse(ErrorCode.INVALID, f"no replica {replica!r} lives; there are: {known}")
        return replica

    async def _look(self) -> Seen:
        try:
            return await self._commands.look(ids.new_nonce())
        except StoreError as error:
            raise _unavailable(error) from error


def _event(
    kind: str, replica: str, actor: str, reason: str, fields: dict[str, str]
) -> tuple[str, ...]:
    told = {"type": kind, "replica": replica, "actor": actor, "reason": reason or kind} | fields
    return tuple(text[:_MOST_DETAIL] for pair in told.items() for text in pair)


def _view(seen: Seen, name: str) -> FleetView:
    replicas = [_card_decoder.decode(each.card) for each in seen.replicas]
    return FleetView(
        answered_by=name,
        agreed=len({each.config for each in replicas}) <= 1,
        replicas=sorted(replicas, key=lambda each: each.name),
        orders=[
            _order(each)
            for each in sorted(seen.orders, key=lambda each: each.name)
            if not each.name.startswith(RELOAD)
        ],
    )


def _order(stored: Stored) -> FleetOrder:
    kind, _, replica = stored.name.partition(" ")
    return FleetOrder(
        kind=kind,
        replica=replica,
        value=stored.value,
        since=stored.since / _MICRO,
        until=None if stored.until < 0 else stored.until / _MICRO,
        actor=stored.actor,
        reason=stored.reason,
    )


def _unavailable(error: StoreError) -> Refusal:
    return refuse(
        ErrorCode.STORE_UNAVAILABLE,
        f"the store did not answer: {error}",
        retry_after=_RETRY_AFTER,
    )
