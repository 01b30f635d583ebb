"""The scripts that count: tell the store what has happened, read it, find leases nobody settled."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from limiter_service.store.client import Client
from limiter_service.store.errors import StoreProtocol
from limiter_service.store.keys import Key
from limiter_service.store.packing import pack, unpack
from limiter_service.store.scripts import load

KEPT_MS = 26 * 3_600_000
"""How long counts are kept after the last report: a day, and until its last slot is over."""

MOST_PLACES = (1, 64, 192)
"""Places of each level: the pool, models, tenants on models."""

What = int | str
News = tuple[int, str, float, Sequence[What | float]]
"""Level, name, how heavy it is, and pairs of what was counted and how much."""

MINUTE, OTHERS, ALL = (1, 1), (2, 3), (1, 3)
"""Rings to count in, the first and the last: that of the last minute, the coarser ones, both."""

_MOST_READ = 40  # places in a call: the store does nothing else meanwhile
_TAGS = 16  # lua/lib/counts
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[int | float | str])


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of one place over some slots; `steps` are those of each, by its number."""

    level: int
    name: str
    sums: dict[What, float]
    steps: dict[int, dict[What, float]] = {}


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in a pool in the last *reach* seconds: in *slots* of *width* seconds. Slot
    *newest* began at *newest* times *width*.
    """

    reach: float
    places: list[Counted]
    width: float
    slots: int
    newest: int


class CountCommands:
    """The scripts, as methods. Each raises StoreUnavailable or StoreProtocol."""

    def __init__(self, client: Client, replace: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._count, self._counts = load("count", replace), load("counts", replace)
        self._leases = load("leases", replace)

    async def count(
        self, key: Key, tag: float, news: Sequence[News], rings: tuple[int, int] = ALL
    ) -> None:
        """Add *news*; telling it again under the same *tag* adds nothing."""
        head = pack([tag, KEPT_MS, *MOST_PLACES, *rings])
        lists = [[level, name, claim, *pairs] for level, name, claim, pairs in news]
        answer = await self._client.run(self._count, [key], [head, _encoder.encode(lists)])
        if answer[:8] != head[:8]:
            raise StoreProtocol("the answer to count belongs to another call")

    async def counts(
        self, key: Key, tag: float, ring: int, slots: int, *, apart: bool = False
    ) -> Counts:
        """Sums over the newest *slots* of a ring, for every place that has any; *apart* also those
        of each slot.
        """
        reach, places, first = 0.0, list[Counted](), 0
        while True:
            head = pack([tag, ring, slots, first, _MOST_READ])
            answer = await self._client.run(self._counts, [key], [head])
            start, text, found = answer
            if start[:8] != head[:8]:
                raise StoreProtocol("the answer to counts belongs to another call")
            now, width = unpack(start[9:])
            newest = now // width
            oldest = newest - slots + 1
            reach = (now - oldest * width) / 1e6
            book = _decoder.decode(text)[_TAGS:] if text else []
            for nth in range(len(found) // slots):
                steps = _steps(found[nth * slots : (nth + 1) * slots], oldest, newest)
                level, name = book[4 * (first + nth) : 4 * (first + nth) + 2]
                if any(steps.values()):
                    places.append(
                        Counted(
                            level=int(level),
                            name=str(name),
                            sums=_sums(steps.values()),
                            steps=steps if apart else {},
                        )
                    )
            first += _MOST_READ
            if 4 * first >= len(book):
                return Counts(
                    reach=reach, places=places, width=width / 1e6, slots=slots, newest=int(newest)
                )

    async def left(
        self, leases: Sequence[Key], tag: float, nonces: Sequence[float]
    ) -> Sequence[float]:
        """Microseconds that leases of one pool have left that nobody has settled (lua/leases)."""
        head = pack([tag, *nonces])
        answer = await self._client.run(self._leases, leases, [head])
        if answer[:8] != head[:8]:
            raise StoreProtocol("the answer to leases belongs to another call")
        return unpack(answer[9:])


def _steps(
    slots: Sequence[bytes | None], oldest: float, newest: float
) -> dict[int, dict[What, float]]:
    """What each slot has; those that are over have come round and count nothing."""
    steps: dict[int, dict[What, float]] = {}
    for text in slots:
        if text is None:
            continue
        number, *pairs = _decoder.decode(text)
        if isinstance(number, str) or not oldest <= number <= newest:
            continue
        steps[int(number)] = sums = {}
        for what, much in zip(pairs[::2], pairs[1::2], strict=True):
            assert not isinstance(what, float)
            assert not isinstance(much, str)
            sums[what] = much
    return steps


def _sums(steps: Iterable[dict[What, float]]) -> dict[What, float]:
    sums: dict[What, float] = {}
    for each in steps:
        for what, much in each.items():
            sums[what] = sums.get(what, 0) + much
    return sums
