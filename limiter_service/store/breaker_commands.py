"""The scripts of operators: look at circuits, hold them by hand, read what has happened."""

import sys
from array import array
from collections.abc import Mapping, Sequence

import msgspec

from limiter_service.store.client import Client
from limiter_service.store.errors import StoreProtocol
from limiter_service.store.keys import Keys
from limiter_service.store.packing import pack
from limiter_service.store.scripts import load

RESET = -1
"""In place of an override: forget everything but the generation."""

NEWEST = "$"
"""In place of an event's id: only what comes from now on."""

_BATCH = 100  # events, and circuits, of one answer


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator does to a circuit. `life` in microseconds, -1: until it is cleared."""

    mode: int
    life: float = -1.0
    expected: float = -1.0
    actor: str
    reason: str
    note: bytes = b""


class Raw(msgspec.Struct, frozen=True):
    """Circuits of one pool as they are stored: the store's time, the pin, and per model its
    circuit and its note.
    """

    wall: float
    pin: Sequence[float] | None
    circuits: list[tuple[Sequence[float] | None, bytes | None]]


class BreakerCommands:
    """The scripts, as methods. Each raises StoreUnavailable or StoreProtocol."""

    def __init__(self, client: Client, replace: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._override = load("override", replace)
        self._circuits = load("circuits", replace)
        self._events = load("events", replace)

    async def override(
        self, keys: Keys, model: str, policy: bytes, tag: float, order: Order
    ) -> tuple[bool, int]:
        """Hold a circuit, let go of it, or reset it: whether its generation was the expected
        one, and which it is now.
        """
        names = [keys.circuit(model), keys.pin(), keys.note(model), keys.events()]
        sharded = 1 if self._client.sharded else 0
        numbers = pack([tag, order.mode, order.life, order.expected, sharded])
        who, why = order.actor.encode(), order.reason.encode()
        texts: list[str | bytes] = [policy, numbers, order.note, who, why, keys.channel()]
        answer = await self._client.run(self._override, names, texts)
        body = checked(answer, numbers[:8], "override")
        return answer[8:9] == b"G", int(_numbers(body)[0])

    async def circuits(self, keys: Keys, models: Sequence[str], tag: float) -> Raw:
        """Read circuits; change nothing."""
        found = Raw(0.0, None, [])
        for first in range(0, max(1, len(models)), _BATCH):
            found = await self._some_circuits(keys, models[first : first + _BATCH], tag, found)
        return found

    async def _some_circuits(
        self, keys: Keys, models: Sequence[str], tag: float, before: Raw
    ) -> Raw:
        names = [keys.pin()]
        for model in models:
            names += [keys.circuit(model), keys.note(model)]
        head = pack([tag])
        body = checked(await self._client.run(self._circuits, names, [head]), head, "circuits")
        wall, *lengths = _numbers(body[: 8 * (len(names) + 1)])
        texts: list[bytes | None] = []
        at = 8 * (len(names) + 1)
        for length in lengths:
            texts.append(body[at : at + int(length)] if length >= 0 else None)
            at += max(0, int(length))
        pin = _numbers(texts[0]) if texts[0] else None
        circuits = [
            (_numbers(circuit) if circuit else None, note)
            for circuit, note in zip(texts[1::2], texts[2::2], strict=True)
        ]
        return Raw(wall, pin, before.circuits + circuits)

    async def events(
        self, keys: Keys, after: str, tag: float
    ) -> tuple[str, list[tuple[str, dict[str, str]]]]:
        """What has happened in a pool after an event: the id to go on from, and events."""
        head = pack([tag])
        answer = await self._client.run(self._events, [keys.events()], [head, after, str(_BATCH)])
        last, entries = _decoder.decode(checked(answer, head, "events"))
        events = [
            (name, dict(zip(fields[::2], fields[1::2], strict=True))) for name, fields in entries
        ]
        return last, events


_decoder = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, list[str]]]])


def checked(answer: bytes, tag: bytes, name: str) -> bytes:
    """The body of an answer. Raises StoreProtocol when it belongs to another call."""
    if answer[:8] != tag:
        raise StoreProtocol(f"the answer to {name} belongs to another call")
    return answer[9:]


def _numbers(text: bytes) -> Sequence[float]:
    numbers = array("d")
    numbers.frombytes(text)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
