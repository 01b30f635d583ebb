"""Exact token counts, where a vocabulary is on this machine. Nothing is ever fetched.

The extra `sluicegate[tokenizers]` brings vocabularies inside a package. Any other tokenizer
serves as well: a counter is a function from text to a number.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from client_sdk.estimate import Counter

# Families of `estimate` whose vocabulary the package `quicktok` carries. Its Qwen is
# another than the one that the weights were fitted on, and models of both are in use.
_CARRIED = {"o200k": "o200k_base", "cl100k": "cl100k_base", "llama3": "llama3"}


def counters() -> dict[str, Counter]:
    """Exact counters by family, as far as vocabularies are installed; else an empty mapping.

    A vocabulary is loaded when it first counts.
    """
    if importlib.util.find_spec("quicktok") is None:
        return {}
    return {family: _carried(name) for family, name in _CARRIED.items()}


def _carried(name: str) -> Counter:
    loaded: list[Callable[[str], list[int]]] = []

    def count(text: str) -> int:
        if not loaded:
            package = importlib.import_module("quicktok")
            loaded.append(package.get_encoding(name).encode)
        return len(loaded[0](text))

    return count


def counter_from_file(path: Path) -> Counter:
    """A counter from a `tokenizer.json` on disk; needs the package `tokenizers`.

    Raises ImportError, and whatever that package raises over the file.
    """
    package = importlib.import_module("tokenizers")
    tokenizer = package.Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
