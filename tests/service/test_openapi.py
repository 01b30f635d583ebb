"""The OpenAPI document is valid, complete, and true."""

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
from tests_support.servers import Server
from tests_support.service import ServiceProcess

from limiter_service.store.keys import FleetKeys

# The document says nothing about the store, so one kind of it is enough.
pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)

ENDLESS = "/v1/events"
SILENT = {"/livez", "/v1/stats", "/v1/config", "/v1/replicas"}  # these take nothing
OPERATIONS = [
    ("DELETE", "/v1/breakers/{pool}/{model}/override"),
    ("DELETE", "/v1/drain"),
    ("DELETE", "/v1/limits/{pool}/{model}/{name}/override"),
    ("DELETE", "/v1/log-level"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/v1/breakers"),
    ("GET", "/v1/breakers/{pool}/{model}"),
    ("GET", "/v1/config"),
    ("GET", ENDLESS),
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
def url(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service in a process of its own."""
    config = tmp_path_factory.mktemp("openapi") / "pools.yaml"
    config.write_text(CONFIG)
    with ServiceProcess("--config", str(config), "--redis-url", server.url) as running:
        yield running.url


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    """What the service says about itself."""
    answer: dict[str, Any] = httpx.get(f"{url}/openapi.json").json()
    return answer


@pytest.fixture(scope="module")
def schema(url: str) -> BaseSchema:
    """The document as schemathesis reads it."""
    # Beside what it expects by itself, too large a body is a documented refusal here (413).
    refusals = {"expected-statuses": [400, 404, 405, 408, 409, 413, 415, 422, 429, 431, 503]}
    config = SchemathesisConfig.from_dict({"checks": {"negative_data_rejection": refusals}})
    return schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)


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
def orders(db: redis.Redis) -> Iterator[None]:
    """What was ordered until it is cleared is cleared."""
    yield
    db.delete(FleetKeys().orders())


def test_every_route_is_documented_and_every_document_is_a_route(
    document: dict[str, Any], url: str
):
    """Each operation of the document is answered, and none that is answered is missing."""
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    assert sorted(found) == OPERATIONS
    assert document["openapi"] == "3.1.0"
    for method, path in OPERATIONS:
        asked = path.format(pool="p", model="m", name="rpm")
        with httpx.stream(method, f"{url}{asked}") as answer:
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
        if path != ENDLESS
    ],
)
def test_answers_are_as_documented(
    schema: BaseSchema, orders: None, method: str, path: str, mode: GenerationMode
):
    """Whatever is sent: no failure of the service, no undocumented status, type or body."""
    operation = schema[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    def send(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    send()
