"""FastAPI: a lease as a dependency of a route; a refusal becomes the route's own answer.

@app.post("/summaries")
async def summarise(lease: Annotated[Lease, Depends(lease_of(limiter, "openai/gpt-4o"))]):
    ...
"""

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import HTTPException, Request

from client_sdk import BreakerOpen, Lease, Limiter, NeverFits, Refused, ServiceUnavailable


def lease_of(
    limiter: Limiter | Callable[[], Limiter],
    resource: str | Callable[[Request], str],
    *,
    tenant: str | Callable[[Request], str] | None = None,
    **options: Any,
) -> Callable[[Request], AsyncIterator[Lease]]:
    """A dependency: a lease that settles when the route is done.

    *resource* and *tenant* may be functions of the request; *options* are those of `acquire`.
    Without room the answer is 429, or 503 when the provider is down, with `Retry-After`.
    """

    async def dependency(request: Request) -> AsyncIterator[Lease]:
        name = resource(request) if callable(resource) else resource
        who = tenant(request) if callable(tenant) else tenant
        chosen = limiter if isinstance(limiter, Limiter) else limiter()
        try:
            lease = await chosen.acquire(name, tenant=who, **options)
        except (Refused, ServiceUnavailable) as error:
            raise _answer(error) from error
        async with lease:
            yield lease

    return dependency


def _answer(error: Refused | ServiceUnavailable) -> HTTPException:
    status = 503 if isinstance(error, BreakerOpen | ServiceUnavailable) else 429
    if isinstance(error, NeverFits):
        status = 422
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    code = None if error.code is None else str(error.code)
    return HTTPException(status, {"code": code, "limit": error.limit}, headers)
