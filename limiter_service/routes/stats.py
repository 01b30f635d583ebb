"""GET /v1/stats and /metrics: what this replica has seen."""

import time

from fastapi import APIRouter, Request, Response

from limiter_service.http import JSON, encode
from limiter_service.openapi import answers
from limiter_wire import Stats

router = APIRouter(tags=["statistics"])


@router.get("/v1/stats", responses=answers("Stats"))
async def stats(request: Request) -> Response:
    """Waits and how well they were predicted, costs, and what shadow limits would have done."""
    state = request.app.state
    books = state.engine.books
    found = Stats(
        since=time.monotonic() - state.since,
        waits=state.waits.stats(),
        costs=books.costs(),
        trials=books.trials(),
    )
    return Response(encode(found, JSON), media_type=JSON)


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """The same for Prometheus."""
    media_type = "text/plain; version=0.0.4; charset=utf-8"
    return Response(request.app.state.metrics.render(), media_type=media_type)
