"""GET /v1/stats: figures of the fleet; /metrics: what this replica has seen."""

import contextlib
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from limiter_service.door import caller_of, needs, needs_to_scrape
from limiter_service.engine.admission import Engine
from limiter_service.engine.census import Census, census
from limiter_service.engine.refusals import Refusal
from limiter_service.http import JSON, encode
from limiter_service.openapi import answers
from limiter_wire import BreakerView, Role, Stats

router = APIRouter(tags=["statistics"])

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NAMED = {"minute": 60.0, "hour": 3600.0, "day": 86_400.0}
Since = Annotated[
    str,
    Query(
        pattern=r"^(minute|hour|day|[0-9]{1,9}(\.[0-9]{1,6})?[smhd]?)$",
        description="How far back: seconds, or `30s`, `5m`, `2h`, `1d`, `minute`, `hour`, `day`; "
        "a day at most",
    ),
]
Series = Annotated[
    bool,
    Query(
        description="Also step by step, by resource: of 5 seconds for a minute, 5 minutes for an "
        "hour, an hour for a day"
    ),
]


@router.get("/v1/stats", responses=answers("Stats", 422), dependencies=[needs(Role.READ)])
async def stats(request: Request, since: Since = "hour", *, series: Series = False) -> Response:
    """What happened in the fleet lately, by resource and tenant: decisions, outcomes, times, cost.

    Also how well this replica has predicted waits, and what shadow limits would have done.
    """
    state, caller = request.app.state, caller_of(request.scope)
    found = await state.history.of(_seconds(since), apart=series)
    shared, own = (found.resources, found.tenants) if found else ([], [])
    costs = found.costs if found else []
    answer = Stats(
        since=found.reach if found else 0.0,
        resources=[each for each in shared if caller.sees(each.resource)],
        tenants=[each for each in own if caller.sees(each.resource, each.tenant)],
        costs=[each for each in costs if caller.sees(each.resource, each.tenant)],
        degraded=found is None,
        step=found.step if found else 0.0,
        times=found.times if found else [],
        series=[each for each in found.series if caller.sees(each.resource)] if found else [],
        uptime=time.monotonic() - state.since,
        waits=[each for each in state.waits.stats() if caller.sees(each.resource)],
        trials=[
            each for each in state.engine.books.trials() if caller.sees(each.limit, each.tenant)
        ],
    )
    return Response(encode(answer, JSON), media_type=JSON)


def _seconds(text: str) -> float:
    named = _NAMED.get(text)
    if named is not None:
        return named
    unit = _UNITS.get(text[-1])
    return float(text) if unit is None else float(text[:-1]) * unit


@router.get("/metrics", include_in_schema=False, dependencies=[needs_to_scrape()])
async def metrics(request: Request) -> Response:
    """The same for Prometheus."""
    media_type = "text/plain; version=0.0.4; charset=utf-8"
    state = request.app.state
    breakers: list[BreakerView] = []
    standing = Census()
    if await state.witness.look():
        engine: Engine = state.engine
        standing = await census(engine.policies, engine.learning, engine.lines, engine.lending)
        with contextlib.suppress(Refusal):  # without the store the rest is still worth reading
            breakers = (await state.circuits.all()).breakers
    return Response(state.metrics.render(breakers, standing), media_type=media_type)
