"""GET /v1/stats and /metrics: what this replica has seen."""

import contextlib
import time

from fastapi import APIRouter, Request, Response

from limiter_service.engine.refusals import Refusal
from limiter_service.http import JSON, encode
from limiter_service.openapi import answers
from limiter_wire import BreakerView, Stats

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
    state = request.app.state
    breakers: list[BreakerView] = []
    if await state.witness.look():
        with contextlib.suppress(Refusal):  # without the store the rest is still worth reading
            breakers = (await state.circuits.all()).breakers
    return Response(state.metrics.render(breakers), media_type=media_type)
