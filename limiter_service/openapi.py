"""One OpenAPI 3.1 document for all routes: FastAPI's own and the hot ones in front of it."""

import inspect
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from limiter_service.door import HOT_ROLES, Needs, need_of, routes_of
from limiter_service.http import JSON, MSGPACK
from limiter_wire import (
    Acquire,
    BatchAnswer,
    BatchRequest,
    BreakerList,
    BreakerView,
    Checked,
    ConfigText,
    ConfigVerdict,
    ConfigView,
    CreatedKey,
    Drain,
    Event,
    FleetView,
    Granted,
    KeyList,
    KeyView,
    LimitOverride,
    LimitView,
    Live,
    LogLevelOrder,
    NewKey,
    Noticed,
    Observe,
    Override,
    Past,
    Problem,
    QueueView,
    Reloaded,
    ReloadOrder,
    Renew,
    Renewed,
    ResourceList,
    ResourceView,
    Role,
    Settle,
    Settled,
    Stats,
    Waiting,
)

_REFERENCE = "#/components/schemas/{name}"
_COMMON = (400, 408, 413, 415, 422, 431, 500)
_KEYED = (401, 403, 429, 503)
_SCHEME = "apiKey"
_SCHEMES = {
    _SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "sg_<id>_<secret>",
        "description": "An API key. An operation names the roles of which it takes one; `admin` "
        "contains the others. A service without keys on loopback, or one that was started with "
        "`--allow-anonymous`, serves callers without a key.",
    }
}
_HOT: dict[str, tuple[type, type, str, tuple[int, ...]]] = {
    "/v1/acquire": (
        Acquire,
        Granted,
        "Reserve budget on every limit, or none",
        (404, 409, 429, 503),
    ),
    "/v1/settle": (Settle, Settled, "Replace a reservation by what was used", (404, 410, 503)),
    "/v1/renew": (Renew, Renewed, "Keep a lease alive", (404, 410, 503)),
    "/v1/check": (Acquire, Checked, "What an acquire would answer; changes nothing", (404, 503)),
    "/v1/observe": (Observe, Noticed, "What a provider said to a call without a lease", (404, 503)),
    "/v1/batch": (BatchRequest, BatchAnswer, "Operations side by side", ()),
}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/acquire": {"resource": "openai/gpt-4o", "tokens": 1200},
    "/v1/settle": {
        "lease": "THE-LEASE-OF-AN-ACQUIRE",
        "outcome": "success",
        "usage": {"input_tokens": 800, "output_tokens": 350},
    },
    "/v1/renew": {"lease": "THE-LEASE-OF-AN-ACQUIRE"},
    "/v1/check": {"resource": "openai/gpt-4o", "tokens": 1200, "tenant": "checkout"},
    "/v1/observe": {
        "resource": "openai/gpt-4o",
        "status": 429,
        "headers": {"retry-after": "20"},
    },
    "/v1/batch": {"ops": [{"op": "acquire", "resource": "openai/gpt-4o", "tokens": 1200}]},
}
"""Bodies that say what a call usually says."""

_TITLES = {
    200: "Done",
    202: "Waiting: ask again with the same request_id",
    400: "Malformed body",
    401: "No valid API key",
    403: "The API key does not allow this",
    404: "Unknown resource or lease",
    405: "Method not allowed",
    408: "Body too slow",
    409: "Conflict",
    410: "Lease expired or settled",
    413: "Body too large",
    415: "Unsupported media type",
    422: "Invalid field, or can never fit",
    429: "Rate limited",
    431: "Head too large",
    500: "Internal error",
    503: "Unavailable; see Retry-After",
}


class Health(msgspec.Struct, frozen=True):
    """The answer of a probe; `checks` only with `?verbose`."""

    status: str
    checks: dict[str, str] | None = None


def answers(name: str, *problems: int) -> dict[int | str, dict[str, Any]]:
    """The documented answers of an ordinary route."""
    good: dict[int | str, dict[str, Any]] = {200: _answer(200, name)}
    return good | {status: _problem(status) for status in (*problems, 413, 431, 500)}


def takes(name: str) -> dict[str, Any]:
    """The documented body of an ordinary route."""
    content = {kind: {"schema": _reference(name)} for kind in (JSON, MSGPACK)}
    return {"requestBody": {"required": True, "content": content}}


def streams(names: tuple[str, ...], *problems: int) -> dict[int | str, dict[str, Any]]:
    """The documented answers of a route whose answer is a stream of events of these types."""
    found = answers(names[0], *problems)
    schemas = [_reference(name) for name in names]
    schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
    content = {"text/event-stream": {"schema": schema}}
    return found | {200: {"description": _TITLES[200], "content": content}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=name)}


def _answer(status: int, name: str, *kinds: str) -> dict[str, Any]:
    content = {kind: {"schema": _reference(name)} for kind in kinds or (JSON,)}
    return {"description": _TITLES[status], "content": content}


def _problem(status: int, *kinds: str) -> dict[str, Any]:
    return _answer(status, "Problem", "application/problem+json", *kinds)


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        whole = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            openapi_version="3.1.0",
        )
        types: list[type] = [Problem, Health, ResourceList, ResourceView, QueueView, Stats, Waiting]
        types += [BreakerList, BreakerView, Override, Event, LimitOverride, LimitView]
        types += [Live, Past]
        types += [NewKey, CreatedKey, KeyView, KeyList]
        types += [FleetView, Drain, LogLevelOrder]
        types += [ConfigView, ConfigText, ConfigVerdict, ReloadOrder, Reloaded]
        types += [kind for request, answer, *_ in _HOT.values() for kind in (request, answer)]
        _, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
        whole.setdefault("components", {}).setdefault("schemas", {}).update(components)
        for path, (request, answer, summary, problems) in _HOT.items():
            whole["paths"][path] = {"post": _operation(path, request, answer, summary, problems)}
        whole["components"]["securitySchemes"] = _SCHEMES
        _say_who_may(whole, app)
        _dedent(whole)
        whole["paths"] = dict(sorted(whole["paths"].items()))
        app.openapi_schema = whole
    return app.openapi_schema


def _say_who_may(whole: dict[str, Any], app: FastAPI) -> None:
    """Add to each operation the roles that it takes, and what is answered without them."""
    for route in routes_of(app):
        need = need_of(route)
        if isinstance(route, APIRoute) and isinstance(need, Needs) and route.include_in_schema:
            for method in route.methods or ():
                _keyed(whole["paths"][route.path_format][method.lower()], need.roles)
    for path in _HOT:
        _keyed(whole["paths"][path]["post"], HOT_ROLES[path], MSGPACK)


def _keyed(operation: dict[str, Any], roles: tuple[Role, ...], *kinds: str) -> None:
    operation["security"] = [{_SCHEME: [str(role)]} for role in roles] or [{_SCHEME: []}]
    said = operation["responses"]
    for status in _KEYED:
        said.setdefault(str(status), _problem(status, *kinds))
    operation["responses"] = dict(sorted(said.items()))


def _dedent(part: Any) -> None:
    """Docstrings come with the indentation of the source, which Markdown takes for code."""
    if isinstance(part, list):
        for each in part:
            _dedent(each)
    elif isinstance(part, dict):
        if isinstance(part.get("description"), str):
            part["description"] = inspect.cleandoc(part["description"])
        for each in part.values():
            _dedent(each)


def _operation(
    path: str, request: type, answer: type, summary: str, problems: tuple[int, ...]
) -> dict[str, Any]:
    kinds = (JSON, MSGPACK)
    body = {
        kind: {"schema": _reference(request.__name__), "example": _EXAMPLES[path]} for kind in kinds
    }
    operation: dict[str, Any] = {
        "operationId": path.rpartition("/")[2],
        "tags": ["budget"],
        "summary": summary,
        "requestBody": {"required": True, "content": body},
        "responses": {
            "200": _answer(200, answer.__name__, *kinds),
            **{str(s): _problem(s, MSGPACK) for s in sorted((*_COMMON, *problems))},
        },
    }
    if request is Acquire and answer is Granted:
        operation["responses"]["202"] = _answer(202, "Waiting", *kinds)
        operation["parameters"] = [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "In place of `request_id`",
                "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
            }
        ]
    return operation
