"""FastAPI: a lease as a dependency."""

from collections.abc import Callable
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request

from client_sdk import Lease, Limiter
from client_sdk.adapters.fastapi import lease_of

Used = Callable[..., tuple[int, int]]


async def test_a_route_runs_under_a_lease(url: str, used: Used):
    """It settles with the route; a refusal is the answer, with the time to wait."""
    async with Limiter(url) as limiter:
        app = FastAPI()

        def named(request: Request) -> str:
            return f"p/{request.path_params['model']}"

        @app.post("/{model}")
        async def route(lease: Annotated[Lease, Depends(lease_of(limiter, named, tokens=50))]):
            lease.used(output_tokens=7)
            return {"lease": lease.id}

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
            assert (await http.post("/m")).status_code == 200
            assert used() == (7, 0)
            assert (await http.post("/spent-f")).status_code == 200
            refused = await http.post("/spent-f")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 3600
    assert refused.json()["detail"]["code"] == "rate_limited"
