"""Limiters of others, in process and over the same Redis, used as their documentation shows.

Each call asks for one request of 100 tokens out of one of 100 budgets: requests a minute, tokens a
minute, requests a day. Where a peer decides over one limit at a time, it is called for each; where
it cannot do the same at all, its name in the table says what it does instead. No limit is ever
reached: a grant is what is measured. Pools of connections may have as many as there are callers:
redis-py's own bound of a hundred makes calls fail.
"""
# ruff: noqa: PLC0415  # no environment holds every peer

import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from contestant import Call

BUDGETS, TOKENS, MANY = 100, 100, 10**9


CONNECTIONS = 1000


def roomy(url: str) -> str:
    """*url*, for a pool of connections without redis-py's bound."""
    return f"{url}?max_connections={CONNECTIONS}"


class NotGrantedError(Exception):
    """A limit was reached, though none should be."""


def _granted(*answers: object) -> None:
    if not all(answers):
        raise NotGrantedError


# limits: a strategy decides over one limit


@contextlib.asynccontextmanager
async def _limits(url: str, strategy: str) -> AsyncIterator[Call]:
    from limits import RateLimitItemPerDay, RateLimitItemPerMinute, aio

    storage = aio.storage.RedisStorage(f"async+{roomy(url)}", implementation="redispy")
    limiter = getattr(aio.strategies, strategy)(storage)
    minute, day = RateLimitItemPerMinute(MANY), RateLimitItemPerDay(MANY)

    async def call(n: int) -> None:
        budget = f"m{n % BUDGETS}"
        _granted(
            await limiter.hit(minute, "requests", budget),
            await limiter.hit(minute, "tokens", budget, cost=TOKENS),
            await limiter.hit(day, "requests", budget),
        )

    yield call


# throttled-py: likewise


@contextlib.asynccontextmanager
async def _throttled(url: str, using: str) -> AsyncIterator[Call]:
    from throttled.asyncio import RedisStore, Throttled, rate_limiter

    store = RedisStore(server=roomy(url))
    minute = Throttled(using=using, quota=rate_limiter.per_min(MANY), store=store)
    day = Throttled(using=using, quota=rate_limiter.per_day(MANY), store=store)

    async def call(n: int) -> None:
        budget = f"m{n % BUDGETS}"
        results = (
            await minute.limit(f"requests:{budget}"),
            await minute.limit(f"tokens:{budget}", cost=TOKENS),
            await day.limit(f"day:{budget}"),
        )
        _granted(*(not result.limited for result in results))

    yield call


# PyrateLimiter: several rates in one bucket, all of the same unit


def pyrate_buckets(client: "redis.asyncio.Redis[Any]") -> Any:
    """A factory that keeps a bucket in Redis for each name."""
    from pyrate_limiter import BucketFactory, Duration, Rate, RateItem, RedisBucket

    rates = [
        Rate(MANY, Duration.SECOND),
        Rate(10 * MANY, Duration.MINUTE),
        Rate(100 * MANY, Duration.HOUR),
    ]

    class Buckets(BucketFactory):
        def __init__(self) -> None:
            self.known: dict[str, Awaitable[Any] | Any] = {}

        def wrap_item(self, name: str, weight: int = 1) -> Any:
            async def wrapped() -> RateItem:
                bucket = await self.bucket(name)
                return RateItem(name, bucket.now(), weight=weight)

            return wrapped()

        async def bucket(self, name: str) -> Any:
            found = self.known.get(name)
            if found is None:
                found = await RedisBucket.init(rates, client, f"pyrate:{name}")
                self.known[name] = found
                self.schedule_leak(found)
            return found

        def get(self, item: RateItem) -> Any:
            return self.bucket(item.name)

    return Buckets()


@contextlib.asynccontextmanager
async def _pyrate(url: str) -> AsyncIterator[Call]:
    from pyrate_limiter import Limiter

    client = redis.asyncio.Redis.from_url(roomy(url))
    limiter = Limiter(pyrate_buckets(client))

    async def call(n: int) -> None:
        _granted(await limiter.try_acquire_async(f"m{n % BUDGETS}", blocking=False))

    yield call
    await client.aclose()


# LiteLLM: the limiter of its proxy, called as the proxy calls it before a request


@contextlib.asynccontextmanager
async def _litellm(url: str) -> AsyncIterator[Call]:
    from litellm.caching.caching import DualCache
    from litellm.caching.redis_cache import RedisCache
    from litellm.proxy._types import UserAPIKeyAuth
    from litellm.proxy.hooks.parallel_request_limiter_v3 import (
        _PROXY_MaxParallelRequestsHandler_v3 as Handler,
    )
    from litellm.proxy.utils import InternalUsageCache

    where = urlsplit(url)
    cache = DualCache(redis_cache=RedisCache(host=where.hostname, port=where.port))
    handler = Handler(internal_usage_cache=InternalUsageCache(cache))
    keys = [UserAPIKeyAuth(api_key=f"m{n}", rpm_limit=MANY, tpm_limit=MANY) for n in range(BUDGETS)]
    text = "a" * 4 * 40  # 40 tokens, as it estimates; with what is asked for 100

    async def call(n: int) -> None:
        data = {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": TOKENS - 40,
        }
        await handler.async_pre_call_hook(keys[n % BUDGETS], cache, data, "completion")

    await call(0)  # the first one loads the whole proxy
    yield call


# token-throttle: every limit in one reservation, under locks


@contextlib.asynccontextmanager
async def _token_throttle(url: str, *, settles: bool) -> AsyncIterator[Call]:
    from token_throttle import PerModelConfig, Quota, RateLimiter, UsageQuotas
    from token_throttle import RedisBackendBuilder as Backend

    client = redis.asyncio.Redis.from_url(roomy(url))
    quotas = [
        Quota(metric="requests", limit=MANY, per_seconds=60),
        Quota(metric="tokens", limit=MANY, per_seconds=60),
        Quota(metric="requests", limit=MANY, per_seconds=86400),
    ]
    limiter = RateLimiter(
        PerModelConfig(quotas=UsageQuotas(quotas)), backend=Backend(client, key_prefix="tt")
    )
    usage, used = {"requests": 1, "tokens": TOKENS}, {"requests": 1, "tokens": 80}

    async def call(n: int) -> None:
        reservation = await limiter.acquire_capacity(usage, f"m{n % BUDGETS}")
        if settles:
            await limiter.refund_capacity(actual_usage=used, reservation=reservation)

    yield call
    await client.aclose()


CONTESTANTS = {
    "limits, fixed": lambda url: _limits(url, "FixedWindowRateLimiter"),
    "limits, sliding": lambda url: _limits(url, "SlidingWindowCounterRateLimiter"),
    "throttled, token bucket": lambda url: _throttled(url, "token_bucket"),
    "throttled, gcra": lambda url: _throttled(url, "gcra"),
    "pyrate": _pyrate,
    "litellm": _litellm,
    "token-throttle": lambda url: _token_throttle(url, settles=False),
    "token-throttle, settled": lambda url: _token_throttle(url, settles=True),
}
