"""The OpenAPI document is valid, complete, and true."""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, given, reject, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from tests_support.keys import ADMIN, bearer, id_of, make
from tests_support.leavings import left_in
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until

# OPENAPI_EXAMPLES=100 asks for longer.
_EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "8"))
ENDLESS = ("/v1/events", "/v1/live")
SILENT = {"/livez", "/v1/config", "/v1/replicas"}  # these take nothing
OPERATIONS = [
    ("DELETE", "/v1/breakers/{pool}/{model}/override"),
    ("DELETE", "/v1/drain"),
    ("DELETE", "/v1/keys/{key_id}"),
    ("DELETE", "/v1/limits/{pool}/{model}/{name}/override"),
    ("DELETE", "/v1/log-level"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/v1/breakers"),
    ("GET", "/v1/breakers/{pool}/{model}"),
    ("GET", "/v1/config"),
    ("GET", "/v1/events"),
    ("GET", "/v1/keys"),
    ("GET", "/v1/live"),
    ("GET", "/v1/queue/{pool}"),
    ("GET", "/v1/replicas"),
    ("GET", "/v1/resources"),
    ("GET", "/v1/resources/{pool}/{model}"),
    ("GET", "/v1/stats"),
    ("POST", "/v1/acquire"),
    ("POST", "/v1/batch"),
    ("POST", "/v1/breakers/{pool}/{model}/reset"),
    ("POST", "/v1/check"),
    ("POST", "/v1/config/reload"),
    ("POST", "/v1/config/validate"),
    ("POST", "/v1/keys"),
    ("POST", "/v1/observe"),
    ("POST", "/v1/renew"),
    ("POST", "/v1/settle"),
    ("PUT", "/v1/breakers/{pool}/{model}/override"),
    ("PUT", "/v1/drain"),
    ("PUT", "/v1/limits/{pool}/{model}/{name}/override"),
    ("PUT", "/v1/log-level"),
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
CONFIG = """
pools:
  p: {models: {"*": {rpm: 100, tpm: 100000, concurrency: 50}}}
"""


@pytest.fixture(scope="module")
def url(own_store: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service in a process of its own."""
    config = tmp_path_factory.mktemp("openapi") / "pools.yaml"
    config.write_text(CONFIG)
    arguments = ("--config", str(config), "--redis-url", own_store.url)
    with ServiceProcess(*arguments, env={"SLUICEGATE_ADMIN_KEY": ADMIN}) as running:
        yield running.url


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    """What the service says about itself."""
    answer: dict[str, Any] = httpx.get(f"{url}/openapi.json", headers=bearer(ADMIN)).json()
    return answer


@pytest.fixture(scope="module")
def schema(url: str, document: dict[str, Any]) -> BaseSchema:
    """The document as schemathesis reads it; the keys of its callers are ours to send."""
    # Beside what it expects by itself, too large a body is a documented refusal here (413).
    refusals = {"expected-statuses": [400, 404, 405, 408, 409, 413, 415, 422, 429, 431, 503]}
    config = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": refusals}})
    keyless = {
        path: {
            method: {name: part for name, part in operation.items() if name != "security"}
            for method, operation in item.items()
        }
        for path, item in document["paths"].items()
    }
    schema = schemathesis.openapi.from_dict(document | {"paths": keyless}, config=config)
    schema.config.update(base_url=url)
    return schema


@schemathesis.serializer("application/msgpack")
def _pack(context: object, value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):  # what JSON can say and msgpack cannot
        reject()


@schemathesis.deserializer("application/msgpack")
def _unpack(context: object, response: Any) -> object:
    return msgspec.msgpack.decode(response.content)


@pytest.fixture
def db(own_store: Server, url: str) -> Iterator[redis.Redis]:
    """An empty store, and a replica that has heard of it: it may have been drained. What is ordered
    until it is cleared is gone with the test.
    """
    with redis.Redis(unix_socket_path=str(own_store.socket)) as store:
        store.flushall()
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success, "the replica is not ready")
        yield store
        store.flushall()


def test_every_route_is_documented_and_every_document_is_a_route(
    document: dict[str, Any], url: str
):
    """Each operation of the document is answered, and none that is answered is missing."""
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    assert sorted(found) == OPERATIONS
    assert document["openapi"] == "3.1.0"
    key_id = id_of(make(url, "spare", "read"))
    for method, path in OPERATIONS:
        asked = path.format(pool="p", model="m", name="rpm", key_id=key_id)
        with httpx.stream(method, f"{url}{asked}", headers=bearer(ADMIN)) as answer:
            assert answer.status_code not in {404, 405}, asked


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]):
    """No dangling `$ref`, and nothing in the components that nobody mentions."""
    used: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                used.add(node["$ref"].removeprefix("#/components/schemas/"))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    assert used == set(document["components"]["schemas"])


def test_the_document_is_valid(schema: BaseSchema):
    """It is OpenAPI 3.1, and each operation can be read."""
    schema.validate()
    operations = [result.ok() for result in schema.get_all_operations()]
    assert sorted((each.method.upper(), each.path) for each in operations) == OPERATIONS


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (method, path, mode)
        for method, path in OPERATIONS
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if path not in SILENT or mode is GenerationMode.POSITIVE
        if (method, path) != ("GET", "/v1/keys") or mode is GenerationMode.POSITIVE
        if path not in ENDLESS
    ],
)
def test_answers_are_as_documented(
    schema: BaseSchema, db: redis.Redis, method: str, path: str, mode: GenerationMode
):
    """Whatever is sent: no failure of the service, no undocumented status, type or body."""
    operation = schema[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=[*HealthCheck]
    )
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS, headers=bearer(ADMIN))

    send()


def test_every_operation_says_who_may_call_it(document: dict[str, Any]):
    """Probes are for everybody; the others name the scheme and the roles, 401 and 403."""
    (scheme,) = document["components"]["securitySchemes"]
    roles = {"acquire", "read", "admin"}
    for method, path in OPERATIONS:
        operation = document["paths"][path][method.lower()]
        if path in {"/livez", "/readyz"}:
            assert "security" not in operation
            continue
        assert all(set(way[scheme]) <= roles and way[scheme] for way in operation["security"])
        assert {"401", "403", "429", "503"} <= set(operation["responses"])


@pytest.mark.parametrize(
    ("method", "path"), [each for each in OPERATIONS if each[1] not in {"/livez", "/readyz"}]
)
def test_nothing_is_answered_without_a_key(
    schema: BaseSchema, db: redis.Redis, method: str, path: str
):
    """Whatever is sent, with no key or an unknown one: 401, and nothing of the request is looked
    at.
    """
    operation = schema[path][method]

    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    @settings(max_examples=2, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    def send(case: schemathesis.Case) -> None:
        for headers in ({}, bearer("sg_ffff_" + "k" * 43)):
            answer = case.call(headers=headers)
            case.validate_response(answer, checks=[status_code_conformance])
            assert answer.status_code in {401, 429}, answer.text
            codes = (b"unauthenticated", b"too_many_failures")  # in JSON or msgpack
            assert any(code in answer.content for code in codes)
        assert left_in(db) == set()

    send()
