"""Probes: /livez says that the process runs, /readyz that it can decide."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from limiter_service.door import open_to_all
from limiter_service.http import JSON, encode
from limiter_service.openapi import Health, answers
from limiter_service.store.errors import StoreUnavailable
from limiter_wire import ErrorCode, problem

router = APIRouter(tags=["health"], dependencies=[open_to_all()])


@router.get("/livez", responses=answers("Health"))
async def livez() -> Response:
    """Never asks the store: a restart of this process would not help it."""
    return Response(encode(Health("ok"), JSON), media_type=JSON)


@router.get("/readyz", responses=answers("Health", 422, 503))
async def readyz(
    request: Request, *, verbose: Annotated[bool, Query(description="Say what was checked")] = False
) -> Response:
    """Whether this replica can decide: the store answers, or was seen and some pool is decided
    without it; it is not drained, and no shutdown has begun.
    """
    state = request.app.state
    checks = {"config": state.pools.describe()}
    if state.stopping:
        return _unready("this replica is shutting down", ErrorCode.SHUTTING_DOWN)
    outages = state.engine.outages
    lost = {pool.name: outages.describe(pool) for pool in outages.all() if outages.is_lost(pool)}
    try:
        await state.client.ping()
        checks["store"] = "ok"
    except StoreUnavailable as error:
        checks["store"] = f"lost: {error}"
        if not outages.goes_on():
            return _unready(f"the store does not answer: {error}", ErrorCode.STORE_UNAVAILABLE)
    checks |= {f"pool {name}": said for name, said in lost.items()}
    if state.engine.draining is not None:
        return _unready(f"this replica is {state.engine.draining}", ErrorCode.SHUTTING_DOWN)
    return Response(encode(Health("ok", checks if verbose else None), JSON), media_type=JSON)


def _unready(detail: str, code: ErrorCode) -> Response:
    body = encode(problem(code, detail, retry_after=1.0), JSON)
    headers = {"retry-after": "1", "retry-after-ms": "1000"}
    return Response(body, 503, headers, media_type="application/problem+json")
