"""What scripts are told and answer, in types. Times are in microseconds where nothing is said."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from limiter_service.store.keys import Key, Keys
from limiter_service.store.parcels import Kin

KEEP = -1.0
"""In place of an amount: leave the charge as it was reserved."""

NEVER = -1.0
"""In place of a time to wait: the amount can never fit."""


class Verdict(StrEnum):
    """The letter in front of a script's answer."""

    DONE = "G"
    DONE_WHILE_OTHERS_WAIT = "g"
    REPEATED = "R"
    ALREADY = "A"
    DENIED = "D"
    CONFLICT = "C"
    UNKNOWN = "U"
    EXPIRED = "X"
    STALE = "B"
    PAUSED = "P"
    QUEUED = "Q"
    WAITS = "W"
    TOO_LONG = "L"
    FULL = "F"
    TIMED_OUT = "T"
    EMPTY = "E"


class Chain(msgspec.Struct, frozen=True):
    """What a call decides over: its scopes, their policies, and the slots that they name.

    `levels` says of each scope whether all of the pool shares it (1), a model (2), or one
    tenant has it alone (3); `slots` are those of each scope. `shape` tells chains with other
    limits apart. `breaker` is the policy of the circuit; empty where the breaker is off. With a
    `mark` a grant counts once a replica of the store has it. Acquires that have `asking` in
    common may be decided together, and so may settles that have `settling`.
    """

    scopes: tuple[Key, ...]
    policies: tuple[bytes, ...]
    levels: tuple[int, ...]
    slots: tuple[tuple[Key, ...], ...]
    shape: float
    breaker: bytes = b""
    breaker_keys: tuple[Key, ...] = ()
    mark: Key | None = None
    asking: Kin | None = None
    settling: Kin | None = None
    keys: tuple[Key, ...] = ()
    """The scopes, the slots after them; circuit, pin and events of the breaker."""

    arguments: tuple[bytes, ...] = ()
    """The policies, that of the breaker last."""

    def __post_init__(self) -> None:
        slots = tuple(key for keys in self.slots for key in keys)
        msgspec.structs.force_setattr(self, "keys", self.scopes + slots + self.breaker_keys)
        msgspec.structs.force_setattr(self, "arguments", (*self.policies, self.breaker))


class Reply(msgspec.Struct, frozen=True):
    """A script's verdict, and its numbers (lua/lib/layout)."""

    verdict: Verdict
    numbers: Sequence[float]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What an acquire asks for; times in microseconds."""

    nonce: float
    fingerprint: float
    ttl: float
    remember: float
    amounts: Sequence[float]
    marks: float = 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a settle tells (lua/settle); `retry_after` in microseconds, `readings` as
    lua/lib/learning has them.
    """

    first_token: bool
    outcome_class: int
    kind: int
    slow: bool
    retry_after: float
    used: Sequence[float]
    readings: bytes = b""


class LimitOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator does to the *nth* limit of a chain (lua/limit). `limit` 0 lets go;
    `life` in microseconds, -1: until it is cleared.
    """

    nth: int
    limit: float = 0.0
    capacity: float = 0.0
    rate: float = 0.0
    life: float = -1.0
    names: bytes
    notice: bytes = b""


class QueueKeys(msgspec.Struct, frozen=True):
    """The keys of one pool's queue, in the order of lua/lib/waiting, its channel, and the
    pool's part of the breaker: its pin and its events.
    """

    keys: tuple[Key, ...]
    channel: Key
    breaker: tuple[Key, ...]

    @classmethod
    def of(cls, keys: Keys) -> "QueueKeys":
        """The queue of one pool."""
        names = (keys.queue(), keys.order(), keys.front(), keys.asleep(), keys.grants())
        breaker = (keys.pin(), keys.events())
        return cls((*names, keys.book(), keys.tickets()), keys.channel(), breaker)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How an acquire waits; times in microseconds.

    `step` is its cost over its weight. A class of priorities with a `share` of a limit per
    `period` has a number; without one `share` is 0. `allowed` is for each limit the need
    ahead that can be served within `max_wait`, -1 where nobody knows. `going_on` is the part of
    their share that lines which wait now are expected to go on using.
    """

    max_wait: float
    replica: float
    step: float
    cost: float
    priority_class: int
    share: float
    period: float
    most_waiters: int
    keep: int
    allowed: Sequence[float]
    going_on: float = 0.0


class Waiter(msgspec.Struct, frozen=True, kw_only=True):
    """The names of a waiter: its request, its line, resource and tenant."""

    digest: bytes
    line: bytes
    names: bytes


class ServeTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How a pass over the queue is made; times in microseconds, `keep` in milliseconds."""

    replica: float
    most: int
    grace: float
    patience: float
    keep: int
    room_again: bytes


class SweepTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the queue is swept at once; times as in ServeTerms."""

    grace: float
    look_at: int
    most: int
    keep: int


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass did. `due` is the time until the next one makes sense, None if unknown;
    `paused` are models whose circuits are waited for, and how long.
    """

    due: float | None
    more: bool
    waiters: int
    granted: int
    unfetched: int
    again: Sequence[bytes]
    missing: Sequence[bytes]
    overdue: Sequence[tuple[bytes, bytes]]
    paused: Sequence[tuple[bytes, float]]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the queue: its id, its record, when its head began to wait, its names."""

    id: bytes
    record: Sequence[float]
    began: float
    names: bytes


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica hears when it says that it lives: the server's time, how many replicas
    count, when the longest silent one was seen, how many were seen after a given time.
    """

    now: float
    replicas: int
    oldest: float
    after: int


class LentTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How much is lent at most (lua/lend): `hold` in microseconds, `tokens` of one call, and in
    `bounds` for each limit its number in the pool and what all blocks may hold of it.
    """

    calls: int
    least: int
    hold: float
    tokens: int
    bounds: Sequence[float]


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What blocks of a pool hold, whether somebody waits there, and the models whose circuits are
    not calm.
    """

    calls: int
    tokens: int
    waits: bool
    sick: Sequence[str]
