"""Blocks of budget that this process holds and hands out itself: how large they are, what a call
takes of one, what comes back, and what the service is told.

Pure: time comes in as `now`, in seconds. Nothing here locks: threads take turns outside.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import msgspec

from client_sdk._answers import Given
from limiter_wire import (
    BlockReport,
    Cause,
    Ended,
    Granted,
    LimitState,
    Outcome,
    Provenance,
    Usage,
)

REPORT_EVERY = 10.0
"""Seconds after which the service is told of calls that are over, though the block is not."""

LEAST = 2
"""The fewest calls that are worth a block."""

_PACE = 1.0  # seconds for which a call counts in the rate
_HOLD = 2.0  # seconds that a block may be held, until the service has said so
_MOST_TIMES = 2000  # latencies that one report tells
_MOST_KINDS = 100  # of endings that are told apart by the message of a failure
_AGAIN = 1.0
_MARGIN = 5.0  # seconds before its lease expires in which the service must hear of a block
_RECALLS = frozenset({"waiters", "breaker", "forbidden"})
_QUIET = frozenset({Outcome.SUCCESS, Outcome.CANCELLED})

Kind = tuple[Outcome, bool, bool, Cause | None]
"""How calls have ended: the outcome, whether usage and cost are known, and the cause."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How one call has ended, and what it has used."""

    outcome: Outcome = Outcome.SUCCESS
    usage: Usage | None = None
    cost_usd: float | None = None
    latency: float | None = None
    ttft: float | None = None
    retry_after: float | None = None
    cause: Cause | None = None


class Sum:
    """Calls that have ended alike, added up."""

    __slots__ = (
        "_noted",
        "calls",
        "cost",
        "input",
        "kind",
        "latencies",
        "output",
        "read",
        "reasoning",
        "retry_after",
        "tokens",
        "ttfts",
        "written",
    )

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.calls = self.tokens = 0
        self.input = self.output = self.read = self.written = self.reasoning = 0
        self.cost = 0.0
        self.retry_after: float | None = None
        self.latencies: list[float] = []
        self.ttfts: list[float] = []
        self._noted = (0, 0, 0, 0, 0)

    def news(self) -> "Sum | None":
        """What has come since it was last asked for; None when nothing has."""
        calls, inputs, outputs, latencies, ttfts = self._noted
        if self.calls == calls:
            return None
        news = Sum(self.kind)
        news.calls, news.input, news.output = (
            self.calls - calls,
            self.input - inputs,
            self.output - outputs,
        )
        news.latencies, news.ttfts = self.latencies[latencies:], self.ttfts[ttfts:]
        times = len(self.latencies), len(self.ttfts)
        self._noted = (self.calls, self.input, self.output, *times)
        return news

    def add(self, other: "Sum") -> None:
        """Take in the figures of *other*; its times have been told."""
        for name in ("calls", "tokens", "input", "output", "read", "written", "reasoning", "cost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def ended(self, *, told: bool) -> Ended:
        """The same, as the service is told."""
        outcome, known, priced, cause = self.kind
        usage = None
        if known:
            usage = Usage(
                input_tokens=self.input,
                output_tokens=self.output,
                cache_read_tokens=self.read,
                cache_write_tokens=self.written,
                reasoning_tokens=self.reasoning,
            )
        return Ended(
            outcome=outcome,
            calls=self.calls,
            tokens=self.tokens,
            usage=usage,
            cost_usd=self.cost if priced else None,
            cause=cause,
            retry_after=self.retry_after,
            latencies=self.latencies,
            ttfts=self.ttfts,
            told=told,
        )


class Block:
    """One block: `calls` and `tokens` are what can still be handed out of it.

    It is handed out until `until`. Then it is retired: what it has left goes back, and it ends
    when its calls have.
    """

    __slots__ = (
        "_credit",
        "_last",
        "_lent",
        "_lent_tokens",
        "_number",
        "_over",
        "_over_tokens",
        "_report_at",
        "_rest_until",
        "_returned",
        "_told",
        "_well",
        "busy",
        "calls",
        "expires",
        "fresh",
        "lease",
        "low",
        "plain",
        "resource",
        "retired",
        "tokens",
        "until",
        "urgent",
    )

    def __init__(self, granted: Given | Granted, resource: str, asked_at: float) -> None:
        assert granted.block is not None
        lent = granted.block
        self.lease, self.resource, self.plain = granted.lease, resource, lent.plain
        self.calls = self._lent = lent.calls
        self.tokens = self._lent_tokens = lent.tokens
        self.low = max(1, lent.calls // 4)
        # Both count from the moment of asking: never later than the service means.
        self.until, self.expires = asked_at + lent.hold, asked_at + granted.expires_in
        self.retired = self._returned = self.busy = self.urgent = False
        self.fresh: dict[Kind, Sum] = {}
        self._well: Sum | None = None
        self._told: dict[Kind, Sum] = {}
        self._over = self._over_tokens = self._credit = self._number = 0
        self._report_at, self._rest_until = asked_at + REPORT_EVERY, asked_at
        self._last = self.expires - min(_MARGIN, granted.expires_in / 10)

    @property
    def under_way(self) -> int:
        """Calls that were handed out and are not over."""
        return self._lent - self.calls - self._over

    @property
    def reserved(self) -> int:
        """Tokens that they hold."""
        return self._lent_tokens - self.tokens + self._credit - self._over_tokens

    @property
    def taken(self) -> tuple[int, int]:
        """Calls that were handed out, and the tokens that they have reserved."""
        return self._lent - self.calls, self._lent_tokens - self.tokens + self._credit

    def more(self, tokens: int) -> None:
        """A call under way needs so many tokens more, whether they are left or not."""
        self.tokens -= tokens

    def end_well(self, tokens: int, usage: Usage) -> None:
        """The same for nearly every call: it has succeeded, and all that is known is its usage."""
        seen = self._well
        if seen is None:
            kind: Kind = (Outcome.SUCCESS, True, False, None)
            seen = self._well = self.fresh.setdefault(kind, Sum(kind))
        inputs, outputs = usage.input_tokens, usage.output_tokens
        seen.calls += 1
        seen.tokens += tokens
        seen.input += inputs
        seen.output += outputs
        seen.read += usage.cache_read_tokens
        seen.written += usage.cache_write_tokens
        seen.reasoning += usage.reasoning_tokens
        self._over += 1
        self._over_tokens += tokens
        rest = tokens - inputs - outputs
        if rest < 0 or self.plain:
            self.tokens += rest
            self._credit += rest

    def end(self, tokens: int, ending: Ending) -> None:
        """A call is over that had reserved *tokens*. What it has not used can be handed out
        again, where nothing but the sum counts, and what it has used beyond them is taken.
        """
        usage, cost = ending.usage, ending.cost_usd
        known = usage is not None and usage.provenance is not Provenance.UNKNOWN
        kind = ending.outcome, known, cost is not None, ending.cause
        seen = self.fresh.get(kind) or self._open(kind)
        seen.calls += 1
        seen.tokens += tokens
        self._over += 1
        self._over_tokens += tokens
        if known:
            assert usage is not None
            seen.input += usage.input_tokens
            seen.output += usage.output_tokens
            seen.read += usage.cache_read_tokens
            seen.written += usage.cache_write_tokens
            seen.reasoning += usage.reasoning_tokens
            rest = tokens - usage.input_tokens - usage.output_tokens
            if rest < 0 or (self.plain and cost is None):
                self.tokens += rest
                self._credit += rest
        if cost is not None:
            seen.cost += cost
        if ending.latency is not None and len(seen.latencies) < _MOST_TIMES:
            seen.latencies.append(ending.latency)
        if ending.ttft is not None and len(seen.ttfts) < _MOST_TIMES:
            seen.ttfts.append(ending.ttft)
        if ending.outcome not in _QUIET:
            self.urgent = True
            if ending.retry_after is not None:
                seen.retry_after = max(seen.retry_after or 0.0, ending.retry_after)

    def _open(self, kind: Kind) -> Sum:
        outcome, known, priced, cause = kind
        if cause is not None and len(self.fresh) + len(self._told) >= _MOST_KINDS:
            kind = outcome, known, priced, Cause(reach=cause.reach, refund=cause.refund)
        return self.fresh.setdefault(kind, Sum(kind))

    def uncounted(self) -> list["Sum"]:
        """What has ended and was not counted here yet: as much more as there is now."""
        return [news for each in self.fresh.values() if (news := each.news()) is not None]

    def wants(self, now: float) -> str | None:
        """The stage that the service is to hear of now, None when there is nothing to say."""
        if self.busy or now < self._rest_until:
            return None
        if now >= self._last or (self.retired and self.under_way == 0):
            return "ended"
        if self.retired and not self._returned:
            return "returned"
        if self.urgent or (self.fresh and now >= self._report_at):
            return "returned" if self._returned else "holding"
        return None

    def due(self, now: float) -> float:
        """When to look at it again."""
        if self.wants(now) is not None:
            return now
        last = self._last if self.retired else min(self._last, self.until)
        last = min(last, self._report_at) if self.fresh or self.retired else last
        return max(last, self._rest_until)

    def lives_on(self, expires: float, ttl: float) -> None:
        """Its lease lives for *ttl* seconds more, until *expires*."""
        self.expires, self._last = expires, expires - min(_MARGIN, ttl / 10)

    def report(self, stage: str) -> BlockReport:
        """What has become of it; nothing more is handed out unless it is held."""
        if stage != "holding":
            self._lent, self._lent_tokens = self._lent - self.calls, self._lent_tokens - self.tokens
            self.calls = self.tokens = 0
            self.retired = self._returned = True
        self._number += 1
        self.busy, self.urgent = True, False
        return BlockReport(
            number=self._number,
            stage=stage,  # type: ignore[arg-type]  # one of those of `wants`
            calls=self.under_way,
            tokens=max(0, self.reserved),
            ended=[
                *(each.ended(told=True) for each in self._told.values()),
                *(each.ended(told=False) for each in self.fresh.values()),
            ],
        )

    def sent(self) -> dict[Kind, Sum]:
        """What is on its way as news; what ends meanwhile is counted apart."""
        fresh, self.fresh, self._well = self.fresh, {}, None
        return fresh

    def heard(self, sent: dict[Kind, Sum], now: float) -> None:
        """The service knows what was *sent*."""
        for kind, each in sent.items():
            self._told.setdefault(kind, Sum(kind)).add(each)
        self.busy, self._report_at = False, now + REPORT_EVERY

    def unheard(self, sent: dict[Kind, Sum], now: float) -> None:
        """The service could not be reached: all of it is told again."""
        for kind, each in sent.items():
            later = self.fresh.get(kind)
            if later is not None:
                each.add(later)
                each.latencies += later.latencies[: _MOST_TIMES - len(each.latencies)]
                each.ttfts += later.ttfts[: _MOST_TIMES - len(each.ttfts)]
                each.retry_after = later.retry_after or each.retry_after
            self.fresh[kind] = each
        self._well = None
        self.busy, self._rest_until, self._report_at = False, now + _AGAIN, now + _AGAIN


class Ask(msgspec.Struct, frozen=True):
    """A block is wanted: so many calls of so many tokens."""

    stock: "Stock"
    calls: int
    tokens: int


class Tell(msgspec.Struct, frozen=True):
    """The service is to hear of a block."""

    stock: "Stock"
    block: Block
    stage: str


class Stock:
    """The blocks of one resource and tenant: one that is handed out, perhaps the next one, and
    those whose calls are not over. `wake` is called when there is something to do.
    """

    __slots__ = (
        "_asking",
        "_counted",
        "_hold",
        "_next",
        "_noted_at",
        "_past",
        "_rest_until",
        "_retired",
        "_room",
        "_size",
        "_wanting",
        "block",
        "closed",
        "most",
        "resource",
        "tenant",
        "wake",
    )

    def __init__(self, resource: str, tenant: str, most: int, wake: Callable[[], None]) -> None:
        self.resource, self.tenant, self.most, self.wake = resource, tenant, most, wake
        self.block: Block | None = None
        self.closed = False
        self._next: Block | None = None
        self._retired: list[Block] = []
        self._asking = self._wanting = False
        self._rest_until = -math.inf
        self._past, self._noted_at, self._counted = 0.0, -math.inf, 0
        self._size, self._room, self._hold = 0.0, 1.0, _HOLD

    def take(self, tokens: int, now: float) -> Block | None:
        """The block that a call of *tokens* is handed out of, None when it has to ask."""
        block = self.block
        if block is None or block.calls <= 0 or block.tokens < tokens or now >= block.until:
            return self._take_elsewhere(tokens, now)
        block.calls -= 1
        block.tokens -= tokens
        if block.calls == block.low:
            self._wanting = True
            self.wake()
        return block

    def _take_elsewhere(self, tokens: int, now: float) -> Block | None:
        block = self.block
        if block is not None and self._spent(block, now):
            self._retire(block, now)
            self.block, self._next = self._next, None
            self.wake()
            if self.block is not None:
                return self.take(tokens, now)
        elif block is None and self._next is not None:
            self.block, self._next = self._next, None
            return self.take(tokens, now)
        self._note(1, now)
        self._size += (tokens - self._size) * (0.2 if self._size else 1.0)
        if not self._asking and now >= self._rest_until and self.wanted(now) >= LEAST:
            self._wanting = True
            self.wake()
        return None

    def _spent(self, block: Block, now: float) -> bool:
        return block.calls <= 0 or now >= block.until or block.tokens < self._size / 2

    def _retire(self, block: Block, now: float) -> None:
        self._count(block, now)
        self._counted = 0
        block.retired = True
        self._retired.append(block)

    def _note(self, calls: int, now: float) -> None:
        """So many calls have come since the last note."""
        self._past = self._past * math.exp(min(0.0, self._noted_at - now) / _PACE) + calls
        self._noted_at = now

    def _count(self, block: Block, now: float) -> None:
        calls, tokens = block.taken
        self._note(calls - self._counted, now)
        self._counted = calls
        if calls >= LEAST:
            self._size = tokens / calls

    def wanted(self, now: float) -> int:
        """How many calls the next block should have: what comes in half the time for which it
        may be held, less where little is left for others, and never more than `most`.
        """
        rate = self._past * math.exp(min(0.0, self._noted_at - now) / _PACE) / _PACE
        return min(self.most, int(rate * self._hold / 2 * self._room))

    def saw(self, limits: Sequence[LimitState]) -> None:
        """Take in how much is left of each limit."""
        rooms = [each.remaining / each.limit for each in limits if each.limit and not each.shadow]
        self._room = min(1.0, max(0.0, min(rooms, default=1.0)))

    def lent(self, granted: Given | Granted, asked_at: float, now: float) -> None:
        """A block has come."""
        block = Block(granted, self.resource, asked_at)
        assert granted.block is not None
        self._asking, self._hold = False, granted.block.hold
        self.saw(granted.limits)
        if self.closed or now >= block.until:
            block.retired = True
            self._retired.append(block)
        elif self.block is None:
            self.block, self._counted = block, 0
        else:
            self._next = block

    def refused(self, reason: str | None, pause: float, now: float) -> None:
        """No block is lent at present. While others wait, or the resource is not well, what is
        held goes back, too.
        """
        self._asking, self._rest_until = False, now + pause
        if reason in _RECALLS:
            self.recall(now)

    def recall(self, now: float) -> None:
        """Give back what is held, and hand out no more of it."""
        for block in (self.block, self._next):
            if block is not None:
                self._retire(block, now)
        self.block = self._next = None

    def close(self, now: float) -> None:
        """Hand out nothing more, and let every block end."""
        self.closed = True
        self.recall(now)

    def errands(self, now: float) -> Iterator[Ask | Tell]:
        """What is to be done now; each is under way until its answer is told."""
        for block in (self.block, self._next):
            if block is not None and now >= block.until:
                self.recall(now)
                break
        if self._wanting and not self._asking and not self.closed and now >= self._rest_until:
            self._wanting = False
            if self.block is not None:
                self._count(self.block, now)
            calls = self.wanted(now)
            if self._next is None and calls >= LEAST:
                self._asking = True
                yield Ask(self, calls, max(1, math.ceil(self._size)))
        for block in self.blocks():
            stage = "ended" if self.closed and not block.busy else block.wants(now)
            if stage is not None:
                yield Tell(self, block, stage)

    def blocks(self) -> list[Block]:
        """Every block that the service is to hear of."""
        held = (self.block, self._next)
        return [*self._retired, *(block for block in held if block is not None)]

    def forget(self, block: Block) -> None:
        """It has ended."""
        if block in self._retired:
            self._retired.remove(block)
        if block is self.block:  # its lease is about to expire, or unknown
            self.block = None
        if block is self._next:
            self._next = None

    def due(self, now: float) -> float | None:
        """When to look at it again, None when that is not known."""
        times = [block.due(now) for block in self.blocks() if not block.busy]
        if self._wanting and not self._asking:
            times.append(self._rest_until)
        return min(times, default=None)


def plain_size(
    tokens: int | None, input_tokens: int | None, max_output_tokens: int | None
) -> int | None:
    """What a call takes of a block, None when only the service can say."""
    if input_tokens is None:
        return tokens if max_output_tokens is None and tokens and tokens > 0 else None
    if tokens is not None or max_output_tokens is None or input_tokens < 1 or max_output_tokens < 0:
        return None
    return input_tokens + max_output_tokens
