"""GET /v1/stats and /metrics: what this replica has seen."""

import contextlib
import time

from fastapi import APIRouter, Request, Response

from limiter_service.door import caller_of, needs, needs_to_scrape
from limiter_service.engine.refusals import Refusal
from limiter_service.http import JSON, encode
from limiter_service.openapi import answers
from limiter_wire import BreakerView, Role, Stats

router = APIRouter(tags=["statistics"])


@router.get("/v1/stats", responses=answers("Stats"), dependencies=[needs(Role.READ)])
async def stats(request: Request) -> Response:
    """Waits and how well they were predicted, costs, and what shadow limits would have done."""
    state, caller = request.app.state, caller_of(request.scope)
    books = state.engine.books
    found = Stats(
        since=time.monotonic() - state.since,
        waits=[each for each in state.waits.stats() if caller.sees(each.resource)],
        costs=[each for each in books.costs() if caller.sees(each.resource, each.tenant)],
        trials=[each for each in books.trials() if caller.sees(each.limit, each.tenant)],
    )
    return Response(encode(found, JSON), media_type=JSON)


@router.get("/metrics", include_in_schema=False, dependencies=[needs_to_scrape()])
async def metrics(request: Request) -> Response:
    """The same for Prometheus."""
    media_type = "text/plain; version=0.0.4; charset=utf-8"
    state = request.app.state
    breakers: list[BreakerView] = []
    if await state.witness.look():
        with contextlib.suppress(Refusal):  # without the store the rest is still worth reading
            breakers = (await state.circuits.all()).breakers
    return Response(state.metrics.render(breakers), media_type=media_type)
