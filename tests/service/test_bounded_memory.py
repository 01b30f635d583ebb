"""Names that callers make up cost a replica a bounded amount of memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from tests_support.adrift import engine_of, fleet
from tests_support.calls import problem
from tests_support.servers import Server, valkey_binary
from tests_support.service import http_client, in_process

from limiter_service.engine.unsettled import Unsettled
from limiter_service.store.keys import Keys

TENANTS = """
pools:
  p:
    on_store_loss: degrade
    models: {m: {rpm: 6000}}
    tenants: {"*": {tpm: 6000}}
"""


async def _nobody(*_: Any) -> list[float]:
    raise AssertionError("a lease that is settled is not looked for")


async def test_a_lease_that_is_settled_is_not_remembered_until_it_would_have_expired():
    """Leases may live for a day, and a replica grants thousands a second."""
    expired: list[str] = []
    watched = Unsettled(_nobody, lambda resource, _: expired.append(resource), "sg:")
    for number in range(1000):
        watched.granted(f"lease-{number}", 86_400.0 + number % 7)
        if number % 10:
            watched.settled(f"lease-{number}")
            watched.settled(f"lease-{number}")
    assert watched.count == 100
    assert sum(map(len, watched._due.values())) == 100
    for number in range(0, 1000, 10):
        watched.settled(f"lease-{number}")
    assert (watched.count, watched._due) == (0, {})
    await watched.aclose()


async def test_tenants_made_up_while_the_store_is_lost_are_told_apart_up_to_a_number(
    tmp_path: Path, write_config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    """Those who are known are served; strangers are refused, and leave nothing."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    monkeypatch.setattr("limiter_service.engine.outages.MOST_SHARES", 10)
    with Server(binary, tmp_path, "--appendonly", "yes", "--appendfsync", "always") as store:
        async with fleet(store, write_config, TENANTS, 1) as found:
            (replica,) = found.replicas
            await found.looked()
            body = {"resource": "p/m", "tokens": 1}
            known = await replica.post("/v1/acquire", json=body | {"tenant": "known"})
            assert known.status_code == 200
            await found.looked()
            await found.lost()
            served = await replica.post("/v1/acquire", json=body | {"tenant": "known"})
            assert served.status_code == 200, served.text
            for number in range(50):
                answer = await replica.post("/v1/acquire", json=body | {"tenant": f"t{number}"})
            assert "told apart" in problem(answer, 503, "store_unavailable")["detail"]
            (pool,) = engine_of(replica).outages.all()
            assert len(pool.windows) <= 10
            served = await replica.post("/v1/acquire", json=body | {"tenant": "known"})
            assert served.status_code == 200, served.text


async def test_the_circuit_of_a_model_that_has_only_succeeded_goes_with_its_window(
    valkey: Server, valkey_db: redis.Redis, write_config: Callable[[str], Path]
):
    """Where any model is served, callers make up models; what has failed is remembered."""
    config = write_config('pools: {p: {models: {"*": {}}, breaker: {window: 60s}}}')
    lives = {}
    async with in_process(valkey.url, config) as app, http_client(app) as client:
        for outcome in ("success", "server_error"):
            body = {"resource": f"p/{outcome}", "tokens": 1}
            lease = (await client.post("/v1/acquire", json=body)).json()["lease"]
            report = {"lease": lease, "outcome": outcome}
            assert (await client.post("/v1/settle", json=report)).status_code == 200
            lives[outcome] = cast("int", valkey_db.pttl(Keys("p").circuit(outcome)))
    assert 0 < lives["success"] <= 66_000
    assert lives["server_error"] > 80_000_000
