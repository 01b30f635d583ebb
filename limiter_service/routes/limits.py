"""/v1/limits: hold a limit by hand, and let go of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from limiter_service.door import caller_of, needs
from limiter_service.engine.admission import Engine
from limiter_service.engine.learning import Learning
from limiter_service.http import JSON, Reader, encode, media, refuse_media
from limiter_service.openapi import answers, takes
from limiter_service.routes.audit import audit
from limiter_wire import LimitOverride, Role

router = APIRouter(tags=["limits"], dependencies=[needs(Role.ADMIN)])
_reader = Reader(LimitOverride)

Pool = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Model = Annotated[
    str, Path(max_length=235, pattern=r"^[!-~]+$", description="It may contain slashes")
]
LimitName = Annotated[
    str, Path(max_length=200, pattern=r"^[!-~]+$", description="As in answers, or in the file")
]
Tenant = Annotated[
    str, Query(min_length=1, max_length=200, pattern=r"^[!-~]+$", description="Whose limits")
]
Why = Annotated[str, Query(max_length=500, description="Told in the events and in the log")]


@router.put(
    "/v1/limits/{pool}/{model:path}/{name}/override",
    responses=answers("LimitView", 400, 404, 408, 415, 422, 503),
    openapi_extra=takes("LimitOverride"),
)
async def hold(
    request: Request, pool: Pool, model: Model, name: LimitName, tenant: Tenant = "default"
) -> Response:
    """Hold a limit to another value than that of the file, for the whole fleet."""
    actor = _actor(request, pool)
    kind = media(request.scope)
    refuse_media(kind)
    order: LimitOverride = _reader.read(await request.body(), kind.body)
    view = await _learning(request).hold(f"{pool}/{model}", name, tenant, order, actor)
    audit(request, f"limit.hold {order.limit:g}", f"{pool}/{model} {view.name}", order.reason)
    return _answer(view)


@router.delete(
    "/v1/limits/{pool}/{model:path}/{name}/override",
    responses=answers("LimitView", 404, 422, 503),
)
async def release(
    request: Request,
    pool: Pool,
    model: Model,
    name: LimitName,
    tenant: Tenant = "default",
    reason: Why = "",
) -> Response:
    """Let go of a limit that is held by hand."""
    actor = _actor(request, pool)
    view = await _learning(request).release(f"{pool}/{model}", name, tenant, actor, reason)
    audit(request, "limit.release", f"{pool}/{model} {view.name}", reason)
    return _answer(view)


def _learning(request: Request) -> Learning:
    engine: Engine = request.app.state.engine
    return engine.learning


def _actor(request: Request, pool: str) -> str:
    """Who orders. Raises Refusal: what holds for a tenant is not for that tenant to change."""
    caller = caller_of(request.scope)
    caller.reaches_all_of(pool)
    return caller.actor


def _answer(value: object) -> Response:
    return Response(encode(value, JSON), media_type=JSON)
