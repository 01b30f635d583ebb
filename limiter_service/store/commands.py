"""One typed method per script: values in, an answer out."""

import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from limiter_service.store.client import Client
from limiter_service.store.client import Posted as PostedCall
from limiter_service.store.errors import StoreNotReplicated, StoreProtocol
from limiter_service.store.keys import Key, Keys
from limiter_service.store.parcels import Kin
from limiter_service.store.scripts import NAMES, load

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


_TOGETHER = {"acquire": "acquire_group", "settle": "settle_group"}
_GRANTING = frozenset({"acquire", "enqueue", "lend"})
_RETRY = 512  # among the marks of a lease (lua/lib/lease)
_SUCCESS = 1  # a class of outcomes (lua/lib/breaker)
_DIGEST = 16
_MODEL_AND_TIME = struct.Struct("<8sd")


class Listener(Protocol):
    """Who is told, once, that an answer has come, or a failure."""

    @property
    def gone(self) -> bool:
        """Whether nobody wants to know any more: what is not yet sent never is."""

    def hear(self) -> None:
        """It has come."""


class Posted(PostedCall):
    """An acquire or a settle that nobody awaits yet: what came of its first attempt."""

    __slots__ = ("_listener", "error", "reply")

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener: Listener | None = listener
        self.reply: Reply | None = None
        self.error: Exception | None = None

    def done(self) -> bool:
        """Whether it has come to an end, or nobody wants to know."""
        return self._done or (self._listener is not None and self._listener.gone)

    def came(self, reply: Any) -> None:
        """Take in the reply, and tell that it is there."""
        try:
            self.reply = self._read(reply)
        except StoreProtocol as strange:
            self.error = strange
        self._tell()

    def failed(self, error: Exception) -> None:
        """Tell that there is none."""
        self.error = error
        self._tell()

    def _tell(self) -> None:
        """Once, and keep no hold of who is told, who has hold of this."""
        listener, self._listener = self._listener, None
        assert listener is not None
        listener.hear()

    async def outcome(self) -> Reply:
        """The reply, also where the first attempt has failed. Raises as `Commands` does."""
        if self.error is None:
            assert self.reply is not None
            return self.reply
        return self._read(await self.client.insist(self, self.error))

    def _read(self, reply: bytes) -> Reply:
        assert self.asked is not None
        return _reply(self.script.name, self.asked, reply)


class Commands:
    """The scripts, as methods. Each raises StoreUnavailable or StoreProtocol."""

    def __init__(self, client: Client, replace: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._scripts = {name: load(name, replace) for name in NAMES}
        # A store in virtual time takes one call after another.
        self.gathers = getattr(client, "gathers", False)

    async def acquire(self, chain: Chain, lease: Key, queue: Key, claim: Claim) -> Reply:
        """Take from every limit of the chain, or from none. Others who ask for the same at the
        same moment may be decided over in the same call, each as if it had one of its own.
        """
        kin = _kin_of(chain, claim)
        return await self._with_others("acquire", chain, (lease, queue), _request(claim), kin)

    def post_acquire(
        self, posted: Posted, chain: Chain, lease: Key, queue: Key, asked: bytes, *, again: bool
    ) -> bool:
        """The same without waiting for the answer: *posted* hears when it is there. False where
        that is not possible now: then `acquire` says why. *asked* is what `asking` makes,
        under a nonce; *again* says that the call is a retry.
        """
        kin = None if again else chain.asking
        return self._post(posted, "acquire", chain, (lease, queue), asked, kin)

    async def settle(
        self, chain: Chain, lease: Key, queue: Key, tag: float, nonce: float, report: Report
    ) -> Reply:
        """Replace what a lease reserved by what was used, and take in how its call ended; perhaps
        in one call with others, as `acquire`.
        """
        request, kin = _report(chain, tag, nonce, report)
        return await self._with_others("settle", chain, (lease, queue), request, kin)

    def post_settle(
        self,
        posted: Posted,
        chain: Chain,
        lease: Key,
        queue: Key,
        tag: float,
        nonce: float,
        report: Report,
    ) -> bool:
        """The same as `post_acquire` does."""
        asked, kin = _report(chain, tag, nonce, report)
        return self._post(posted, "settle", chain, (lease, queue), asked, kin)

    async def renew(
        self,
        chain: Chain,
        lease: Key,
        queue: Key,
        tag: float,
        nonce: float,
        ttl: float,
        used: Sequence[float],
    ) -> Reply:
        """Let a lease live for *ttl* microseconds from now and charge *used* beyond it."""
        return await self._run("renew", chain, (lease, queue), _pack(tag, nonce, ttl, *used))

    async def check(
        self, chain: Chain, tag: float, attempt: int, amounts: Sequence[float]
    ) -> Reply:
        """Ask what an acquire would answer; change nothing."""
        return await self._run("check", chain, (), _pack(tag, attempt, *amounts))

    async def snapshot(self, chain: Chain, tag: float) -> Reply:
        """Read every limit of the chain as it is now; change nothing."""
        return await self._run("snapshot", chain, (), _pack(tag))

    async def observe(
        self, chain: Chain, tag: float, outcome_class: int, pause: float, readings: bytes
    ) -> Reply:
        """Take in what a provider said to a call without a lease."""
        numbers = _pack(tag, outcome_class, pause)
        return await self._run("observe", chain, (), numbers + (readings or _pack(0)))

    async def hold_limit(self, chain: Chain, notice: Key, tag: float, order: LimitOrder) -> Reply:
        """Hold a limit by hand, or let go of it."""
        numbers = _pack(tag, order.nth, order.limit, order.capacity, order.rate, order.life)
        return await self._run("limit", chain, (notice,), numbers, order.names, order.notice)

    async def notices(self, names: Sequence[Key], tag: float) -> list[bytes]:
        """Who holds limits, and why; empty where nobody does."""
        answer: list[bytes] = await self._call("notices", names, (_pack(tag),), tag)
        return answer[1:]

    async def enqueue(
        self,
        chain: Chain,
        lease: Key,
        queue: QueueKeys,
        claim: Claim,
        terms: Terms,
        waiter: Waiter,
    ) -> Reply:
        """Take, stand in line, or fetch what was granted meanwhile."""
        before_model = sum(1 for level in chain.levels if level == 1)
        of_model = sum(1 for level in chain.levels if level == 2)  # noqa: PLR2004  # lib/serving
        numbers = _pack(
            terms.max_wait,
            terms.replica,
            terms.step,
            terms.cost,
            terms.priority_class,
            terms.share,
            terms.period,
            chain.shape,
            terms.most_waiters,
            terms.keep,
            before_model,
            of_model,
            *terms.allowed,
            terms.going_on,
        )
        names = waiter.digest + waiter.line + waiter.names
        keys = (lease, *queue.keys)
        return await self._run("enqueue", chain, keys, _request(claim), numbers, names)

    async def cancel(
        self,
        chain: Chain,
        lease: Key,
        queue: QueueKeys,
        tag: float,
        digest: bytes,
        *,
        let_go_of: float | None,
        keep: int,
    ) -> Reply:
        """Let a waiter leave; or, when *let_go_of* names a replica, note that its caller is
        out of sight.
        """
        report = _pack(tag, 0 if let_go_of is None else 1, let_go_of or 0.0, keep)
        return await self._run("cancel", chain, (lease, *queue.keys), report, digest)

    async def sizes(
        self, key: Key, tag: float, keep: float, news: Sequence[tuple[float, float, float]]
    ) -> Reply:
        """Take in the sizes of calls (lua/sizes), *keep* in milliseconds; what is known then."""
        report = _pack(tag, keep, *(number for each in news for number in each))
        answer = await self._client.run(self._scripts["sizes"], (key,), (report,))
        return _reply("sizes", report, answer)

    async def beat(
        self,
        keys: Keys,
        tag: float,
        replica: float,
        *,
        mode: int,
        silent: float,
        since: float = 0.0,
        event: Sequence[str] = (),
    ) -> Seen:
        """Say that a replica lives (*mode* 1), is about to see whether the store writes (0), or
        leaves (-1). Who is *silent* for longer counts no more; times in microseconds. *event* is
        a model, and pairs of words.
        """
        report = _pack(tag, replica, mode, silent, since)
        names = (keys.replicas(), keys.events())
        answer = await self._client.run(
            self._scripts["beat"], names, (report, *event), always=mode == 0
        )
        now, replicas, oldest, after = _reply("beat", report, answer).numbers
        return Seen(now=now, replicas=int(replicas), oldest=oldest, after=int(after))

    async def charge(
        self,
        chain: Chain,
        lease: Key,
        claim: Claim,
        debits: Sequence[float],
        moved: Sequence[float] | None,
    ) -> Reply:
        """Charge *debits* for what was granted without the store, once; *moved* is what a settle
        has moved since, None where there was none.
        """
        keys = (*chain.scopes, *(key for keys in chain.slots for key in keys), lease)
        request = _request(claim, generation=-1.0) + _pack(*debits, *(moved or ()))
        arguments = (*chain.policies, request)
        answer = await self._client.run(self._scripts["charge"], keys, arguments)
        return _reply("charge", request, answer)

    async def lend(
        self, chain: Chain, keys: tuple[Key, Key, Key], claim: Claim, terms: LentTerms
    ) -> Reply:
        """Charge a block, as large as it may be; *keys* are its lease, the queue, the blocks."""
        head = (terms.calls, terms.least, terms.hold, terms.tokens)
        return await self._run("lend", chain, keys, _request(claim), _pack(*head, *terms.bounds))

    async def repay(
        self,
        chain: Chain,
        keys: tuple[Key, Key, Key],
        report: Sequence[float],
        ended: Iterable[Sequence[float]],
    ) -> Reply:
        """Take in a report on a block (lua/repay), and how calls have *ended*."""
        numbers = _pack(*report, *(number for each in ended for number in each))
        return await self._run("repay", chain, keys, numbers)

    async def blocks(self, keys: Keys, models: Sequence[str], tag: float) -> Holdings:
        """What blocks of a pool hold, and whether they may go on; changes nothing."""
        text = _pack(tag)
        names = (keys.blocks(), keys.queue(), keys.pin(), *map(keys.circuit, models))
        answer = await self._client.run(self._scripts["blocks"], names, (text,))
        _, calls, tokens, waits, *calm = _reply("blocks", text, answer).numbers
        sick = [model for model, well in zip(models, calm, strict=True) if not well]
        return Holdings(calls=int(calls), tokens=int(tokens), waits=waits > 0, sick=sick)

    async def quiet(self) -> None:
        """Return when what is under way now is done, also for callers that have gone."""
        await self._client.quiet()

    async def dispatch(
        self, chains: Mapping[bytes, Chain], queue: QueueKeys, tag: float, terms: ServeTerms
    ) -> Served | float:
        """Serve waiters from the front; the store's time when a calendar's boundaries are stale."""
        scopes, policies, slots, circuits, head = _join(chains)
        numbers = _pack(
            tag,
            terms.replica,
            terms.most,
            terms.grace,
            terms.patience,
            terms.keep,
            1 if self._client.sharded else 0,
            len(circuits),
            len(chains),
            *head,
        )
        answer = await self._call(
            "dispatch",
            (*scopes, *slots, *circuits, *queue.breaker, *queue.keys),
            (
                *policies,
                *circuits.values(),
                numbers,
                b"".join(chains),
                queue.channel,
                terms.room_again,
            ),
            tag,
        )
        figures = _numbers(answer[1])
        if answer[0][8:] == b"B":
            return figures[0]
        due, more, waiters, granted, unfetched = figures
        return Served(
            due=None if due < 0 else due,
            more=more > 0,
            waiters=int(waiters),
            granted=int(granted),
            unfetched=int(unfetched),
            again=_digests(answer[2]),
            missing=answer[3],
            overdue=[(item[:_DIGEST], item[_DIGEST:]) for item in answer[4]],
            paused=list(_MODEL_AND_TIME.iter_unpack(answer[5])),
        )

    async def sweep(
        self, queue: QueueKeys, tag: float, terms: SweepTerms, place: bytes
    ) -> tuple[int, bytes]:
        """Remove waiters out of sight from *place* on; how many, and where to go on."""
        head = _pack(tag, terms.grace, terms.look_at, terms.most, terms.keep)
        answer = await self._call("sweep", queue.keys, (head, place), tag)
        return int(_numbers(answer[1])[0]), answer[2]

    async def waiters(self, queue: QueueKeys, tag: float) -> tuple[float, int, list[Line]]:
        """The server's time, how many wait, and every line; changes nothing."""
        answer = await self._call("waiters", queue.keys, (_pack(tag),), tag)
        now, count = _numbers(answer[1])
        lines = [
            Line(id=name, record=_numbers(record), began=_numbers(began)[0], names=names)
            for name, record, began, names in answer[2]
        ]
        return now, int(count), lines

    async def _run(
        self, name: str, chain: Chain, more: tuple[Key, ...], request: bytes, *rest: bytes
    ) -> Reply:
        keys = chain.keys + more
        arguments = (*chain.arguments, request, *rest)
        if chain.mark is None or name not in _GRANTING:
            answer = await self._client.run(self._scripts[name], keys, arguments)
            return _reply(name, request, answer)
        try:
            answer = await self._client.run(self._scripts[name], keys, arguments, chain.mark)
        except StoreNotReplicated as error:
            reply = _reply(name, request, error.reply)
            if reply.verdict in {Verdict.DONE, Verdict.REPEATED}:
                raise
            return reply
        return _reply(name, request, answer)

    async def _with_others(
        self, name: str, chain: Chain, more: tuple[Key, ...], request: bytes, kin: Kin | None
    ) -> Reply:
        """As `_run`, for a call that may be made as one with others of its *kin*."""
        if kin is None or not self.gathers:
            return await self._run(name, chain, more, request)
        script, together = self._scripts[name], self._scripts[_TOGETHER[name]]
        answer = await self._client.run(
            script,
            chain.keys,
            chain.arguments,
            own=more,
            asked=request,
            together=together,
            kin=kin,
        )
        return _reply(name, request, answer)

    def _post(
        self,
        posted: Posted,
        name: str,
        chain: Chain,
        own: tuple[Key, Key],
        asked: bytes,
        kin: Kin | None,
    ) -> bool:
        if not self.gathers or chain.mark is not None:
            return False
        script, together = self._scripts[name], self._scripts[_TOGETHER[name]]
        posted.aim(
            script, chain.keys, chain.arguments, own=own, asked=asked, together=together, kin=kin
        )
        return self._client.post(posted)

    async def _call(
        self, name: str, keys: Sequence[Key], arguments: Sequence[str | bytes], tag: float
    ) -> Any:  # lists of bytes and lists
        answer = await self._client.run(self._scripts[name], keys, arguments)
        if answer[0][:8] != _pack(tag):
            raise StoreProtocol(f"the answer to {name} belongs to another call")
        return answer


def _kin_of(chain: Chain, claim: Claim) -> Kin | None:
    return None if claim.marks % (2 * _RETRY) >= _RETRY else chain.asking


def _report(chain: Chain, tag: float, nonce: float, report: Report) -> tuple[bytes, Kin | None]:
    used = report.used
    numbers = _doubles(7 + len(used))(
        tag,
        nonce,
        report.first_token + (2 if report.readings else 0),
        report.outcome_class,
        report.kind,
        report.slow,
        report.retry_after,
        *used,
    )
    plain = not (report.first_token or report.readings or report.slow)
    kin = chain.settling if plain and report.outcome_class == _SUCCESS else None
    return numbers + report.readings, kin


def _reply(name: str, request: bytes, answer: bytes) -> Reply:
    if answer[:8] != request[:8]:
        raise StoreProtocol(f"the answer to {name} belongs to another call")
    return Reply(_VERDICTS[answer[8]], _numbers(answer[9:]))


_VERDICTS = {ord(verdict): verdict for verdict in Verdict}


def asking(
    fingerprint: float,
    ttl: float,
    remember: float,
    marks: float,
    amounts: Sequence[float],
    generation: float = 1.0,
) -> bytes:
    """What an acquire asks for, but for the nonce that stands in front of it."""
    count = len(amounts)
    return _doubles(8 + count)(
        fingerprint, ttl, remember, 0.0, 0.0, generation, marks, count, *amounts
    )


def named(nonce: float, asked: bytes) -> bytes:
    """What an acquire asks for, under its *nonce*."""
    return _one_double(nonce) + asked


def claim_in(asked: bytes) -> Claim:
    """What an acquire asks for, read back."""
    nonce, fingerprint, ttl, remember, _, _, _, marks, _, *amounts = _numbers(asked)
    return Claim(
        nonce=nonce,
        fingerprint=fingerprint,
        ttl=ttl,
        remember=remember,
        marks=marks,
        amounts=amounts,
    )


def _request(claim: Claim, generation: float = 1.0) -> bytes:
    told = claim.fingerprint, claim.ttl, claim.remember, claim.marks, claim.amounts
    return named(claim.nonce, asking(*told, generation))


@lru_cache(256)
def _doubles(count: int) -> Callable[..., bytes]:
    """What packs so many numbers as scripts take them: a third of what `pack` costs."""
    return struct.Struct(f"<{count}d").pack


_one_double = _doubles(1)


_SLOTS = 4 * 8
"""Where a policy says what stands in KEYS before its slots (lua/lib/layout)."""


def _join(
    chains: Mapping[bytes, Chain],
) -> tuple[list[Key], list[bytes], list[Key], dict[Key, bytes], list[float]]:
    """Several chains as one call takes them: scopes once, slots once, circuits with their
    policies once, and who has which.
    """
    places: dict[Key, int] = {}
    policies: list[bytes] = []
    slots_of: list[tuple[Key, ...]] = []
    circuits: dict[Key, bytes] = {}
    head: list[float] = []
    for chain in chains.values():
        circuit = 0
        for key in chain.breaker_keys[:1]:
            circuits.setdefault(key, chain.breaker)
            circuit = [*circuits].index(key) + 1
        head += [chain.shape, circuit, len(chain.scopes)]
        parts = zip(chain.scopes, chain.policies, chain.slots, chain.levels, strict=True)
        for scope, policy, slots, level in parts:
            if scope not in places:
                places[scope] = len(places) + 1
                policies.append(policy)
                slots_of.append(slots)
            head += [places[scope], level]
    flat: list[Key] = []
    for i, slots in enumerate(slots_of):
        base = _pack(len(places) + len(flat))
        policies[i] = policies[i][:_SLOTS] + base + policies[i][_SLOTS + 8 :]
        flat += slots
    return list(places), policies, flat, circuits, head


def _digests(text: bytes) -> list[bytes]:
    return [text[i : i + _DIGEST] for i in range(0, len(text), _DIGEST)]


def pack(values: Iterable[float]) -> bytes:
    """Numbers as scripts take them: little-endian doubles."""
    numbers = array("d", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _pack(*values: float) -> bytes:
    return pack(values)


def unpack(text: bytes) -> Sequence[float]:
    """Numbers as scripts answer them."""
    return _numbers(text)


def _numbers(text: bytes) -> Sequence[float]:
    numbers = array("d")
    numbers.frombytes(text)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
