"""Limiters of others behind FastAPI, and a server that does nothing: the same route for all.

    STORE=redis://127.0.0.1:6379 uvicorn --factory apps:limits

Each route reads the body into a model and answers a small object, as an application would.
"""
# ruff: noqa: PLC0415  # each needs packages that the others do not

import os
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from libraries import pyrate_buckets, roomy
from pydantic import BaseModel

MANY = 10**9
STORE = os.environ.get("STORE", "")  # noqa: TID251  # a program of its own


class Acquire(BaseModel):
    """What every contestant is sent."""

    resource: str
    tokens: int


class Answer(BaseModel):
    """What every one of these answers."""

    granted: bool
    resource: str


def limits() -> FastAPI:
    """`limits`: three limits, one after another, fixed windows."""
    from limits import RateLimitItemPerDay, RateLimitItemPerMinute, aio

    storage = aio.storage.RedisStorage(f"async+{roomy(STORE)}", implementation="redispy")
    limiter = aio.strategies.FixedWindowRateLimiter(storage)
    minute, day = RateLimitItemPerMinute(MANY), RateLimitItemPerDay(MANY)
    app = FastAPI()

    @app.post("/v1/acquire")
    async def acquire(asked: Acquire) -> Answer:
        name = asked.resource
        hits = (
            await limiter.hit(minute, "requests", name),
            await limiter.hit(minute, "tokens", name, cost=asked.tokens),
            await limiter.hit(day, "requests", name),
        )
        if not all(hits):
            raise HTTPException(429)
        return Answer(granted=True, resource=name)

    return app


def fastapi_limiter() -> FastAPI:
    """`fastapi-limiter`: PyrateLimiter as a dependency, three rates of requests."""
    import redis.asyncio
    from fastapi_limiter.depends import RateLimiter
    from pyrate_limiter import Limiter

    limiter = Limiter(pyrate_buckets(redis.asyncio.Redis.from_url(roomy(STORE))))

    async def budget(request: Request) -> str:
        return request.headers["x-budget"]

    app = FastAPI()
    limited = Depends(RateLimiter(limiter=limiter, identifier=budget))

    @app.post("/v1/acquire", dependencies=[limited])
    async def acquire(asked: Acquire) -> Answer:
        return Answer(granted=True, resource=asked.resource)

    return app


def slowapi() -> FastAPI:
    """`slowapi`: three limits of requests by decorator, one after another."""
    from slowapi import Limiter, _rate_limit_exceeded_handler
    from slowapi.errors import RateLimitExceeded

    def budget(request: Request) -> str:
        return request.headers["x-budget"]

    app = FastAPI()
    app.state.limiter = limiter = Limiter(key_func=budget, storage_uri=STORE)
    app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)  # type: ignore[arg-type]  # its own signature

    @app.post("/v1/acquire")
    @limiter.limit(f"{MANY}/minute;{MANY}/hour;{MANY}/day")
    async def acquire(request: Request, asked: Acquire) -> Answer:  # noqa: ARG001  # it is looked for by name
        return Answer(granted=True, resource=asked.resource)

    return app


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, and send it back: what a server costs that decides nothing."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message.get("more_body", False)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
