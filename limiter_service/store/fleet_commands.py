"""The scripts of the fleet: signs of life, orders to replicas, what happens to them."""

from collections.abc import Mapping, Sequence

import msgspec

from limiter_service.store.breaker_commands import checked
from limiter_service.store.client import Client
from limiter_service.store.keys import FLEET, FleetKeys, Keys
from limiter_service.store.packing import pack
from limiter_service.store.scripts import load

UNTIL_CLEARED = -1.0
"""In place of a time that an order holds."""

NOW = 0.0
"""The same: it is taken back."""

_NO_ORDER, _LOOK, _LEAVE = -2.0, -1.0, 0.0


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """One order as it is stored; times in microseconds, `until` -1: until it is taken back."""

    name: str
    until: float
    since: float
    value: str
    actor: str
    reason: str


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """One replica: its name, until when it counts as alive, what it says of itself."""

    name: str
    until: float
    card: str


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """What a look at the fleet shows, at the store's time `now`."""

    now: float
    orders: list[Stored]
    replicas: list[Listed]


_decoder = msgspec.msgpack.Decoder(Seen)
_encoder = msgspec.msgpack.Encoder()


class FleetCommands:
    """The scripts, as methods. Each raises StoreUnavailable or StoreProtocol."""

    def __init__(
        self, client: Client, prefix: str, replace: Mapping[str, str] | None = None
    ) -> None:
        self._client, self._keys = client, FleetKeys(prefix)
        self._channel = Keys(FLEET, prefix).channel()
        self._order, self._fleet = load("order", replace), load("fleet", replace)

    @property
    def channel(self) -> str:
        """Where orders are announced."""
        return self._channel

    async def order(
        self,
        tag: float,
        name: str,
        value: str,
        life: float,
        actor: str,
        reason: str,
        event: Sequence[str],
    ) -> None:
        """Order something for *life* microseconds (or UNTIL_CLEARED, or NOW: take it back)."""
        await self._tell(tag, life, (name, value, actor, reason), event)

    async def tell(self, tag: float, event: Sequence[str]) -> None:
        """Let everybody who listens know what has happened: names and values by turns."""
        await self._tell(tag, _NO_ORDER, ("", "", "", ""), event)

    async def alive(self, tag: float, name: str, card: str, life: float) -> Seen:
        """Say that a replica lives, for *life* microseconds; what is ordered."""
        return await self._look(tag, life, name, card)

    async def leave(self, tag: float, name: str) -> None:
        """Say that a replica is gone."""
        await self._look(tag, _LEAVE, name, "")

    async def look(self, tag: float) -> Seen:
        """Every order and every replica; changes nothing."""
        return await self._look(tag, _LOOK, "", "")

    async def _tell(
        self, tag: float, life: float, order: tuple[str, str, str, str], event: Sequence[str]
    ) -> None:
        head = pack([tag, life, 1 if self._client.sharded else 0])
        arguments: list[str | bytes] = [head, *(text.encode() for text in order)]
        arguments += [self.channel, _encoder.encode(list(event))]
        keys = (self._keys.orders(), self._keys.events())
        checked(await self._client.run(self._order, keys, arguments), head[:8], "order")

    async def _look(self, tag: float, life: float, name: str, card: str) -> Seen:
        head = pack([tag, life])
        keys = (self._keys.orders(), self._keys.replicas(), self._keys.cards())
        answer = await self._client.run(self._fleet, keys, (head, name, card))
        return _decoder.decode(checked(answer, head[:8], "fleet"))
