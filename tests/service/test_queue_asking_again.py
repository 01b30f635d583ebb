"""Callers whose questions are not held: they are served, and forecasts learn from them."""

from typing import Any

import httpx
import redis
from tests_support.calls import ask
from tests_support.waiting import until

CONFIG = """
pools:
  p:
    models:
      m: {limits: [{meter: tokens, limit: 100, per: second, burst: 100}]}
"""
REQUEST = {"resource": "p/m", "tokens": 50, "max_wait": 60, "hold": 0}


async def asked(client: httpx.AsyncClient, request_id: str) -> httpx.Response:
    """One question, answered at once."""
    return await client.post("/v1/acquire", json=REQUEST | {"request_id": request_id})


async def test_who_asks_again_is_served_meanwhile(serve: Any, db: redis.Redis) -> None:
    """The replica that was asked makes the pass when there is room, without another question."""
    client = await serve(CONFIG)
    await ask(client, "acquire", resource="p/m", tokens=100)
    assert (await asked(client, "r")).status_code == 202

    async def granted() -> object:
        return db.zcard("sg:{p}:q:grants")

    await until(granted, "nobody serves the queue")
    assert (await asked(client, "r")).status_code == 200


async def test_waits_of_those_who_ask_again_are_learned(serve: Any) -> None:
    """By what they were told first."""
    client = await serve(CONFIG)
    await ask(client, "acquire", resource="p/m", tokens=100)
    first = await asked(client, "r")

    async def served() -> object:
        return (await asked(client, "r")).status_code == 200

    await until(served, "it is not served")
    (waits,) = (await client.get("/v1/stats")).json()["waits"]
    assert waits["count"] == 1
    told = first.json()["predicted_wait"]
    assert abs(waits["error_p50"] - (waits["wait_p50"] - told)) < 1e-6
