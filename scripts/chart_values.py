"""What values.yaml of the chart says of itself: its JSON schema, and the table of the reference.

Each key that is set as a whole carries a comment `# -- Meaning.`, and where its value does not
show what it may hold, `# @schema {...}` with what to add. Keys without a comment are groups.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from limiter_service.config import Config
from limiter_service.settings import Settings

CHART = Path(__file__).parents[1] / "helm/sluicegate"
SCHEMA = CHART / "values.schema.json"

# The chart gives these itself: addresses, files, and what belongs into a Secret.
OF_THE_CHART = {
    "admin_key",
    "admin_key_file",
    "allow_anonymous",
    "config",
    "host",
    "metrics_open",
    "port",
    "redis_ca",
    "redis_certificate",
    "redis_key",
    "redis_url",
    "sentinel_password",
    "state_dir",
    "tls_certificate",
    "tls_key",
    "workers",
}


class Value(NamedTuple):
    """One documented key."""

    path: tuple[str, ...]
    default: Any
    meaning: str
    schema: dict[str, Any]


class UndocumentedError(Exception):
    """A key without a comment, or a comment that cannot be read."""


def values() -> list[Value]:
    """Every documented key, in the order of the file."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return list(_walk(root, (), text.splitlines()))


def _walk(node: yaml.Node | None, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        here = (*path, key.value)
        comments = _above(key.start_mark.line, lines)
        if any(line.startswith("-- ") for line in comments):
            yield _value(here, value, comments)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _walk(value, here, lines)
        else:
            raise UndocumentedError(f"values.yaml: {'.'.join(here)} has no comment")


def _above(line: int, lines: list[str]) -> list[str]:
    found: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().removeprefix("#").strip())
    return found


def _value(path: tuple[str, ...], node: yaml.Node, comments: list[str]) -> Value:
    words = [line for line in comments if not line.startswith("@schema ")]
    extra = [line.removeprefix("@schema ") for line in comments if line.startswith("@schema ")]
    default = yaml.safe_load(yaml.serialize(node))
    schema = {"type": _TYPES[type(default)]} | (json.loads(extra[0]) if extra else {})
    match schema.pop("like", None):
        case "settings":
            schema |= _settings()
        case "pools file":
            schema = {"$ref": "#/$defs/Config"}
        case _:
            pass
    if schema.get("type") == "object" and not {"properties", "additionalProperties"} & set(schema):
        raise UndocumentedError(f"values.yaml: {'.'.join(path)} does not say what it may hold")
    return Value(path, default, " ".join(words).removeprefix("-- "), schema)


_TYPES = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}


def _settings() -> dict[str, Any]:
    """The settings of the process that a release may choose."""
    fields = Settings.model_json_schema()["properties"]
    own = {n: _slim(f) for n, f in sorted(fields.items()) if n not in OF_THE_CHART}
    return {"properties": own, "additionalProperties": False}


def _pools_file() -> dict[str, Any]:
    """The Structs of the pools file, so that a bad one is refused before it is installed."""
    _, found = msgspec.json.schema_components([Config], ref_template="#/$defs/{name}")
    return {name: _plain(kind) for name, kind in sorted(found.items())}


def _plain(schema: Any) -> Any:  # any JSON
    """Without defaults, and without the lookahead that helm's expressions do not know."""
    match schema:
        case {"properties": dict(properties), **rest}:
            return _plain(rest) | {"properties": {n: _plain(p) for n, p in properties.items()}}
        case dict():
            return {k: _plain(v) for k, v in schema.items() if k not in {"default", "title"}}
        case list():
            return [_plain(item) for item in schema]
        case str():
            return schema.replace(r"(?!\n)", "")
        case _:
            return schema


def _slim(field: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    kept = ("type", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum")
    return {name: kinds[0][name] for name in kept if name in kinds[0]}


def schema() -> str:
    """values.schema.json: no key that values.yaml does not have."""
    root = _closed("Values of the Sluicegate chart")
    # Charts that have this one as a dependency hand their `global` to it.
    root["properties"]["global"] = {"type": "object"}
    for value in values():
        node = root
        for part in value.path[:-1]:
            node = node["properties"].setdefault(part, _closed())
        node["properties"][value.path[-1]] = {"description": value.meaning, **value.schema}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(head | root | {"$defs": _pools_file()}, indent=2) + "\n"


def _closed(title: str | None = None) -> dict[str, Any]:
    about = {"title": title} if title else {}
    return {**about, "type": "object", "additionalProperties": False, "properties": {}}


def rows() -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of each, for a table; keys that hold text are in backticks."""
    for value in values():
        default = json.dumps(value.default, ensure_ascii=False)
        yield f"`{'.'.join(value.path)}`", f"`{default}`", value.meaning
