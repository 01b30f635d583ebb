"""GET /v1/resources: live levels of what is configured."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from limiter_service.door import caller_of, needs
from limiter_service.engine.admission import Engine
from limiter_service.http import JSON, encode
from limiter_service.openapi import answers
from limiter_wire import Role

router = APIRouter(tags=["resources"], dependencies=[needs(Role.READ)])

Tenant = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Whose limits; `default`, or the first tenant that the key is bound to",
    ),
]
# As strict as acquire: what it refuses must not enter the list of resources.
Pool = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Model = Annotated[
    str, Path(max_length=235, pattern=r"^[!-~]+$", description="It may contain slashes")
]


@router.get("/v1/resources", responses=answers("ResourceList", 422, 503))
async def resources(request: Request, tenant: Tenant = None) -> Response:
    """Every resource that the configuration names, and those asked for since."""
    engine: Engine = request.app.state.engine
    caller = caller_of(request.scope)
    found = await engine.views(caller.tenant(tenant), caller.sees)
    return Response(encode(found, JSON), media_type=JSON)


@router.get("/v1/resources/{pool}/{model:path}", responses=answers("ResourceView", 404, 422, 503))
async def resource(request: Request, pool: Pool, model: Model, tenant: Tenant = None) -> Response:
    """One resource; its model's name may contain slashes."""
    engine: Engine = request.app.state.engine
    caller = caller_of(request.scope)
    caller.reaches_pool(pool)
    found = await engine.view(f"{pool}/{model}", caller.tenant(tenant))
    return Response(encode(found, JSON), media_type=JSON)
