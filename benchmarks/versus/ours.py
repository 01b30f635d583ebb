"""Sluicegate as its users meet it: the SDK, over the channel and over HTTP."""

import contextlib
from collections.abc import AsyncIterator

from contestant import Call

from client_sdk import Limiter, LimiterOptions
from client_sdk.options import Channel

BUDGETS = 100


def _options(way: Channel) -> LimiterOptions:
    # On a busy machine a late answer is no lost service.
    return LimiterOptions(channel=way, timeout=30, connect_timeout=30, on_service_loss="closed")


@contextlib.asynccontextmanager
async def _acquiring(url: str, way: Channel, budgets: int = BUDGETS) -> AsyncIterator[Call]:
    async with Limiter(url, options=_options(way)) as limiter:
        yield lambda n: limiter.acquire(f"bench/m{n % budgets}", tokens=100)


@contextlib.asynccontextmanager
async def _settling(url: str, way: Channel) -> AsyncIterator[Call]:
    async with Limiter(url, options=_options(way)) as limiter:

        async def call(n: int) -> None:
            async with limiter.acquire(f"bench/m{n % BUDGETS}", tokens=100) as lease:
                lease.used(input_tokens=60, output_tokens=20)

        yield call


CONTESTANTS = {
    "channel": lambda url: _acquiring(url, "only"),
    "batches": lambda url: _acquiring(url, "off"),
    "channel, one budget": lambda url: _acquiring(url, "only", 1),
    "channel, settled": lambda url: _settling(url, "only"),
    "batches, settled": lambda url: _settling(url, "off"),
}
