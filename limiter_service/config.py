"""The pools file: YAML, TOML or JSON -> Structs, with every problem listed at once."""

import json
import re
import tomllib
import types
import typing
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml

from limiter_service.prices import Catalogue, PriceConfig, PriceFileError
from limiter_wire import MAX_AMOUNT, Meter
from limiter_wire.providers import PROFILES, known_provider
from limiter_wire.providers.presets import tiers_of

PositiveAmount = Annotated[float, msgspec.Meta(gt=0, le=MAX_AMOUNT)]
PositiveCount = Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=1000)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Duration = Annotated[
    float | str, msgspec.Meta(description='Seconds as a number, or "90s", "5m", "1h", "500ms".')
]
Reserve = Literal[
    "tokens",
    "input",
    "sum(input, max_output)",
    "max(input, max_output)",
    "input + expected_output",
    "unweighted(input, max_output)",
    "expected_output",
]
RESERVES_OF_MONEY = ("sum(input, max_output)", "input + expected_output", "input")
Learn = Literal["down", "both", "never"]
LimitName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}(?!\n)$")]
Calendar = Literal["minute", "hour", "day", "month"]

RAMP = "ramp"
"""Names the ramp of a limit, behind the limit's own name."""

PERIODS: dict[str, float] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
"""Seconds of the named periods that are always equally long; a month is not."""

_UNITS: dict[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file; unknown keys are refused."""


class RampConfig(_Section, frozen=True, kw_only=True):
    """How fast the use of a limit may grow, where a provider refuses what grows too fast.

    In one `period` at most `factor` times as much is used as in the period before, or `start`
    where that is more.
    """

    start: PositiveAmount
    """What may be used in a period from nothing, in the meter of the limit."""
    factor: Annotated[float, msgspec.Meta(gt=1, le=100)] = 2.0
    """How many times as much one period may use as the one before."""
    period: Duration = 60.0
    """The time over which use is compared."""


class LimitConfig(_Section, frozen=True, kw_only=True):
    """One limit in the long form."""

    meter: Meter
    """What is counted."""
    limit: PositiveAmount
    """The amount per period; for `concurrency`, how many leases may live at once."""
    name: LimitName | None = None
    """Names the limit in answers. Default: `METER-per-PERIOD`, as in `tokens-per-minute`."""
    per: float | str | None = None
    """The period: `second`, `minute`, `hour`, `day`, `month` (calendar only), seconds, or "90s"."""
    window: Literal["bucket", "sliding", "calendar"] | None = None
    """How the period is counted: refilled continuously, sliding, or aligned to a calendar.
    Default: as the provider does, else `bucket`."""
    burst: PositiveAmount | None = None
    """Capacity of a bucket. Default: as the provider allows, else `limit`."""
    timezone: str = "UTC"
    """IANA name of the zone whose minute, hour, day or month a calendar window follows."""
    reserve: Reserve | None = None
    """What an acquire holds until it is settled. Default: by provider and meter."""
    settle: Literal["actual", "none"] | None = None
    """`actual`: the reservation is replaced by real usage; `none`: it stays as reserved.
    Default: as the provider does, else `actual`."""
    weights: dict[Literal["input", "cache_read", "cache_write", "output", "reasoning"], Weight] = {}
    """Factors on the components of usage. Default: the provider's, else 1."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow`: evaluated and reported, and never refuses."""
    learn: Learn | None = None
    """What of the provider's own statements counts: `down`, a limit that is lower than this one;
    `both`, also one that is higher; `never`, none, and levels are not corrected either.
    Default: the pool's `learn` on models, `never` on a whole pool. Limits on tenants never do."""
    adaptive_burst: bool = False
    """Halve the burst whenever the provider refuses a call although it says that requests
    remain, and let it grow back over ten minutes. For buckets of `requests`."""
    aimd: bool = False
    """Cut the rate to 0.7 of what it is whenever the provider refuses a call and says nothing
    about this limit, and let it grow back: for accounts whose limit nobody knows. For buckets."""
    ramp: RampConfig | None = None
    """How fast use may grow. It stands as a limit of its own beside this one, named `NAME.ramp`."""


class Limited(_Section, frozen=True, kw_only=True):
    """Whatever carries limits: the short forms, and `limits` in the long form."""

    rpm: PositiveCount | None = None
    """Requests per minute."""
    rpd: PositiveCount | None = None
    """Requests per day."""
    tpm: PositiveCount | None = None
    """Tokens per minute."""
    tpd: PositiveCount | None = None
    """Tokens per day."""
    input_tpm: PositiveCount | None = None
    """Input tokens per minute."""
    output_tpm: PositiveCount | None = None
    """Output tokens per minute."""
    concurrency: PositiveCount | None = None
    """Leases alive at once."""
    limits: list[LimitConfig] = []
    """Limits in the long form."""


class ModelConfig(Limited, frozen=True, kw_only=True):
    """The limits of one model, or of each model that a pattern matches."""


class TenantConfig(Limited, frozen=True, kw_only=True):
    """A tenant's share of the queue, its limits, and its limits on single models."""

    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    """Share of the queue: a tenant of weight 4 is served four times as much as one of weight 1
    while both wait."""
    models: dict[str, ModelConfig] = {}
    """Limits of this tenant on single models, by name or pattern."""


class QueueConfig(_Section, frozen=True, kw_only=True):
    """How many may wait in the pool's queue, and how long at most."""

    max_waiters: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 10_000
    """How many may wait."""
    max_wait: Duration = 120.0
    """How long one may wait; a longer `max_wait` of a request counts as this."""
    priority_shares: dict[str, Share] = {}
    """Shares of the pool's limits that are kept for priorities: `"0-2": 0.3`. Others borrow
    what is not used, and give it back within one period of the limit."""


class BreakerConfig(_Section, frozen=True, kw_only=True):
    """When the circuit of a resource opens and how it closes again."""

    enabled: bool = True
    """Whether outcomes count and circuits refuse at all."""
    window: Duration = 60.0
    """The time over which calls are judged."""
    failure_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """The share of failed calls that opens the circuit."""
    min_calls: PositiveCount = 20
    """Fewer calls in the window are not judged."""
    consecutive: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 5
    """Failures in a row that open it, however few calls there are; 0: none do."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=32)] = 2
    """How many workers must see failures, or all where fewer are at work."""
    slow_ttft: Duration = 60.0
    """A first token that takes at least this long is slow."""
    slow_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = 0.8
    """The share of slow calls that opens it; none: slow calls never do."""
    throttle_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """The share of calls that the provider rate-limits that opens it; none: they never do."""
    open: Duration = 5.0
    """How long the circuit stays open the first time."""
    max_open: Duration = 300.0
    """How long it stays open at most, when it opens again and again. Also bounds what a
    provider's Retry-After can ask for."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1
    """By how much of itself an open time is spread, so that circuits do not probe in step."""
    decay: Duration = 60.0
    """The healthy time that takes back one doubling of the open time."""
    probes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    """Calls that may probe a half-open circuit at once, in the whole fleet."""
    successes: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Successful probes that close it."""
    probe_ttl: Duration = 60.0
    """How long a probe may take before another may try."""
    max_lost: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    """Probes that never report, in a row, that open it again."""
    ramp: Duration | None = 10.0
    """After closing, the time in which buckets of the model go from a tenth of their rate
    to all of it; none: at once."""
    cooldown: Literal["model", "pool"] = "model"
    """What pauses when the provider says how long to wait: the model, or the whole pool."""
    quota_latch: Duration = 3600.0
    """How long the pool is latched when its quota is exhausted."""
    credential_latch: Duration = 600.0
    """How long the pool is latched when its credentials are refused."""
    credential_failures: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3
    """Refused credentials in a row that latch it."""
    retry_ratio: Fraction | None = 0.2
    """Retries that each first attempt allows; none: retries are not bounded."""
    retry_floor: Annotated[float, msgspec.Meta(ge=0, le=100_000)] = 1.0
    """Retries per second that are allowed without any first attempt."""


class BlocksConfig(_Section, frozen=True, kw_only=True):
    """Blocks: budget that workers hold and spend without asking (`prefetch` of the SDK)."""

    share: Fraction = 0.02
    """How much of each limit all blocks together may hold unspent; 0 forbids blocks."""
    hold: Duration = 2.0
    """For how long at most a block is held: what is not spent by then comes back."""


class PoolConfig(Limited, frozen=True, kw_only=True):
    """One provider account."""

    provider: str = "generic"
    """The provider: how it counts and enforces is the default of limits on pool and models."""
    tier: str | None = None
    """The account's tier: its published ceilings are the limits of models that have none."""
    models: dict[str, ModelConfig] = {}
    """Limits by model. A model that no entry matches is refused as unknown."""
    tenants: dict[str, TenantConfig] = {}
    """Limits by tenant. A tenant that no entry matches has none of its own."""
    prices: dict[str, PriceConfig] = {}
    """Prices by model, for limits on `cost_usd`. They go before those of the price file and
    of the library `genai-prices`."""
    cost_in_requests: bool = False
    """Whether callers say with each acquire what it costs (`cost_usd`): then limits on money
    need no price."""
    queue: QueueConfig = QueueConfig()
    """Who may wait, how long, and which priorities have a share of their own."""
    learn: Learn = "down"
    """What limits on models learn from the provider's headers, unless they say otherwise."""
    breaker: BreakerConfig = BreakerConfig()
    """When circuits of the pool's models open, and how they close again."""
    blocks: BlocksConfig = BlocksConfig()
    """What workers may hold and spend without asking."""
    on_store_loss: Literal["degrade", "open", "closed"] = "degrade"
    """What happens while the store is lost: each replica enforces its share of every limit, it
    grants everything and counts, or it refuses. What was granted is charged afterwards."""
    lease_ttl: Duration = 600.0
    """How long a lease lives unless the acquire or a renewal says otherwise."""
    remember: Duration = 60.0
    """How long a lease is known after it was settled or expired."""
    durability: Literal["fast", "replicated"] = "fast"
    """When a grant counts: at once, or when a replica of the store has it too (`WAIT`); without
    one it is refused with 503, and given to who asks again with its `request_id`."""
    cold_start: Fraction = 1.0
    """Fill of a limit whose state is new or was lost: 1 is full, 0 is spent."""


class Config(_Section, frozen=True, kw_only=True):
    """The whole file."""

    pools: dict[str, PoolConfig] = {}
    """The pools, by name: letters, digits, `.`, `_` and `-`."""
    price_file: str | None = None
    """A file of prices in the format of LiteLLM's `model_prices_and_context_window.json`;
    relative to this file."""


class ConfigProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong: where in the file, and what is allowed there."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(Exception):
    """The file is refused; `problems` lists everything that is wrong with it."""

    def __init__(self, source: str, problems: list[ConfigProblem]) -> None:
        self.source, self.problems = source, problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in problems)]))


def seconds(value: Duration) -> float:
    """Seconds of a duration such as `120`, "90s", "5m", "1h" or "500ms".

    Raises ValueError when it is not one, or not positive.
    """
    if isinstance(value, str):
        text = value.strip()
        unit = next((u for u in sorted(_UNITS, key=len, reverse=True) if text.endswith(u)), "")
        try:
            number = float(text.removesuffix(unit)) * _UNITS.get(unit, 1)
        except ValueError:
            number = float("nan")
    else:
        number = float(value)
    if not 0 < number <= 366 * 86_400:
        raise ValueError(
            f'{value!r} is no duration; allowed: seconds, or "90s", "5m", "1h", "500ms"'
        )
    return number


def period(limit: LimitConfig) -> float | None:
    """Seconds of a limit's period; None for a calendar month, which has no fixed length."""
    if limit.per is None or limit.per == "month":
        return None
    if isinstance(limit.per, str) and limit.per in PERIODS:
        return PERIODS[limit.per]
    return seconds(limit.per)


def load(path: Path) -> Config:
    """Read and check a pools file. Raises ConfigError with every problem in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [ConfigProblem("file", f"cannot be read: {error}")]) from error
    return parse(text, path.suffix, str(path), path.parent)


def parse(
    text: str,
    suffix: str,
    source: str = "configuration",
    base: Path | None = None,
    *,
    price_files: Collection[str] | None = None,
) -> Config:
    """Check the text of a pools file; *suffix* (.yaml, .yml, .toml, .json) says how to read it.
    Files that it names are relative to *base*; only *price_files* are read where these are given.
    """
    try:
        raw = _read(text, suffix)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).split())
        raise ConfigError(source, [ConfigProblem("file", f"cannot be parsed: {where}")]) from error
    problems: list[ConfigProblem] = []
    config = _build(Config, {} if raw is None else raw, "", problems)
    if (
        not problems
        and config.price_file
        and config.price_file
        not in (price_files if price_files is not None else (config.price_file,))
    ):
        message = f"{config.price_file!r} is not read for a check; in force: "
        _note(problems, "price_file", message + (", ".join(price_files or ()) or "none"))
    if not problems:
        _check_prices(config, base, problems)
    if problems:
        raise ConfigError(source, problems)
    assert isinstance(config, Config)
    return config


class _UniqueKeys(yaml.SafeLoader):
    """YAML allows a key twice and keeps the last: a limit that silently vanished."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # PyYAML's signature
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if isinstance(key, list | dict | set):
                raise ValueError(f"line {line}: a key is a name, not a {type(key).__name__}")  # noqa: TRY004  # joins the other errors of the parser
            if key in seen:
                raise ValueError(f"line {line}: the key {key!r} stands twice in one mapping")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the key {twice[0]!r} stands twice in one object")
    return dict(pairs)


def _read(text: str, suffix: str) -> Any:  # whatever the file holds
    match suffix.lower():
        case ".toml":
            return tomllib.loads(text)
        case ".json":
            return json.loads(text, object_pairs_hook=_unique_pairs)
        case ".yaml" | ".yml":
            return _yaml(text)
        case other:
            raise ValueError(
                f"the suffix {other!r} is not known; allowed: .yaml, .yml, .toml, .json"
            )


_MOST_NODES = 200_000


def _yaml(text: str) -> Any:  # whatever the file holds
    """Raises ValueError when aliases would make far more of the text than stands there."""
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST_NODES:
            raise ValueError(f"aliases make more than {_MOST_NODES} values of it")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, each alias counted in full."""
    size = known.get(id(node))
    if size == 0:
        raise ValueError(f"line {node.start_mark.line + 1}: an alias that contains itself")
    if size is not None:
        return size
    known[id(node)] = 0
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    known[id(node)] = size = 1 + sum(_size(part, known) for part in parts)
    return size


def _build(
    kind: Any, raw: Any, path: str, problems: list[ConfigProblem]
) -> Any:  # walks annotations
    """Convert *raw* to *kind* piece by piece, so that one bad value hides no other."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _build_struct(kind, raw, path, problems)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind == RampConfig | None:
        return None if raw is None else _build_struct(RampConfig, raw, path, problems)
    if (
        origin is dict
        and isinstance(arguments[1], type)
        and issubclass(arguments[1], msgspec.Struct)
    ):
        if not isinstance(raw, dict):
            return _note(problems, path, f"{_kind(raw)} is not a mapping")
        for key in raw:
            _check_name(arguments[1], path, str(key), problems)
        return {
            str(key): _build(
                arguments[1], {} if value is None else value, _join(path, key), problems
            )
            for key, value in raw.items()
        }
    if origin is list:
        if not isinstance(raw, list):
            return _note(problems, path, f"{_kind(raw)} is not a list")
        return [_build(arguments[0], item, f"{path}[{i}]", problems) for i, item in enumerate(raw)]
    try:
        value = msgspec.convert(raw, kind)
        if kind == Duration or (kind == Duration | None and value is not None):
            seconds(value)
    except msgspec.ValidationError as error:
        return _note(problems, path, f"{raw!r}: {_explain(str(error), kind)}")
    except ValueError as error:
        return _note(problems, path, str(error))
    return value


def _build_struct(
    kind: type[msgspec.Struct],
    raw: Any,
    path: str,
    problems: list[ConfigProblem],
) -> Any:
    if not isinstance(raw, dict):
        return _note(problems, path or "file", f"{_kind(raw)} is not a mapping")
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key in raw:
        if key not in fields:
            near = get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(fields)}"
            _note(problems, _join(path, key), f"unknown key{hint}")
    before, values = len(problems), {}
    for name, field in fields.items():
        if name in raw:
            values[name] = _build(field.type, raw[name], _join(path, name), problems)
        elif field.required:
            _note(problems, _join(path, name), "is required")
    if len(problems) > before:
        return None
    built = kind(**values)
    if isinstance(built, LimitConfig):
        _check_limit(path, built, problems)
    elif isinstance(built, BreakerConfig):
        _check_breaker(path, built, problems)
    elif isinstance(built, Limited):
        _check_limit_names(path, built, problems)
    elif isinstance(built, QueueConfig):
        _check_shares(f"{path}.priority_shares", built, problems)
    if isinstance(built, PoolConfig):
        _check_provider(path, built, problems)
    return built


def _explain(message: str, kind: Any) -> str:
    if get_origin(kind) is dict and "enum value" in message:  # a key that is not allowed
        kind = get_args(kind)[0]
    allowed = list(kind) if isinstance(kind, type) and issubclass(kind, Meter) else _literals(kind)
    if allowed:
        return f"allowed: {', '.join(allowed)}"
    return (
        message.split(" - at", maxsplit=1)[0][0].lower() + message.split(" - at", maxsplit=1)[0][1:]
    )


def _literals(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) in {typing.Union, types.UnionType}:
        return [text for part in get_args(kind) for text in _literals(part)]
    return []


def _kind(raw: Any) -> str:
    return "nothing" if raw is None else f"{raw!r}" if len(repr(raw)) < 60 else type(raw).__name__  # noqa: PLR2004


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _note(problems: list[ConfigProblem], path: str, message: str) -> None:
    problems.append(ConfigProblem(path, message))


_POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATTERN = re.compile(r"[!-)+-~]{0,200}[!-~]")


def _check_name(kind: type, path: str, name: str, problems: list[ConfigProblem]) -> None:
    if kind is PoolConfig:
        if not _POOL_NAME.fullmatch(name):
            _note(problems, _join(path, name), "a pool's name is 1 to 64 of A-Z a-z 0-9 . _ -")
    elif not _PATTERN.fullmatch(name):
        allowed = "a name is visible ASCII; a star stands for any ending and only at the end"
        _note(problems, _join(path, name), allowed)


def _check_limit_names(path: str, section: Limited, problems: list[ConfigProblem]) -> None:
    names = {short: short for short in SHORT_FORMS if getattr(section, short) is not None}
    for i, limit in enumerate(section.limits):
        own = limit.name or long_name(limit)
        for name in (own,) if limit.ramp is None else (own, f"{own}.{RAMP}"):
            if name in names:
                message = f"the name {name!r} is taken by {names[name]}; give one of them a `name`"
                _note(problems, f"{path}.limits[{i}].name", message)
            names[name] = f"limits[{i}]"


_PRIORITIES = re.compile(r"([0-9])(?:-([0-9]))?")


def priorities(key: str) -> range:
    """The priorities of a key such as "0-2" or "5". Raises ValueError when it is none."""
    found = _PRIORITIES.fullmatch(key)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError(f'{key!r} is no range of priorities; allowed: "0" to "9", "0-2"')
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def _check_shares(path: str, queue: QueueConfig, problems: list[ConfigProblem]) -> None:
    taken: dict[int, str] = {}
    for key in queue.priority_shares:
        try:
            wanted = priorities(key)
        except ValueError as error:
            _note(problems, path, str(error))
            continue
        for priority in wanted:
            if priority in taken:
                message = f"priority {priority} is in {taken[priority]!r} already"
                _note(problems, _join(path, key), message)
                break
            taken[priority] = key
    total = sum(queue.priority_shares.values())
    if total > 1 + 1e-9:
        _note(problems, path, f"the shares add up to {total:g}; allowed is at most 1")


def _check_provider(path: str, pool: PoolConfig, problems: list[ConfigProblem]) -> None:
    provider = known_provider(pool.provider)
    if provider is None:
        near = get_close_matches(pool.provider, PROFILES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(PROFILES)}"
        _note(problems, _join(path, "provider"), f"{pool.provider!r} is not known; {hint}")
    elif pool.tier is not None and pool.tier not in tiers_of(provider):
        allowed = ", ".join(tiers_of(provider)) or "none, so give the limits"
        message = f"{pool.tier!r} is no known tier of {provider}; known: {allowed}"
        _note(problems, _join(path, "tier"), message)


def catalogue_of(config: Config, base: Path | None) -> Catalogue:
    """The prices that hold where a pool has none. Raises PriceFileError."""
    name = config.price_file
    return Catalogue.of(None if name is None else (base or Path()) / name)


def _check_prices(config: Config, base: Path | None, problems: list[ConfigProblem]) -> None:
    """A limit on money must be able to tell what a call costs."""
    try:
        catalogue = catalogue_of(config, base)
    except PriceFileError as error:
        _note(problems, "price_file", str(error))
        return
    for name, pool in config.pools.items():
        if pool.cost_in_requests:
            continue
        for model in pool.models:
            limit = _money_limit(pool, model)
            if limit is not None and not has_price(pool, model, catalogue):
                message = (
                    f"{limit} counts money, and the model has no price: give it one in "
                    f"pools.{name}.prices or in a price_file, or set cost_in_requests where "
                    "callers send cost_usd"
                )
                _note(problems, f"pools.{name}.models.{model}", message)


def has_price(pool: PoolConfig, model: str, catalogue: Catalogue) -> bool:
    """Whether a model, or every model of a pattern as far as one can tell, has a price."""
    if match(pool.prices, model) is not None:
        return True
    if model.endswith("*"):
        return not catalogue.empty
    return catalogue.price(pool.provider, model) is not None


def _money_limit(pool: PoolConfig, model: str) -> str | None:
    """A limit on money that calls of *model* may meet."""
    sections: list[Limited] = [pool, pool.models[model]]
    for tenant in pool.tenants.values():
        on_model: Limited | None = match(tenant.models, model)
        sections += [tenant] if on_model is None else [tenant, on_model]
    for section in sections:
        for limit in section.limits:
            if limit.meter is Meter.COST_USD:
                return limit.name or long_name(limit)
    return None


def _check_breaker(path: str, breaker: BreakerConfig, problems: list[ConfigProblem]) -> None:
    if seconds(breaker.max_open) < seconds(breaker.open):
        _note(problems, f"{path}.max_open", f"{breaker.max_open!r} is shorter than `open`")


def _check_limit(path: str, limit: LimitConfig, problems: list[ConfigProblem]) -> None:
    if limit.meter is Meter.CONCURRENCY:
        for key in ("per", "burst", "reserve", "ramp"):
            if getattr(limit, key) is not None:
                _note(problems, f"{path}.{key}", "a concurrency limit has no such thing")
        if limit.limit != int(limit.limit):
            _note(problems, f"{path}.limit", f"{limit.limit!r}: slots are whole numbers")
        return
    if limit.per is None:
        _note(problems, f"{path}.per", 'is required: second, minute, hour, day, month or "90s"')
        return
    if limit.window == "calendar":
        _check_calendar(path, limit, problems)
    elif limit.per == "month":
        _note(problems, f"{path}.per", "a month has no fixed length: use window: calendar")
    elif not (isinstance(limit.per, str) and limit.per in PERIODS):
        try:
            seconds(limit.per)
        except ValueError as error:
            _note(problems, f"{path}.per", str(error))
    if limit.burst is not None and limit.window not in {None, "bucket"}:
        _note(problems, f"{path}.burst", f"only a bucket has a burst, not window: {limit.window}")
    if limit.adaptive_burst and (
        limit.meter is not Meter.REQUESTS or limit.window not in {None, "bucket"}
    ):
        # A request of many tokens might never fit again.
        _note(problems, f"{path}.adaptive_burst", "is for buckets of the meter requests")
    if limit.aimd and limit.window not in {None, "bucket"}:
        _note(problems, f"{path}.aimd", f"is for buckets, not window: {limit.window}")
    if limit.reserve is not None and limit.meter is Meter.REQUESTS:
        _note(problems, f"{path}.reserve", f"does not apply to the meter {limit.meter}")
    if limit.meter is Meter.COST_USD and limit.reserve not in {None, *RESERVES_OF_MONEY}:
        allowed = ", ".join(f"`{each}`" for each in RESERVES_OF_MONEY)
        _note(problems, f"{path}.reserve", f"{limit.reserve!r}: money is held by {allowed}")


def _check_calendar(path: str, limit: LimitConfig, problems: list[ConfigProblem]) -> None:
    if limit.per not in get_args(Calendar):
        allowed = ", ".join(get_args(Calendar))
        _note(problems, f"{path}.per", f"{limit.per!r}: a calendar window is one of {allowed}")
    try:
        ZoneInfo(limit.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        _note(problems, f"{path}.timezone", f"{limit.timezone!r} is not a known time zone")


SHORT_FORMS: dict[str, LimitConfig] = {}
"""What each short form stands for; its amount is 1 here."""


def _short(name: str, meter: Meter, per: str | None) -> None:
    SHORT_FORMS[name] = LimitConfig(name=name, meter=meter, limit=1, per=per)


_short("rpm", Meter.REQUESTS, "minute")
_short("rpd", Meter.REQUESTS, "day")
_short("tpm", Meter.TOKENS, "minute")
_short("tpd", Meter.TOKENS, "day")
_short("input_tpm", Meter.INPUT_TOKENS, "minute")
_short("output_tpm", Meter.OUTPUT_TOKENS, "minute")
_short("concurrency", Meter.CONCURRENCY, None)


def long_name(limit: LimitConfig) -> str:
    """The name of a limit that was given none."""
    return limit.meter if limit.per is None else f"{limit.meter}-per-{limit.per}"


def settled(limit: LimitConfig) -> LimitConfig:
    """*limit* with the defaults that hold where no provider has others."""
    window, settle = limit.window or "bucket", limit.settle or "actual"
    return msgspec.structs.replace(limit, window=window, settle=settle)


def limits_of(section: Limited) -> list[LimitConfig]:
    """Every limit of a section as it is without a provider's presets."""
    return [settled(limit) for limit in given_limits(section)]


def given_limits(section: Limited) -> list[LimitConfig]:
    """Every limit of a section in the long form, the short forms first; what the file leaves
    open is open.
    """
    short = [
        msgspec.structs.replace(form, limit=float(amount))
        for name, form in SHORT_FORMS.items()
        if (amount := getattr(section, name)) is not None
    ]
    return short + [
        msgspec.structs.replace(limit, name=limit.name or long_name(limit))
        for limit in section.limits
    ]


def match(patterns: dict[str, Any], name: str) -> Any | None:  # the value type of the mapping
    """The entry for *name*: exact, else the longest pattern `prefix*` that fits, else None."""
    if name in patterns:
        return patterns[name]
    fitting = [p for p in patterns if p.endswith("*") and name.startswith(p[:-1])]
    return patterns[max(fitting, key=len)] if fitting else None
