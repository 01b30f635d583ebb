"""Which requests a fault hits: by header, by what a control endpoint switched on, by share.

`now` is in the caller's seconds.
"""

import random
from collections.abc import Sequence

import msgspec

from limiter_service.provider_sim.faults.notation import Fault, FaultError, parse, parse_rule


class Outage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults for some requests, from the moment that it is switched on.

    `fault` is written as in the header, `rate` is the share of requests that are hit.
    `dialect`, `model` and `key` narrow it down. It begins `after` some seconds, lasts for
    so many, and hits at most `count` requests. With `period` it comes and goes: each period
    begins with `up` seconds in which nothing happens.
    """

    fault: str
    rate: float = 1.0
    dialect: str | None = None
    model: str | None = None
    key: str | None = None
    after: float = 0.0
    lasts: float | None = None
    count: int | None = None
    period: float | None = None
    up: float = 0.0

    def __post_init__(self) -> None:
        if not parse(self.fault):
            raise FaultError("no fault is named")
        if not 0 <= self.rate <= 1:
            raise FaultError(f"rate is {self.rate}: it is between 0 and 1")
        if self.period is not None and not 0 <= self.up <= self.period > 0:
            raise FaultError("a period is longer than the time that it is up")

    def active(self, elapsed: float) -> bool:
        """Whether it is on, so many seconds after it was switched on."""
        since = elapsed - self.after
        if since < 0 or (self.lasts is not None and since >= self.lasts):
            return False
        return self.period is None or since % self.period >= self.up


class Sight(msgspec.Struct, frozen=True):
    """What an outage sees of a request."""

    dialect: str
    model: str
    key: str


class OutageView(msgspec.Struct, frozen=True):
    """One outage as /sim/faults shows it."""

    outage: Outage
    active: bool
    hits: int


class _Switched:
    """An outage and what has become of it."""

    def __init__(self, outage: Outage, now: float) -> None:
        self.outage = outage
        self.faults = parse(outage.fault)
        self.began = now
        self.hits = 0

    def active(self, now: float) -> bool:
        spent = self.outage.count is not None and self.hits >= self.outage.count
        return not spent and self.outage.active(now - self.began)

    def concerns(self, sight: Sight) -> bool:
        outage = self.outage
        return (
            outage.dialect in {None, sight.dialect}
            and outage.model in {None, sight.model}
            and outage.key in {None, sight.key}
        )


class Outages:
    """The outages of the moment, after those that the options ask for."""

    def __init__(self, standing: Sequence[str], seed: int, now: float) -> None:
        # A source of chance of its own: faults do not change what answers say.
        self._chance = random.Random(f"faults {seed}")  # noqa: S311 - simulation
        rules = [parse_rule(text) for text in standing]
        self._standing = [_Switched(Outage(fault=f, rate=rate), now) for f, rate in rules]
        self._switched: list[_Switched] = []

    def switch(self, outages: Sequence[Outage], now: float) -> None:
        """Replace what was switched on."""
        self._switched = [_Switched(outage, now) for outage in outages]

    def faults(self, sight: Sight, asked: str, now: float) -> list[Fault]:
        """The faults of one request: those that it asks for, else those of one outage.

        Raises FaultError for what the request asks.
        """
        if asked:
            return [fault.drawn(self._chance) for fault in parse(asked)]
        for switched in [*self._switched, *self._standing]:
            if not (switched.active(now) and switched.concerns(sight)):
                continue
            if self._chance.random() < switched.outage.rate:
                switched.hits += 1
                return [fault.drawn(self._chance) for fault in switched.faults]
        return []

    def view(self, now: float) -> list[OutageView]:
        """Every outage, in the order in which they are asked."""
        return [
            OutageView(one.outage, one.active(now), one.hits)
            for one in [*self._switched, *self._standing]
        ]
