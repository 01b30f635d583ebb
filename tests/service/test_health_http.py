"""Probes, and routes that do not exist."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests_support.calls import EXACT, problem
from tests_support.service import http_client, in_process
from tests_support.waiting import until


@pytest.fixture
async def lost(write_config: Callable[[str], Path], tmp_path: Path) -> AsyncIterator[Any]:
    """A service whose store is not there."""
    async with (
        in_process(f"unix://{tmp_path}/nobody", write_config(EXACT)) as app,
        http_client(app) as client,
    ):
        yield client


async def test_a_healthy_replica_is_alive_and_ready(client: httpx.AsyncClient):
    """Both probes say ok."""
    for path in ("/livez", "/readyz"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": None})


async def test_a_verbose_probe_says_what_was_checked(client: httpx.AsyncClient):
    """The store, and the configuration in force."""
    checks = (await client.get("/readyz?verbose=true")).json()["checks"]
    assert checks["store"] == "ok"
    assert checks["config"].startswith("1 pools from ")


async def test_a_refused_configuration_is_visible(serve: Any, write_config: Callable[[str], Path]):
    """A replica that kept its old configuration says why."""
    client = await serve()
    write_config("pools: {p: {modles: {}}}")

    async def visible() -> bool:
        checks = (await client.get("/readyz?verbose=true")).json()["checks"]
        return "did you mean models?" in checks["config"]

    await until(visible, "the bad file is not reported")
    assert (await client.get("/readyz")).status_code == 200


async def test_without_the_store_a_replica_is_alive_and_not_ready(lost: httpx.AsyncClient):
    """A restart of the process would not help; traffic should go elsewhere."""
    assert (await lost.get("/livez")).status_code == 200
    answer = await lost.get("/readyz")
    assert problem(answer, 503, "store_unavailable")["retry_after"] == 1.0
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("acquire", {"resource": "p/m", "tokens": 1}),
        ("check", {"resource": "p/m", "tokens": 1}),
        ("settle", {"lease": "laFwoW2nZGVmYXVsdKFyAQ"}),
        ("renew", {"lease": "laFwoW2nZGVmYXVsdKFyAQ"}),
    ],
)
async def test_without_the_store_every_operation_says_so(
    lost: httpx.AsyncClient, route: str, body: dict[str, object]
):
    """503 with a time to come back, and no details of a traceback."""
    answer = await lost.post(f"/v1/{route}", json=body)
    found = problem(answer, 503, "store_unavailable")
    assert (found["retry_after"], answer.headers["retry-after"]) == (1.0, "1")
    assert "Traceback" not in answer.text


async def test_without_the_store_views_say_so(lost: httpx.AsyncClient):
    """Levels cannot be known."""
    for path in ("/v1/resources", "/v1/resources/p/m"):
        problem(await lost.get(path), 503, "store_unavailable")


async def test_an_unknown_route_is_not_found(client: httpx.AsyncClient):
    """It is a problem too, with the path cut to a sensible length."""
    problem(await client.get("/v2/acquire"), 404, "not_found")
    problem(await client.post("/v1/acquire/", json={}), 404, "not_found")
    problem(await client.get("/v1/nothing"), 404, "not_found")
    assert len(problem(await client.get("/" + "x" * 9000), 404, "not_found")["detail"]) < 300


async def test_an_ordinary_route_names_the_methods_that_it_takes(client: httpx.AsyncClient):
    """405 with `Allow`."""
    answer = await client.post("/v1/resources", json={})
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"
