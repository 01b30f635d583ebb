"""Blocks: many calls charged at once for one caller, and what becomes of them.

One script call lends as much as the pool's `blocks` allow, and nothing while somebody waits or
the circuit is not calm (lua/lend); another takes in how the calls have ended (lua/repay). What
blocks hold that nobody has spent yet is written down in the store, so that the bound is one of
all the fleet.
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b

from msgspec.structs import replace

from limiter_service.config import seconds
from limiter_service.engine import breaking, charging, ids
from limiter_service.engine.answers import conflict, granted, verdict_of
from limiter_service.engine.calls import Calls, store_refusal
from limiter_service.engine.ids import LeaseRef
from limiter_service.engine.policy import Limit, Policy
from limiter_service.engine.recalls import Recalls
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreError
from limiter_service.store.keys import Keys
from limiter_service.store.messages import KEEP, Claim, LentTerms, Reply, Verdict
from limiter_wire import (
    Acquire,
    BlockReport,
    Ended,
    ErrorCode,
    Granted,
    Lent,
    Meter,
    Outcome,
    Settle,
)

_MICRO = 1_000_000
_LEAST = 2  # of one call there is nothing to hand out
_SOON, _LATER = 0.5, 60.0  # seconds after which asking again may make sense
_WAITED, _REPORTS = 4, 65_536  # where a lease has the calls of a block (lua/lib/lease)


class Lending:
    """Lends blocks and takes them back. Every method raises Refusal."""

    def __init__(
        self, commands: Commands, calls: Calls, prefix: str, nonces: Callable[[], int]
    ) -> None:
        self._commands, self._calls = commands, calls
        self._prefix, self._nonce = prefix, nonces
        self.recalls = Recalls(commands, prefix)

    async def lend(
        self, policy: Policy, request: Acquire, request_id: str, claim: Claim
    ) -> Granted:
        """A block of at most `request.block` calls of its `tokens`."""
        assert request.block is not None
        why = why_not(policy)
        if request.tokens is None or request.cost_usd is not None or request.since is not None:
            raise refuse(
                ErrorCode.INVALID,
                "a block is asked for with `tokens`, the size of one call, and without `cost_usd`",
                resource=policy.resource,
            )
        if why is not None:
            raise not_lent(policy, *why, _LATER)
        terms = LentTerms(
            calls=request.block,
            least=_LEAST,
            hold=int(seconds(policy.config.blocks.hold) * _MICRO),
            tokens=request.tokens,
            bounds=list(_bounds(policy)),
        )
        keys = Keys(policy.pool, self._prefix)
        names = keys.lease(request.tenant, request_id), keys.queue(), keys.blocks()
        reply = await self._calls.run(
            policy, lambda chain: self._commands.lend(chain, names, claim, terms)
        )
        match reply.verdict:
            case Verdict.DONE | Verdict.REPEATED:
                return _lent(policy, request, request_id, reply)
            case Verdict.CONFLICT:
                raise conflict(policy, request_id)
            case Verdict.QUEUED:
                raise not_lent(policy, "waiters", "others wait in this pool", _SOON)
            case Verdict.PAUSED:
                raise not_lent(policy, "breaker", "the circuit is not closed and calm", _SOON)
            case Verdict.FULL:
                detail = "blocks hold as much as the pool's `blocks.share` allows"
                raise not_lent(policy, "scarce", detail, _SOON)
            case _:
                limit, _, _, _ = verdict_of(policy, reply.numbers)
                detail = f"{limit.name if limit else 'a limit'} has no room for a block"
                raise not_lent(policy, "scarce", detail, _SOON)

    async def repay(
        self, ref: LeaseRef, policy: Policy, report: Settle, told: BlockReport
    ) -> Reply:
        """Take in a report; what its fresh calls say goes to the circuit."""
        slow_after = seconds(policy.config.breaker.slow_ttft)
        # Successes first: beside them a few failures are few.
        ended = sorted(told.ended, key=lambda each: each.outcome is not Outcome.SUCCESS)
        fresh = [
            part for each in ended if not each.told for part in _parts(report, each, slow_after)
        ]
        amounts = stays(policy, told)
        tag, stage = self._nonce(), _STAGES[told.stage]
        keys = Keys(ref.pool, self._prefix)
        names = keys.lease(ref.tenant, ref.request_id), keys.queue(), keys.blocks()
        return await self._calls.run(
            policy,
            lambda chain: self._commands.repay(
                chain, names, (tag, ref.nonce, told.number, stage, *amounts), fresh
            ),
        )

    async def held(self, pool: str) -> tuple[int, int]:
        """Calls and tokens that blocks of a pool hold, unspent."""
        try:
            seen = await self._commands.blocks(Keys(pool, self._prefix), (), ids.new_nonce())
        except StoreError as error:
            raise store_refusal(error, None) from error
        return seen.calls, seen.tokens


_STAGES = {"holding": 0, "returned": 1, "ended": 2}


def why_not(policy: Policy) -> tuple[str, str] | None:
    """Why blocks of *policy* are never lent, as a word and for people; None when they are."""
    if policy.config.blocks.share <= 0:
        return "forbidden", "the pool's `blocks.share` is 0"
    for limit in policy.limits:
        if limit.meter is Meter.CONCURRENCY:
            return "unsuitable", f"{limit.name} counts calls under way"
        if limit.window == "ramp":
            return "unsuitable", f"{limit.name} follows what is really used"
        if limit.meter is Meter.COST_USD and policy.price is None:
            return "unsuitable", f"{limit.name} needs to know what each call costs"
    if policy.price is not None and policy.price.long is not None:
        return "unsuitable", "the price of a call depends on its length"
    return None


def plain(policy: Policy) -> bool:
    """Whether the sum of its input and its answer bounds what a call holds and uses of a limit."""
    if policy.price is not None:
        price = policy.price
        parts = (price.cache_read, price.cache_write, price.reasoning)
        if max(part or 0.0 for part in parts) > max(price.input, price.output):
            return False
    return all(
        limit.config.settle != "none" and max(limit.config.weights.values(), default=1.0) <= 1.0
        for limit in policy.limits
        if limit.meter is not Meter.REQUESTS
    )


def stays(policy: Policy, told: BlockReport) -> list[float]:
    """What each limit stays charged: what the calls that are over have used, and what those
    under way hold.
    """
    total = _reserved(policy, told.calls, told.tokens)
    for each in told.ended:
        refund = None if each.cause is None else each.cause.refund
        used = charging.used(policy, each.usage, each.cost_usd, each.outcome, refund)
        kept = _reserved(policy, each.calls, each.tokens)
        total = [
            so_far + (reserved if amount == KEEP else amount)
            for so_far, amount, reserved in zip(total, used, kept, strict=True)
        ]
    return total


def _reserved(policy: Policy, calls: int, tokens: int) -> list[float]:
    if tokens <= 0:
        return [float(calls) if limit.meter is Meter.REQUESTS else 0.0 for limit in policy.limits]
    asked = Acquire(resource=policy.resource, tokens=tokens)
    amounts = charging.reserve(policy, asked, None)
    return [
        float(calls) if limit.meter is Meter.REQUESTS else amount
        for limit, amount in zip(policy.limits, amounts, strict=True)
    ]


def _parts(report: Settle, each: Ended, slow_after: float) -> Iterator[tuple[float, ...]]:
    """Calls that have ended alike, as lua/repay has them: the slow ones apart."""
    one = replace(report, outcome=each.outcome, cause=each.cause)
    kind = (
        float(breaking.class_of(one)),
        float(breaking.error_number(one)),
        (each.retry_after or 0.0) * _MICRO,
    )
    slow = min(each.calls, sum(1 for ttft in each.ttfts if ttft >= slow_after))
    if each.calls > slow:
        yield *kind, float(each.calls - slow), 0.0
    if slow:
        yield *kind, float(slow), 1.0


def not_lent(policy: Policy, reason: str, detail: str, pause: float) -> Refusal:
    """The refusal of a block: its holder goes the ordinary way."""
    return refuse(
        ErrorCode.NOT_LENT, detail, resource=policy.resource, reason=reason, retry_after=pause
    )


def _bounds(policy: Policy) -> Iterator[float]:
    """For each limit its number in the pool, and what blocks may hold of it."""
    share = policy.config.blocks.share
    for (key, limit_id), limit in policy.placed:
        yield float(_number(key, limit_id))
        yield KEEP if limit.shadow else share * _whole(limit)


def _whole(limit: Limit) -> float:
    """What a limit allows in a period, or at once when that is less."""
    return min(limit.capacity, limit.limit * limit.unit)


def _number(key: str, limit_id: int) -> int:
    digest = blake2b(f"{limit_id}:{key}".encode(), digest_size=6)
    return int.from_bytes(digest.digest(), "big")


def _lent(policy: Policy, request: Acquire, request_id: str, reply: Reply) -> Granted:
    assert request.tokens is not None
    numbers = reply.numbers
    calls = int(numbers[_WAITED]) // _REPORTS
    answer = granted(policy, request_id, numbers)
    block = Lent(
        calls=calls,
        tokens=calls * request.tokens,
        hold=seconds(policy.config.blocks.hold),
        plain=plain(policy),
    )
    charged = {**answer.charged, Meter.REQUESTS: float(calls)}
    return replace(answer, waited=0.0, block=block, charged=charged)
