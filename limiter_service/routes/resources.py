"""GET /v1/resources: live levels of what is configured."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from limiter_service.engine.admission import Engine
from limiter_service.http import JSON, encode
from limiter_service.openapi import answers

router = APIRouter(tags=["resources"])

Tenant = Annotated[
    str, Query(min_length=1, max_length=200, pattern=r"^[!-~]+$", description="Whose limits")
]


@router.get("/v1/resources", responses=answers("ResourceList", 422, 503))
async def resources(request: Request, tenant: Tenant = "default") -> Response:
    """Every resource that the configuration names, and those asked for since."""
    engine: Engine = request.app.state.engine
    return Response(encode(await engine.views(tenant), JSON), media_type=JSON)


@router.get("/v1/resources/{pool}/{model:path}", responses=answers("ResourceView", 404, 422, 503))
async def resource(request: Request, pool: str, model: str, tenant: Tenant = "default") -> Response:
    """One resource; its model's name may contain slashes."""
    engine: Engine = request.app.state.engine
    return Response(encode(await engine.view(f"{pool}/{model}", tenant), JSON), media_type=JSON)
