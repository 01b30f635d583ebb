"""One typed method per script: values in, an answer out."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from limiter_service.store.chains import join
from limiter_service.store.claims import (
    kin_of,
    kin_of_settle,
    reply_of,
    reporting,
    request_of,
)
from limiter_service.store.client import Client
from limiter_service.store.errors import StoreNotReplicated, StoreProtocol
from limiter_service.store.keys import Key, Keys
from limiter_service.store.messages import (
    Chain,
    Claim,
    Holdings,
    LentTerms,
    LimitOrder,
    Line,
    QueueKeys,
    Reply,
    Report,
    Seen,
    Served,
    ServeTerms,
    SweepTerms,
    Terms,
    Verdict,
    Waiter,
)
from limiter_service.store.packing import pack, unpack
from limiter_service.store.parcels import Kin, Together
from limiter_service.store.posted import Posted
from limiter_service.store.scripts import NAMES, Script, load

_GRANTING = frozenset({"acquire", "enqueue", "lend"})
_DIGEST = 16
_MODEL_AND_TIME = struct.Struct("<8sd")


class Commands:
    """The scripts, as methods. Each raises StoreUnavailable or StoreProtocol."""

    def __init__(self, client: Client, replace: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._know({name: load(name, replace) for name in NAMES})
        # A store in virtual time takes one call after another.
        self.gathers = getattr(client, "gathers", False)

    def _know(self, scripts: Mapping[str, Script]) -> None:
        self._scripts = scripts
        self._together = {
            name: Together(*(scripts[f"{name}_{kind}"] for kind in ("group", "mixed", "row")))
            for name in ("acquire", "settle")
        }

    async def acquire(self, chain: Chain, lease: Key, queue: Key, claim: Claim) -> Reply:
        """Take from every limit of the chain, or from none. Others who ask for the same at the
        same moment may be decided over in the same call, each as if it had one of its own.
        """
        kin = kin_of(chain, claim)
        return await self._with_others("acquire", chain, (lease, queue), request_of(claim), kin)

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
        request, kin = reporting(tag, nonce, report), kin_of_settle(chain, report)
        return await self._with_others("settle", chain, (lease, queue), request, kin)

    def post_settle(
        self, posted: Posted, chain: Chain, lease: Key, queue: Key, asked: bytes, kin: Kin | None
    ) -> bool:
        """The same as `post_acquire` does. *asked* is what `reporting` makes, and *kin* says with
        whom it may be decided.
        """
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
        return await self._run("enqueue", chain, keys, request_of(claim), numbers, names)

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
        return reply_of("sizes", report, answer)

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
        now, replicas, oldest, after = reply_of("beat", report, answer).numbers
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
        request = request_of(claim, generation=-1.0) + _pack(*debits, *(moved or ()))
        arguments = (*chain.policies, request)
        answer = await self._client.run(self._scripts["charge"], keys, arguments)
        return reply_of("charge", request, answer)

    async def lend(
        self, chain: Chain, keys: tuple[Key, Key, Key], claim: Claim, terms: LentTerms
    ) -> Reply:
        """Charge a block, as large as it may be; *keys* are its lease, the queue, the blocks."""
        head = (terms.calls, terms.least, terms.hold, terms.tokens)
        return await self._run("lend", chain, keys, request_of(claim), _pack(*head, *terms.bounds))

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
        _, calls, tokens, waits, *calm = reply_of("blocks", text, answer).numbers
        sick = [model for model, well in zip(models, calm, strict=True) if not well]
        return Holdings(calls=int(calls), tokens=int(tokens), waits=waits > 0, sick=sick)

    async def quiet(self) -> None:
        """Return when what is under way now is done, also for callers that have gone."""
        await self._client.quiet()

    async def dispatch(
        self, chains: Mapping[bytes, Chain], queue: QueueKeys, tag: float, terms: ServeTerms
    ) -> Served | float:
        """Serve waiters from the front; the store's time when a calendar's boundaries are stale."""
        scopes, policies, slots, circuits, head = join(chains)
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
        figures = unpack(answer[1])
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
        return int(unpack(answer[1])[0]), answer[2]

    async def waiters(self, queue: QueueKeys, tag: float) -> tuple[float, int, list[Line]]:
        """The server's time, how many wait, and every line; changes nothing."""
        answer = await self._call("waiters", queue.keys, (_pack(tag),), tag)
        now, count = unpack(answer[1])
        lines = [
            Line(id=name, record=unpack(record), began=unpack(began)[0], names=names)
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
            return reply_of(name, request, answer)
        try:
            answer = await self._client.run(self._scripts[name], keys, arguments, chain.mark)
        except StoreNotReplicated as error:
            reply = reply_of(name, request, error.reply)
            if reply.verdict in {Verdict.DONE, Verdict.REPEATED}:
                raise
            return reply
        return reply_of(name, request, answer)

    async def _with_others(
        self, name: str, chain: Chain, more: tuple[Key, ...], request: bytes, kin: Kin | None
    ) -> Reply:
        """As `_run`, for a call that may be made as one with others, of its *kin* above all."""
        if not self.gathers or chain.mark is not None:
            return await self._run(name, chain, more, request)
        script, together = self._scripts[name], self._together[name]
        answer = await self._client.run(
            script,
            chain.keys,
            chain.arguments,
            own=more,
            asked=request,
            together=together,
            kin=kin,
        )
        return reply_of(name, request, answer)

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
        script, together = self._scripts[name], self._together[name]
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


def _digests(text: bytes) -> list[bytes]:
    return [text[i : i + _DIGEST] for i in range(0, len(text), _DIGEST)]


def _pack(*values: float) -> bytes:
    return pack(values)
