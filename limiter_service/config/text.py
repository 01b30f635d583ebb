"""YAML, TOML or JSON to plain values; a key that stands twice is a mistake."""

import json
import tomllib
from typing import Any

import yaml


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


def read(text: str, suffix: str) -> Any:  # whatever the file holds
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
