"""Write docs/reference from the code, or check (`--check`) that it is current.

The tables come from the configuration's Structs, the OpenAPI document that the service
serves, the settings and the command line. Introductions, and the meaning of what has no
docstring of its own, stand beside this script in reference_parts/.
"""

import ast
import asyncio
import enum
import inspect
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import annotated_types
import chart_values
import httpx
import msgspec
import provider_tables
import typer
from msgspec import inspect as mi
from pydantic import SecretStr

from limiter_service import config, prices
from limiter_service.app import create_app
from limiter_service.cli import app as command_line
from limiter_service.engine.charging import NOT_SERVED
from limiter_service.monitoring import families
from limiter_service.pools import Pools
from limiter_service.settings import PREFIX, Settings
from limiter_wire import ErrorCode, Outcome, status_of, title_of

ROOT = Path(__file__).parents[1]
PARTS = Path(__file__).parent / "reference_parts"
TARGET = ROOT / "docs" / "reference"
HEADER = "<!-- Written by scripts/reference.py. Edit the code or scripts/reference_parts. -->\n"

Rows = Iterable[Sequence[str]]

# Sections of the pools file, in the order of the page; each type is linked to its heading.
SECTIONS: dict[type[msgspec.Struct], str] = {
    config.Config: "The file",
    config.PoolConfig: "Pool",
    config.ModelConfig: "Model",
    config.TenantConfig: "Tenant",
    config.Limited: "Limits of a section",
    config.LimitConfig: "Limit",
    config.RampConfig: "Ramp",
    prices.PriceConfig: "Price",
    prices.LongPrice: "Price of long requests",
    config.QueueConfig: "Queue",
    config.BreakerConfig: "Breaker",
    config.BlocksConfig: "Blocks",
}


def main(arguments: list[str]) -> int:
    """Write or check every page; 0 when all is well."""
    meanings = Meanings(PARTS / "meanings.toml")
    pages = {
        "configuration.md": configuration(),
        "http-api.md": http_api(asyncio.run(openapi()), meanings),
        "settings.md": settings(meanings),
        "cli.md": cli(),
        "providers.md": providers(),
        "metrics.md": metrics(),
        "chart.md": chart(),
    }
    unused = meanings.unused()
    for name in unused:
        print(f"reference: {name} in meanings.toml describes nothing")
    files = {TARGET / name: text for name, text in pages.items()}
    files[chart_values.SCHEMA] = chart_values.schema()
    stale = [path for path, text in files.items() if _read(path) != text]
    if "--check" in arguments:
        for path in stale:
            print(f"reference: {path.relative_to(ROOT)} is stale; run scripts/reference.py")
        return 1 if stale or unused else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
    print(f"reference: wrote {len(stale)} files")
    return 1 if unused else 0


class Meanings:
    """What fields mean that carry no docstring: one table per type, each entry needed."""

    def __init__(self, path: Path) -> None:
        self._tables: dict[str, dict[str, str]] = tomllib.loads(path.read_text(encoding="utf-8"))
        self._used: set[str] = set()

    def of(self, kind: str, field: str) -> str:
        """The meaning of *field*. Raises KeyError when the table has none."""
        self._used.add(f"{kind}.{field}")
        return self._tables[kind][field]

    def unused(self) -> list[str]:
        """Entries that no field asked for: a typo, or a field that is gone."""
        known = {f"{kind}.{field}" for kind, table in self._tables.items() for field in table}
        return sorted(known - self._used)


# Pages.


def configuration() -> str:
    """The pools file: one table per section."""
    parts = [_part("configuration.md")]
    for kind, title in SECTIONS.items():
        own = [f for f in _fields(kind) if kind is config.Limited or f.name not in _SHARED]
        meanings = attribute_docs(kind)
        parts.append(f"## {title}\n\n{inspect.getdoc(kind)}\n")
        if len(own) < len(_fields(kind)):
            parts.append(f"Takes the [limits of a section](#{_anchor('Limits of a section')}).\n")
        rows = [(_code(f.name), _kind(f.type), _default(f), meanings[f.name]) for f in own]
        if rows:
            parts.append(_table(("Field", "Type", "Default", "Meaning"), rows))
        if kind is config.Limited:
            parts.append("The short forms stand for these limits:\n")
            parts.append(_table(("Short form", "The same in the long form"), _short_forms()))
    return _page(parts)


def http_api(document: dict[str, Any], meanings: Meanings) -> str:
    """Every route of the OpenAPI document, every type, every error code."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    parts = [_part("http-api.md"), "## Routes\n"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _route(path, method, operation)
    parts += [_part("channel.md"), "## Error codes\n", _part("errors.md")]
    codes = sorted(_codes(in_use=True), key=status_of)
    rows = [(str(status_of(code)), _code(code), title_of(code)) for code in codes]
    parts.append(_table(("Status", "Code", "Title"), rows))
    if reserved := ", ".join(_code(code) for code in _codes(in_use=False)):
        parts.append(f"Reserved for later versions, and never sent by this one: {reserved}.\n")
    parts.append("## Types\n")
    for name, schema in sorted(schemas.items()):
        if name in _ELSEWHERE:
            continue
        parts.append(f"### {name}\n\n{_text(schema.get('description', ''))}\n")
        if "enum" in schema:
            parts.append(_values(name, schema["enum"]))
        else:
            parts.append(_struct(name, schema, meanings))
    return _page(parts)


def settings(meanings: Meanings) -> str:
    """What the process can be told."""
    options = {p.name: p.opts[0] for p in _commands()["serve"].params}
    docs = attribute_docs(Settings)
    rows = []
    for name, field in Settings.model_fields.items():
        meaning = docs.get(name) or meanings.of("Settings", name)
        kind = _annotation(field.annotation, field.metadata)
        default = "none" if field.default is None else _code(str(field.default))
        option = _code(options[name]) if name in options else ""
        rows.append((_code(PREFIX + name.upper()), option, kind, default, meaning))
    heads = ("Environment", "Option", "Type", "Default", "Meaning")
    return _page([_part("settings.md"), _table(heads, rows)])


def cli() -> str:
    """Every verb with its options."""
    parts = [_part("cli.md")]
    for verb, command in _commands().items():
        parts.append(f"## sluicegate {verb}\n\n{inspect.cleandoc(command.help or '')}\n")
        hints = get_type_hints(command.callback.__wrapped__, include_extras=False)
        rows = []
        for p in command.params:
            names = [*p.opts, *p.secondary_opts] if p.opts[0].startswith("-") else [p.name.upper()]
            default = "" if p.default is None else _code(_shown(p.default))
            kind = _annotation(hints[p.name], _range(p))
            rows.append((" ".join(map(_code, names)), kind, default, p.help or ""))
        if rows:
            parts.append(_table(("Option", "Type", "Default", "Meaning"), rows))
    return _page(parts)


def providers() -> str:
    """What is known of each provider."""
    parts = [_part("providers.md")]
    for title, about, (heads, rows) in provider_tables.chapters():
        parts += [f"## {title}\n", f"{about}\n", _table(heads, rows)]
    return _page(parts)


def metrics() -> str:
    """Every metric, from the table that the registry is made from."""
    parts = [_part("metrics.md")]
    for title, chapter in families.CHAPTERS.items():
        rows = [
            (
                _code(each.shown),
                each.kind,
                ", ".join(map(_code, each.labels)),
                each.text,
                f"{each.bound:,}",
            )
            for each in chapter
        ]
        parts += [f"## {title}\n", _table(("Metric", "Kind", "Labels", "Meaning", "At most"), rows)]
    parts.append(
        f"Together {len(families.FAMILIES)} metrics, of at most {families.BOUND:,} series; those "
        "of the Python process (`process_*`, `python_info`) come on top.\n"
    )
    return _page(parts)


def chart() -> str:
    """What the Helm chart can be told."""
    return _page([_part("chart.md"), _table(("Key", "Default", "Meaning"), chart_values.rows())])


async def openapi() -> dict[str, Any]:
    """The document as a client gets it; nothing is connected for it."""
    service = create_app(Settings(allow_anonymous=True), "unix:///nowhere", Pools(None))
    transport = httpx.ASGITransport(service)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


# Configuration.


def _fields(kind: type[msgspec.Struct]) -> tuple[mi.Field, ...]:
    described = mi.type_info(kind)
    assert isinstance(described, mi.StructType)
    return described.fields


_SHARED = {field.name for field in _fields(config.Limited)}


def attribute_docs(kind: type) -> dict[str, str]:
    """The strings that stand below the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not base.__module__.startswith("limiter_"):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, doc in zip(body.body, body.body[1:], strict=False):
            match field, doc:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                    found[name] = " ".join(text.split())
                case _:
                    pass  # a docstring, a method, a field that says nothing
    return found


def _kind(kind: mi.Type) -> str:
    """A msgspec type for people."""
    match kind:
        case mi.Metadata(type=inner):
            return "duration" if inner == _DURATION else _kind(inner)
        case mi.UnionType(types=types):
            return " or ".join(_kind(t) for t in types if not isinstance(t, mi.NoneType))
        case mi.BoolType():
            return "boolean"
        case mi.IntType():
            return "integer" + _bounds(kind.gt, kind.ge, kind.le)
        case mi.FloatType():
            return "number" + _bounds(kind.gt, kind.ge, kind.le)
        case mi.StrType(pattern=pattern):
            return "text" if pattern is None else f"text like {_like(pattern)}"
        case mi.LiteralType(values=values):
            return ", ".join(_code(str(value)) for value in values)
        case mi.EnumType(cls=cls):
            return ", ".join(_code(str(member.value)) for member in cls)
        case mi.ListType(item_type=item):
            return f"list of {_kind(item)}"
        case mi.DictType(key_type=key, value_type=value):
            names = "names" if isinstance(key, mi.StrType) else _kind(key)
            return f"mapping of {names} to {_kind(value)}"
        case mi.StructType(cls=cls):
            return f"[{SECTIONS[cls].lower()}](#{_anchor(SECTIONS[cls])})"
        case _:
            raise TypeError(f"no words for {kind}")


_DURATION = mi.UnionType((mi.FloatType(), mi.StrType()))


def _default(field: mi.Field) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return "empty"
    if field.default is None:
        return "none"
    if isinstance(field.default, msgspec.Struct):
        return "its defaults"
    if isinstance(field.type, mi.Metadata):
        return _code(f"{field.default:g}s")
    return _code(str(field.default))


def _short_forms() -> Iterator[tuple[str, str]]:
    for name, limit in config.SHORT_FORMS.items():
        per = "" if limit.per is None else f", per: {limit.per}"
        yield _code(f"{name}: N"), _code(f"{{name: {name}, meter: {limit.meter}, limit: N{per}}}")


# HTTP API.

# Explained above its table.
_ELSEWHERE = {"ErrorCode": "error-codes"}


def _route(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    about = operation.get("description") or operation["summary"]
    yield f"### {method.upper()} {path}\n\n{_text(about).rstrip('.')}.\n"
    yield _needs(operation)
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        (name,) = {_name(body["schema"]) for body in content.values()}
        yield f"Body: {_link(name)}, as {' or '.join(map(_code, content))}.\n"
    if parameters := operation.get("parameters"):
        rows = [
            (
                _code(p["name"]),
                p["in"],
                _schema(p["schema"]),
                "required" if p.get("required") else _code(str(p["schema"].get("default", ""))),
                p.get("description", ""),
            )
            for p in parameters
        ]
        yield _table(("Parameter", "In", "Type", "Default", "Meaning"), rows)
    answers = sorted(operation["responses"].items())
    kinds = [
        (status, name)
        for status, answer in answers
        for name in _names(next(iter(answer["content"].values()))["schema"])
    ]
    good = [f"{status} {_link(name)}" for status, name in kinds if name != "Problem"]
    bad = [status for status, name in kinds if name == "Problem"]
    yield f"Answers: {', '.join(good)}; {_link('Problem')} with {', '.join(bad)}.\n"


def _needs(operation: dict[str, Any]) -> str:
    """Who may call a route."""
    if not operation.get("security"):
        return "Takes no key.\n"
    roles = [role for way in operation["security"] for names in way.values() for role in names]
    return f"Takes a key with the role {' or '.join(map(_code, roles))}.\n"


def _struct(name: str, schema: dict[str, Any], meanings: Meanings) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for field, kind in schema["properties"].items():
        default = "always" if name in _ANSWERS else "required"
        if field not in required:
            default = _value(kind.get("default"))
        rows.append((_code(field), _schema(kind), default, meanings.of(name, field)))
    return _table(("Field", "Type", "Default", "Meaning"), rows)


_ANSWERS = {"Granted", "Checked", "Settled", "Renewed", "BatchAnswer", "BatchResult", "Health"}
_ANSWERS |= {"LimitState", "ResourceView", "ResourceList", "Problem", "Event", "ProviderView"}
_ANSWERS |= {"BreakerView", "BreakerList", "BreakerWindow", "BreakerRate", "BreakerRates"}
_ANSWERS |= {"KeyView", "CreatedKey", "KeyList"}
_ANSWERS |= {"FleetView", "FleetOrder", "ReplicaView", "ConfigView", "ConfigFault"}
_ANSWERS |= {"ConfigChange", "ConfigVerdict", "Reloaded"}
_ANSWERS |= {"BreakerProbes", "BreakerError", "OverrideView"}
_ANSWERS |= {"Live", "Traffic", "RefusalCount", "TenantLimits", "Past", "TrafficPast", "LevelPast"}


def _schema(schema: dict[str, Any]) -> str:
    """A JSON schema for people."""
    if "anyOf" in schema:
        parts = [_schema(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(parts)
    if "$ref" in schema:
        return _link(_name(schema))
    if "enum" in schema and "type" not in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    match schema.get("type"):
        case "array":
            most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
            return f"list of {_schema(schema.get('items', {}))}{most}"
        case "object":
            return f"mapping of names to {_schema(schema.get('additionalProperties', {}))}"
        case "integer" | "number" as kind:
            low, high = schema.get("minimum"), schema.get("maximum")
            return str(kind) + _bounds(schema.get("exclusiveMinimum"), low, high)
        case "string":
            return _string(schema)
        case "boolean":
            return "boolean"
        case _:
            return "any"


def _string(schema: dict[str, Any]) -> str:
    if "pattern" not in schema:
        return "text"
    most = f", at most {schema['maxLength']} long" if "maxLength" in schema else ""
    return f"text like {_like(schema['pattern'])}{most}"


def _values(name: str, values: Sequence[str]) -> str:
    if name != "Outcome":
        return ", ".join(map(_code, values)) + ".\n"
    rows = [
        (_code(v), "refunded" if Outcome(v) in NOT_SERVED else "stay as reserved") for v in values
    ]
    return _table(("Outcome", "Tokens and money, when no usage is reported"), rows)


def _codes(*, in_use: bool) -> list[ErrorCode]:
    """The codes that the service's source names, or those that it does not."""
    source = "".join(p.read_text("utf-8") for p in (ROOT / "limiter_service").rglob("*.py"))
    return [code for code in ErrorCode if (f"ErrorCode.{code.name}" in source) == in_use]


def _name(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _names(schema: dict[str, Any]) -> list[str]:
    return [_name(each) for each in schema.get("oneOf", [schema])]


def _link(name: str) -> str:
    return f"[{name}](#{_ELSEWHERE.get(name) or _anchor(name)})"


# Settings and command line.


def _commands() -> dict[str, Any]:  # typer brings its own click, without public types
    """Every verb; those of a group by both words."""
    group: Any = typer.main.get_command(command_line)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", {})
        found |= {f"{name} {verb}": each for verb, each in inner.items()} or {name: command}
    return found


def _range(parameter: Any) -> list[object]:
    low, high = getattr(parameter, "min", None), getattr(parameter, "max", None)
    found: list[object] = []
    if low is not None:
        found.append(annotated_types.Ge(low))
    if high is not None:
        found.append(annotated_types.Le(high))
    return found


def _annotation(kind: Any, metadata: Sequence[object]) -> str:
    """A Python annotation with its constraints for people."""
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if get_origin(kind) is Literal:
        return ", ".join(_code(str(value)) for value in arguments)
    if get_origin(kind) is Annotated or (arguments and len(arguments) == 1):
        return _annotation(arguments[0], metadata)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return ", ".join(_code(str(member.value)) for member in kind)

    def told(constraint: str) -> Any:  # a number, a pattern, or nothing
        return next((v for m in metadata if (v := getattr(m, constraint, None)) is not None), None)

    words: dict[Any, str] = {
        int: "integer",
        float: "number",
        str: "text",
        bool: "boolean",
        Path: "path",
    }
    words[SecretStr] = "text, a secret"
    like = f" like {_like(told('pattern'))}" if told("pattern") else ""
    return words[kind] + like + _bounds(told("gt"), told("ge"), told("le"))


def _shown(value: object) -> str:
    return str(value.value if isinstance(value, enum.Enum) else value)


# Markdown.


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _page(parts: Sequence[str]) -> str:
    return HEADER + "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _table(heads: Sequence[str], rows: Rows) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _like(pattern: str) -> str:
    """A pattern without what only says that it is one for the whole text."""
    return _code(pattern.removeprefix("^").removesuffix("$").removesuffix("(?!\\n)"))


def _text(text: str) -> str:
    return inspect.cleandoc(text)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _value(default: object) -> str:
    if default is None:
        return "none"
    if default in ({}, [], ""):
        return "empty"
    return _code(msgspec.json.encode(default).decode().strip('"'))


def _bounds(gt: float | None, ge: float | None, le: float | None) -> str:
    low = f" over {_number(gt)}" if gt is not None else ""
    low = f" from {_number(ge)}" if ge is not None else low
    return low + (f" to {_number(le)}" if le is not None else "")


def _number(value: float) -> str:
    """Digits, or a power of ten where digits stop being readable."""
    digits = f"{value:,.0f}" if value == int(value) else f"{value:g}"
    zeros = digits.count("0")
    return f"1e{zeros}" if value >= _READABLE and digits.strip("0,") == "1" else digits


_READABLE = 10_000_000


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
