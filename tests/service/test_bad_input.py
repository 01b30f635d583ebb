"""Whatever is sent, the answer is the documented refusal, and nothing is charged."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from tests_support.calls import JSON, MSGPACK, PROBLEM, ask, problem, view

# What is refused here never reaches a store, so one kind of it is enough.
pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)

HUGE = 10**30
DEEP = b"[" * 50_000

NOT_TEXT: list[Any] = [7, True, ["x"], {"a": 1}]
NOT_A_NAME: list[Any] = [*NOT_TEXT, "", " ", "a b", "a\x00", "a\n", "\x7f", "é", "x" * 201]
NOT_A_NUMBER: list[Any] = ["7", True, [7], {"a": 1}, -1, HUGE]
NOT_A_COUNT: list[Any] = [*NOT_A_NUMBER, 1.5, 10**12 + 1]
NOT_A_LEASE: list[Any] = [*NOT_TEXT, None, "", "a b", "a/b", "a\x00", "é", "x" * 2001]

ACQUIRE: dict[str, list[Any]] = {
    "resource": [*NOT_A_NAME, None, "m", "/m", "p/", "p /m", "p/" + "m" * 300, "p/m\n", "-/m"],
    "tokens": [*NOT_A_COUNT, 0],
    "input_tokens": [*NOT_A_COUNT, 0],
    "max_output_tokens": NOT_A_COUNT,
    "cache_read_tokens": NOT_A_COUNT,
    "cache_write_tokens": NOT_A_COUNT,
    "cost_usd": [*NOT_A_NUMBER, 1e7],
    "tenant": [*NOT_A_NAME, None],
    "priority": [*NOT_A_COUNT, 10, None],
    "max_wait": [*NOT_A_NUMBER, 86_401, None],
    "request_id": NOT_A_NAME,
    "worker": NOT_A_NAME,
    "attempt": [*NOT_A_COUNT, 0, 1001, None],
    "route": NOT_A_NAME,
    "ttl": [*NOT_A_NUMBER, 0, 0.5, 86_401],
}
USAGE: list[Any] = [
    *(7, "x", ["x"]),
    *(
        {component: value}
        for component in (
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
        )
        for value in (*NOT_A_COUNT, None)
    ),
    *({"provenance": value} for value in ("guessed", 7, None, "")),
]
SETTLE: dict[str, list[Any]] = {
    "lease": NOT_A_LEASE,
    "outcome": ["", "fine", 7, None, ["success"], "SUCCESS"],
    "usage": USAGE,
    "cost_usd": [*NOT_A_NUMBER, 1e7],
    "latency": [*NOT_A_NUMBER, 1e10],
    "ttft": [*NOT_A_NUMBER, 1e10],
    "retry_after": [*NOT_A_NUMBER, 1e10],
    "estimated_input_tokens": [*NOT_A_NUMBER, 0, 2e12],
    "headers": [7, "x", ["x"], {"x": 7}, {"x": None}],
    "phase": NOT_TEXT,
}
RENEW: dict[str, list[Any]] = {
    "lease": NOT_A_LEASE,
    "ttl": [*NOT_A_NUMBER, 0, 0.5, 86_401],
    "usage": USAGE,
}
BATCH: dict[str, list[Any]] = {"ops": [7, "x", {"a": 1}, None, [], [{"op": "check"}] * 257]}
FIELDS = {"acquire": ACQUIRE, "check": ACQUIRE, "settle": SETTLE, "renew": RENEW, "batch": BATCH}
HOT = list(FIELDS)

NUMBERS = {
    "acquire": ["tokens", "cost_usd", "max_wait", "ttl", "priority"],
    "check": ["tokens", "cost_usd", "max_wait", "ttl", "priority"],
    "settle": ["cost_usd", "latency", "ttft", "retry_after", "estimated_input_tokens"],
    "renew": ["ttl"],
}


@pytest.fixture
async def untouched(client: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A service whose limits nobody may have touched when the test is over."""
    before = await view(client)
    yield client
    assert await view(client) == before


def good(route: str) -> dict[str, Any]:
    """A body that the route takes, but for the lease, which nobody has granted."""
    if route == "batch":
        return {"ops": [{"op": "check", "resource": "p/m", "tokens": 1}]}
    if route in {"settle", "renew"}:
        return {"lease": "x"}
    return {"resource": "p/m", "tokens": 1}


def spoilt(route: str, field: str, value: Any) -> dict[str, Any]:
    """A good body with one bad field."""
    body = good(route)
    if field == "input_tokens":
        del body["tokens"]
    if field == "max_output_tokens":
        body["input_tokens"] = body.pop("tokens")
    return body | {field: value}


@pytest.mark.parametrize(
    ("route", "field"), [(route, field) for route in FIELDS for field in FIELDS[route]]
)
async def test_a_bad_field_is_named_and_refused(
    untouched: httpx.AsyncClient, route: str, field: str
):
    """A field outside of its range is a 422 that names it, whichever format carries it."""
    for value in FIELDS[route][field]:
        body = spoilt(route, field, value)
        answers = [await untouched.post(f"/v1/{route}", json=body)]
        if not _contains_huge(value):
            sent = msgspec.msgpack.encode(body)
            headers = {"content-type": MSGPACK, "accept": JSON}
            answers.append(await untouched.post(f"/v1/{route}", content=sent, headers=headers))
        for answer in answers:
            detail = problem(answer, 422, "invalid")["detail"]
            assert field in detail, (value, detail)
            assert len(detail) < 300


def _contains_huge(value: Any) -> bool:
    return value == HUGE or (isinstance(value, dict) and HUGE in value.values())


@pytest.mark.parametrize("route", HOT)
async def test_a_required_field_that_is_missing_is_named(untouched: httpx.AsyncClient, route: str):
    """An empty object lacks the field that the route cannot do without."""
    required = next(iter(FIELDS[route]))
    answer = await untouched.post(f"/v1/{route}", json={})
    assert required in problem(answer, 422, "invalid")["detail"]


@pytest.mark.parametrize("route", HOT)
@pytest.mark.parametrize(
    "body",
    [b"null", b"7", b'"x"', b"[]", b"true", DEEP],
    ids=["null", "number", "text", "list", "bool", "deep"],
)
async def test_a_body_that_is_no_object_is_invalid(
    untouched: httpx.AsyncClient, route: str, body: bytes
):
    """JSON that is whole but no object is a 422, not a syntax error."""
    problem(await untouched.post(f"/v1/{route}", content=body), 422, "invalid")


def malformed(route: str) -> dict[str, bytes]:
    """Bodies that are no JSON, each one step from a good one."""
    whole = json.dumps(good(route)).encode()
    return {
        "empty": b"",
        "space": b"  ",
        "truncated": whole[:-1],
        "trailing": whole + b" {}",
        "single-quotes": whole.replace(b'"', b"'"),
        "trailing-comma": whole[:-1] + b",}",
        "high-surrogate": whole[:-1] + b', "x": "\\ud800"}',
        "low-surrogate": whole[:-1] + b', "x": "\\udc00"}',
        "swapped-surrogates": whole[:-1] + b', "x": "\\udc00\\ud800"}',
        "deep": b'{"a":' * 10_000,
        "deep-and-closed": b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "byte-order-mark": b"\xef\xbb\xbf" + whole,
        "utf-16": whole.decode().encode("utf-16"),
        "number-without-end": whole[:-1] + b', "x": 1e}',
    }


@pytest.mark.parametrize("route", HOT)
async def test_bytes_that_are_no_json_are_malformed(untouched: httpx.AsyncClient, route: str):
    """A syntax error, whatever its kind, is a 400 with a short detail."""
    for name, body in malformed(route).items():
        answer = await untouched.post(f"/v1/{route}", content=body)
        assert answer.status_code == 400, (name, answer.text)
        assert len(problem(answer, 400, "malformed")["detail"]) <= 300, name


@pytest.mark.parametrize("route", ["acquire", "check"])
@pytest.mark.parametrize("bad", [b"a\xff", b"a\xc0\x80", b"\xed\xa0\x80", b"a\x01b", b"a\nb"])
async def test_a_name_of_bytes_that_are_no_text_is_refused(
    untouched: httpx.AsyncClient, route: str, bad: bytes
):
    """Neither bytes that are no UTF-8 nor raw control characters make a tenant."""
    body = b'{"resource": "p/m", "tokens": 1, "tenant": "' + bad + b'"}'
    answer = await untouched.post(f"/v1/{route}", content=body)
    assert answer.status_code in {400, 422}, answer.text
    problem(answer, answer.status_code, "malformed" if answer.status_code == 400 else "invalid")


@pytest.mark.parametrize(
    ("route", "field"), [(route, field) for route in NUMBERS for field in NUMBERS[route]]
)
async def test_nan_and_infinity_are_malformed_in_json_and_invalid_in_msgpack(
    untouched: httpx.AsyncClient, route: str, field: str
):
    """JSON has no such numbers; msgpack has, and no field takes them."""
    for value in (math.nan, math.inf, -math.inf):
        text = json.dumps(spoilt(route, field, value)).encode()
        problem(await untouched.post(f"/v1/{route}", content=text), 400, "malformed")
        packed = msgspec.msgpack.encode(spoilt(route, field, value))
        headers = {"content-type": MSGPACK, "accept": JSON}
        answer = await untouched.post(f"/v1/{route}", content=packed, headers=headers)
        assert field in problem(answer, 422, "invalid")["detail"]


@pytest.mark.parametrize("route", HOT)
@pytest.mark.parametrize(
    "body",
    [b"", b"\x85\xa1", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x91" * 50_000, b'{"resource": "p/m"}'],
    ids=["empty", "truncated", "reserved", "lying-length", "deep", "json"],
)
async def test_bytes_that_are_no_msgpack_are_refused(
    untouched: httpx.AsyncClient, route: str, body: bytes
):
    """Broken msgpack is a 400 or a 422, answered in the format that the caller asks for."""
    headers = {"content-type": MSGPACK, "accept": JSON}
    answer = await untouched.post(f"/v1/{route}", content=body, headers=headers)
    assert answer.status_code in {400, 422}, answer.text
    problem(answer, answer.status_code, "malformed" if answer.status_code == 400 else "invalid")


@pytest.mark.parametrize("route", HOT)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data", "application/jsonp", "x", ";"]
)
async def test_another_media_type_is_unsupported(
    untouched: httpx.AsyncClient, route: str, kind: str
):
    """A body that is neither JSON nor msgpack is a 415, though its bytes be JSON."""
    answer = await untouched.post(
        f"/v1/{route}", content=json.dumps(good(route)), headers={"content-type": kind}
    )
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("route", HOT)
async def test_a_body_beyond_the_bound_is_too_large(untouched: httpx.AsyncClient, route: str):
    """One byte more than allowed is a 413, whether or not the length was declared."""
    body = json.dumps(good(route)).encode()
    body += b" " * (65_537 - len(body))

    async def chunks() -> AsyncIterator[bytes]:
        yield body[:40_000]
        yield body[40_000:]

    problem(await untouched.post(f"/v1/{route}", content=body), 413, "too_large")
    problem(await untouched.post(f"/v1/{route}", content=chunks()), 413, "too_large")
    fits = await untouched.post(f"/v1/{route}", content=body[:-1].replace(b" 1}", b"0}"))
    assert fits.status_code != 413


@pytest.mark.parametrize("path", ["/v1/acquire", "/v1/resources", "/livez", "/nowhere"])
async def test_a_head_beyond_the_bound_is_refused(untouched: httpx.AsyncClient, path: str):
    """Path, query and headers together are bounded on every route: 431."""
    large = {"x-padding": "x" * 17_000}
    problem(await untouched.post(path, json={}, headers=large), 431, "headers_too_large")
    problem(await untouched.get(f"{path}?q={'x' * 17_000}"), 431, "headers_too_large")


@pytest.mark.parametrize("route", HOT)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_a_hot_route_takes_post_only(untouched: httpx.AsyncClient, route: str, method: str):
    """Another method is a 405 that says which one is allowed."""
    answer = await untouched.request(method, f"/v1/{route}")
    assert answer.headers["allow"] == "POST"
    assert answer.headers["content-type"] == PROBLEM
    assert answer.status_code == 405
    if method != "HEAD":
        problem(answer, 405, "method_not_allowed")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tokens": 1, "input_tokens": 1},
        {"max_output_tokens": 5},
        {"tokens": 1, "max_output_tokens": 5},
        {"tokens": None, "input_tokens": None},
        {"tokens": 9, "cache_read_tokens": 1},
        {"input_tokens": 9, "cache_read_tokens": 10},
        {"input_tokens": 9, "cache_read_tokens": 5, "cache_write_tokens": 5},
    ],
)
@pytest.mark.parametrize("route", ["acquire", "check"])
async def test_exactly_one_way_to_count_tokens_is_taken(
    untouched: httpx.AsyncClient, route: str, fields: dict[str, int | None]
):
    """`tokens` and `input_tokens` exclude each other, and one of them is needed."""
    answer = await untouched.post(f"/v1/{route}", json={"resource": "p/m"} | fields)
    assert "tokens" in problem(answer, 422, "invalid")["detail"]


@pytest.mark.parametrize("resource", ["p/other", "q/m", "P/m", "p/m/x", "p/M"])
@pytest.mark.parametrize("route", ["acquire", "check"])
async def test_what_nobody_configured_is_unknown(
    untouched: httpx.AsyncClient, route: str, resource: str
):
    """A pool or model without configuration is a 404; names are compared exactly."""
    answer = await untouched.post(f"/v1/{route}", json={"resource": resource, "tokens": 1})
    assert problem(answer, 404, "unknown_resource")["resource"] == resource


@pytest.mark.parametrize(
    "lease",
    [
        "x",
        "AAAA",
        "-" * 2000,
        "a.b.c",
        # Whole lease ids, of a pool and of a request that do not exist.
        "laFwoW2nZGVmYXVsdKFyAQ",
        "laFxoW2nZGVmYXVsdKFyAQ",
    ],
)
@pytest.mark.parametrize("route", ["settle", "renew"])
async def test_a_lease_that_was_never_granted_is_unknown(
    untouched: httpx.AsyncClient, route: str, lease: str
):
    """Made-up lease ids are a 404, whether or not they can be decoded."""
    problem(await untouched.post(f"/v1/{route}", json={"lease": lease}), 404, "unknown_lease")


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "x" * 201, "\xe9"])
async def test_a_bad_idempotency_key_is_refused(untouched: httpx.AsyncClient, key: str):
    """The header obeys the rules of `request_id`."""
    headers = {"idempotency-key": key.encode("latin-1")}
    answer = await untouched.post("/v1/acquire", json=good("acquire"), headers=headers)
    assert "Idempotency-Key" in problem(answer, 422, "invalid")["detail"]


async def test_two_different_idempotency_keys_are_refused(untouched: httpx.AsyncClient):
    """A header and a field that disagree leave it open which request this is."""
    body = good("acquire") | {"request_id": "a"}
    answer = await untouched.post("/v1/acquire", json=body, headers={"idempotency-key": "b"})
    problem(answer, 422, "invalid")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/resources/p/other",
        "/v1/resources/q/m",
        "/v1/resources/p/m%00",
        "/v1/resources/%ff/%fe",
        f"/v1/resources/p/{'m' * 5000}",
        f"/v1/resources/{'p' * 5000}/m",
    ],
)
async def test_a_resource_that_cannot_be_is_not_found(untouched: httpx.AsyncClient, path: str):
    """A view of what is not configured is a 404, of what cannot be named a 422: both short."""
    answer = await untouched.get(path)
    known = {404: "unknown_resource", 422: "invalid"}
    assert len(problem(answer, answer.status_code, known[answer.status_code])["detail"]) < 300


@pytest.mark.parametrize("model", ["a%00b", "a%20b", "%C3%A9", "x" * 400])
async def test_a_wildcard_takes_no_model_that_no_acquire_could_name(serve: Any, model: str):
    """Names that `acquire` refuses do not enter the list of resources by a view."""
    client = await serve('pools: {p: {models: {"*": {rpm: 10}}}}')
    answer = await client.get(f"/v1/resources/p/{model}")
    assert answer.status_code in {404, 422}
    assert (await client.get("/v1/resources")).json() == {"resources": []}


@pytest.mark.parametrize("tenant", ["", "a%20b", "%00", "%ED%A0%80", "x" * 201])
@pytest.mark.parametrize("path", ["/v1/resources", "/v1/resources/p/m"])
async def test_a_bad_tenant_in_a_query_is_invalid(
    untouched: httpx.AsyncClient, path: str, tenant: str
):
    """The query obeys the rules of the field, and is not echoed."""
    detail = problem(await untouched.get(f"{path}?tenant={tenant}"), 422, "invalid")["detail"]
    assert "tenant" in detail
    assert "x" * 9 not in detail


async def test_one_bad_operation_spoils_no_other(client: httpx.AsyncClient):
    """In a batch, each refusal stands in its own place, and the good ones are served."""
    ops = [
        {"op": "acquire", "resource": "p/m", "tokens": 10},
        {"op": "acquire", "resource": "p/m", "tokens": -1},
        {"op": "dance"},
        {},
        7,
        None,
        [],
        {"op": "settle", "lease": "x"},
        {"op": "acquire", "resource": "q/m", "tokens": 1},
        {"op": "acquire", "resource": "p/m", "tokens": 5000},
        {"op": "batch", "ops": []},
        {"op": "check", "resource": "p/m", "tokens": 1},
    ]
    results = (await ask(client, "batch", ops=ops))["results"]
    assert [result["status"] for result in results] == [
        *(200, 422, 422, 422, 422, 422, 422, 404, 404, 422, 422, 200),
    ]
    assert results[9]["body"]["code"] == "never_fits"
    levels = await view(client)
    assert (levels["m.budget"]["remaining"], levels["m.calls"]["remaining"]) == (990, 99)


async def test_an_error_does_not_repeat_the_input(untouched: httpx.AsyncClient):
    """Secrets that were sent by mistake do not come back in an answer."""
    secret = "sk-" + "s3cret" * 10
    bodies = [
        {"resource": "p/m", "tokens": secret},
        {"resource": "p/m", "tokens": 1, "tenant": f"{secret} "},
        {"resource": "p/m", "tokens": 1, "priority": secret},
    ]
    for body in bodies:
        answer = await untouched.post("/v1/acquire", json=body)
        assert secret not in answer.text
