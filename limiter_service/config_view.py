"""A configuration as it takes effect: in full, as a version, and against another. Pure."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from limiter_service.config import SHORT_FORMS, Config, Limited, PoolConfig
from limiter_service.presets import limits_in_force
from limiter_wire import ConfigChange

MOST_CHANGES = 500
_VERSION = 12  # hex digits
_MISSING = object()


def effective(config: Config) -> dict[str, Any]:
    """The file with every default and preset in it, and every limit in the long form."""
    whole: dict[str, Any] = msgspec.to_builtins(config)
    for name, pool in config.pools.items():
        told = whole["pools"][name]
        _spell_out(told, pool, "pool", "*", pool)
        for model, section in pool.models.items():
            _spell_out(told["models"][model], pool, "model", model, section)
        for tenant, of_tenant in pool.tenants.items():
            _spell_out(told["tenants"][tenant], pool, "tenant", "*", of_tenant)
            for model, section in of_tenant.models.items():
                both = told["tenants"][tenant]["models"][model]
                _spell_out(both, pool, "tenant_model", model, section)
    return whole


def version(config: Config, prices: bytes | None) -> str:
    """A digest of everything that decides: the file as it takes effect, and its price file."""
    text = msgspec.json.encode(effective(config), order="sorted")
    return sha256(text + b"\0" + (prices or b"")).hexdigest()[:_VERSION]


def changes(before: Config, after: Config) -> list[ConfigChange]:
    """What another configuration changes, in the order of paths; at most MOST_CHANGES."""
    old, new = dict(_leaves(effective(before))), dict(_leaves(effective(after)))
    found = []
    for path in sorted(old.keys() | new.keys()):
        was, is_ = old.get(path, _MISSING), new.get(path, _MISSING)
        if was != is_:
            sides = {"before": was, "after": is_}
            given = {side: value for side, value in sides.items() if value is not _MISSING}
            found.append(ConfigChange(path=path, **given))
    return found[:MOST_CHANGES]


def _spell_out(
    told: dict[str, Any], pool: PoolConfig, scope: str, model: str, section: Limited
) -> None:
    for short in SHORT_FORMS:
        del told[short]
    told["limits"] = [
        msgspec.to_builtins(limit) for limit in limits_in_force(pool, scope, model, section)
    ]


def _leaves(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its path; limits by their names, sections without anything by `{}`."""
    if isinstance(part, Mapping) and part:
        for key, value in part.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(part, list) and part and isinstance(part[0], Mapping):
        for item in part:
            yield from _leaves(item, f"{path}[{item.get('name')}]")
    elif part is not None:
        yield path, part
