"""POST /v1/batch: many operations, each with the answer that its own route would give."""

from typing import Any

import httpx
import msgspec
import pytest
from tests_support.calls import JSON, MSGPACK, ask, body_of, left, view

FORMATS = [(JSON, JSON), (JSON, MSGPACK), (MSGPACK, JSON), (MSGPACK, MSGPACK)]


def acquire(tokens: int, **more: object) -> dict[str, Any]:
    """An operation that takes tokens."""
    return {"op": "acquire", "resource": "p/m", "tokens": tokens} | more


async def test_results_stand_in_the_order_of_the_operations(client: httpx.AsyncClient):
    """Each result answers the operation at its place."""
    ops = [acquire(i + 1) if i % 2 else {"op": "check", **acquire(1)} for i in range(8)]
    ops = [{**op, "op": "check"} if i % 2 == 0 else op for i, op in enumerate(ops)]
    results = (await ask(client, "batch", ops=ops))["results"]
    for i, result in enumerate(results):
        assert result["status"] == 200
        if i % 2:
            assert result["body"]["charged"]["tokens"] == i + 1
        else:
            assert result["body"]["would_grant"]


async def test_a_batch_cannot_grant_more_than_there_is(client: httpx.AsyncClient):
    """Operations of one batch compete as single requests do."""
    results = (await ask(client, "batch", ops=[acquire(300)] * 9))["results"]
    assert sorted(result["status"] for result in results) == [200] * 3 + [429] * 6
    assert {result["body"]["code"] for result in results if result["status"] == 429} == {
        "rate_limited"
    }
    assert await left(client) == 100


async def test_a_request_id_twice_in_a_batch_charges_once(client: httpx.AsyncClient):
    """The batch is no way around exactly once."""
    results = (await ask(client, "batch", ops=[acquire(100, request_id="r")] * 5))["results"]
    assert all(result == results[0] for result in results)
    assert await left(client) == 900


async def test_every_operation_works_in_a_batch(client: httpx.AsyncClient):
    """Renew and settle see the leases of earlier requests."""
    leases = [(await ask(client, "acquire", resource="p/m", tokens=10))["lease"] for _ in "ab"]
    ops = [
        {"op": "renew", "lease": leases[0], "usage": {"input_tokens": 15}},
        {"op": "settle", "lease": leases[1], "usage": {"input_tokens": 4}},
        {"op": "settle", "lease": "nobody"},
    ]
    results = (await ask(client, "batch", ops=ops))["results"]
    assert [result["status"] for result in results] == [200, 200, 404]
    assert results[0]["body"]["charged"]["tokens"] == 15
    assert results[1]["body"]["refunded"] == {"tokens": 6}
    assert results[2]["body"]["code"] == "unknown_lease"


async def test_the_largest_batch_is_taken(client: httpx.AsyncClient):
    """256 operations are one request; they are all served."""
    results = (await ask(client, "batch", ops=[acquire(1)] * 256))["results"]
    granted = sum(result["status"] == 200 for result in results)
    assert granted == 10  # the slots
    levels = await view(client)
    assert levels["m.budget"]["remaining"] == 990


@pytest.mark.parametrize(("sent", "accepted"), FORMATS)
async def test_every_combination_of_formats_works(
    client: httpx.AsyncClient, sent: str, accepted: str
):
    """Operations inside are read and answered in the formats of the whole."""
    encode = {JSON: msgspec.json.encode, MSGPACK: msgspec.msgpack.encode}[sent]
    body = encode({"ops": [acquire(10), acquire(-1)]})
    headers = {"content-type": sent, "accept": accepted}
    answer = await client.post("/v1/batch", content=body, headers=headers)
    assert answer.headers["content-type"] == accepted
    results = body_of(answer)["results"]
    assert [result["status"] for result in results] == [200, 422]
    assert results[0]["body"]["charged"]["tokens"] == 10
