"""Calls by the thousand that are cancelled at random moments, and what is left of them."""

import asyncio
import contextlib
import itertools
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import msgspec
import redis

from client_sdk import Limiter, LimiterOptions
from client_sdk.errors import RateLimited
from limiter_service.engine import ids
from limiter_service.store.keys import request_digest
from limiter_wire import Settle, Usage
from tests_support.trial.moments import work

LIMIT = 1_000_000_000
POOLS = f"""
pools:
  p:
    models:
      open: {{limits: [{{name: budget, meter: tokens, limit: 1000, per: 366d, burst: {LIMIT}}}]}}
      tight: {{limits: [{{name: slots, meter: concurrency, limit: 3}}]}}
    queue: {{max_waiters: 100000, max_wait: 120s}}
    lease_ttl: 1h
    remember: 1h
"""
_SETTLED, _CHARGE = 6, 9  # places in a lease (lua/lib/lease)


class Storm(msgspec.Struct):
    """What came of it: how calls ended, answers that were somebody else's, and what each request
    to the open model has used: nothing, where its caller was not told of a lease.
    """

    ended: Counter[str] = msgspec.field(default_factory=Counter)
    mixed_up: list[str] = []
    used: dict[str, int] = {}

    @property
    def spent(self) -> int:
        """All that was used."""
        return sum(self.used.values())

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(self.ended.values())


async def storm(
    url: str,
    calls: int,
    seed: int,
    *,
    channel: str = "only",
    callers: int = 32,
    say: Callable[[int], None] = lambda _: None,
) -> Storm:
    """Acquires and settles of one limiter; about half are cancelled, a moment after they began."""
    found, numbers = Storm(), itertools.count()
    options = LimiterOptions(
        channel=channel,  # type: ignore[arg-type]  # a word of the caller's
        timeout=60.0,
        connect_timeout=60.0,
        on_service_loss="closed",
    )
    async with Limiter(url, options=options) as limiter:

        async def caller(nth: int) -> None:
            luck = Random(f"{seed} {nth}")
            while found.calls < calls:
                await _call(limiter, f"{channel}-{seed}-{next(numbers)}", luck, found)
                if found.calls % 1000 == 0:
                    say(found.calls)

        await asyncio.gather(*map(caller, range(callers)))
    return found


async def _call(limiter: Limiter, request_id: str, luck: Random, found: Storm) -> None:
    """One acquire and, if it is granted, its settle; either may be cancelled on the way."""
    model = luck.choice(["open", "open", "tight"])
    tokens = luck.randint(1, 1000)
    if model == "open":
        found.used[request_id] = 0

    async def acquire() -> Any:
        return await limiter.acquire(
            f"p/{model}",
            tokens=tokens,
            max_wait=luck.choice([0.0, 60.0]),
            request_id=request_id,
        )

    try:
        lease = await _cancelled(acquire, luck)
    except RateLimited:
        found.ended["refused"] += 1
        return
    if lease is None:
        found.ended["acquire cancelled"] += 1
        return
    found.ended["granted"] += 1
    ref = ids.decode(lease.id)
    if ref is None or (ref.request_id, ref.model, lease.request_id) != (
        request_id,
        model,
        request_id,
    ):
        found.mixed_up.append(f"{request_id} was told of {ref}")
    used = luck.randint(0, tokens)
    report = Settle(lease=lease.id, usage=Usage(input_tokens=used))

    async def settle() -> Any:
        return await limiter.settle(report)

    settled = await _cancelled(settle, luck)
    if settled is None:  # as a program would that must know
        found.ended["settle cancelled"] += 1
        settled = await limiter.settle(report)
    found.ended["settled"] += 1
    if model == "open":
        found.used[request_id] = used
        moved = settled.refunded.get("tokens", 0) - settled.debited.get("tokens", 0)
        if moved != tokens - used:
            found.mixed_up.append(f"{request_id} got back {moved}, not {tokens - used}")


async def _cancelled(ask: Callable[[], Awaitable[Any]], luck: Random) -> Any:
    """What a call answers; None when it was cancelled before it had."""
    task = asyncio.ensure_future(ask())
    kind = luck.random()
    if kind < 0.3:
        for _ in range(luck.randrange(30)):
            await asyncio.sleep(0)
        task.cancel()
    elif kind < 0.7:
        await work(luck, 0.02)
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


def unsettled(store: redis.Redis) -> int:
    """Leases that nobody has settled."""
    count = 0
    for key in store.scan_iter("sg:{p}:l:*", count=10_000):
        lease = store.get(key)
        count += lease is not None and struct.unpack_from("<d", lease, 8 * (_SETTLED - 1))[0] == 0
    return count


def misbooked(store: redis.Redis, found: Storm) -> list[str]:
    """Leases of the open model that are charged with anything but what their calls have used."""
    wrong: list[str] = []
    for name, used in found.used.items():
        lease = store.get(f"sg:{{p}}:l:{request_digest('default', name).hex()}")
        numbers = struct.unpack(f"<{len(lease) // 8}d", lease) if lease else ()
        # One limit: its charge, and what has moved on it stands last once that is settled.
        charged = numbers[_CHARGE] + numbers[-1] if lease else 0.0
        if charged != used:
            wrong.append(f"{name} has used {used} tokens, and {charged:g} are charged: {numbers}")
    return wrong


def waiting(store: redis.Redis) -> int:
    """Waiters, and grants that nobody has fetched."""
    return int(store.hlen("sg:{p}:q:tickets"))
