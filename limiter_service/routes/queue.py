"""GET /v1/queue/{pool}: who waits, and for how long."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from msgspec.structs import replace

from limiter_service.config import seconds
from limiter_service.door import caller_of, needs
from limiter_service.engine.admission import Engine
from limiter_service.engine.refusals import refuse
from limiter_service.http import JSON, encode
from limiter_service.openapi import answers
from limiter_wire import ErrorCode, Role

router = APIRouter(tags=["queue"])

Pool = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@router.get(
    "/v1/queue/{pool}",
    responses=answers("QueueView", 404, 422, 503),
    dependencies=[needs(Role.READ)],
)
async def queue(request: Request, pool: Pool) -> Response:
    """The queue of one pool by tenant, priority and resource, with predicted waits."""
    engine: Engine = request.app.state.engine
    caller = caller_of(request.scope)
    caller.reaches_pool(pool)
    config = engine.policies.config.pools.get(pool)
    if config is None:
        known = ", ".join(sorted(engine.policies.config.pools)) or "none"
        detail = f"no pool {pool!r}; configured pools: {known}"
        raise refuse(ErrorCode.UNKNOWN_RESOURCE, detail)
    view = await engine.lines.view(pool, config.queue.max_waiters, seconds(config.queue.max_wait))
    own = [line for line in view.lines if caller.has_tenant(line.tenant)]
    return Response(encode(replace(view, lines=own), JSON), media_type=JSON)
