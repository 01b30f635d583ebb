"""Load the Lua scripts: expand their includes, inline their constants.

`python -m limiter_service.store.scripts DIRECTORY` writes the expanded scripts, which is
what luacheck reads.
"""

import re
import sys
from collections.abc import Mapping
from functools import cache, lru_cache
from hashlib import sha1
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

_CONSTANTS = re.compile(r"^ *local ([A-Z_]+(?:, [A-Z_]+)*) = (-?\d+(?:, -?\d+)*)$", re.MULTILINE)
_NAME = re.compile(r'(?<!["\w])[A-Z_]{2,}(?!["\w])')
_INCLUDE = re.compile(r"^-- @include (\S+)$", re.MULTILINE)

NAMES = (
    "acquire",
    "acquire_group",
    "acquire_mixed",
    "acquire_row",
    "settle",
    "settle_group",
    "settle_mixed",
    "settle_row",
    "renew",
    "check",
    "snapshot",
    "observe",
    "limit",
    "notices",
    "enqueue",
    "dispatch",
    "cancel",
    "waiters",
    "override",
    "circuits",
    "events",
    "sweep",
    "sizes",
    "keyring",
    "key",
    "count",
    "counts",
    "leases",
    "beat",
    "charge",
    "order",
    "fleet",
    "lend",
    "repay",
    "blocks",
)


FLAGS = {
    # Reads only: also where the store is full.
    "check": "no-writes",
    "snapshot": "no-writes",
    "notices": "no-writes",
    "waiters": "no-writes",
    "circuits": "no-writes",
    "events": "no-writes",
    "leases": "no-writes",
    "keyring": "no-writes",
    "counts": "no-writes",
    "blocks": "no-writes",
    # Gives back, or must be possible in need: a full store would never become less full.
    "settle": "allow-oom",
    "settle_group": "allow-oom",
    "settle_mixed": "allow-oom",
    "settle_row": "allow-oom",
    "renew": "allow-oom",
    "cancel": "allow-oom",
    "sweep": "allow-oom",
    "override": "allow-oom",
    "limit": "allow-oom",
    "order": "allow-oom",
    "fleet": "allow-oom",
    "beat": "allow-oom",
    "charge": "allow-oom",
    "repay": "allow-oom",
}
"""What a server may assume of a script; of others, that they write and need room."""


class Script(msgspec.Struct, frozen=True):
    """One script as the server knows it. `plain` is the same for Redis 6.2, which takes the
    first line, with the flags, for a mistake.
    """

    name: str
    text: str
    sha: str
    plain: "Script | None" = None


def _root() -> Traversable:
    """The packaged scripts of a wheel, else the repository's (checkout, editable install)."""
    packaged = resources.files("limiter_service") / "lua"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "lua"


@cache
def part(name: str) -> str:
    """The text of one file under lua/, as it stands there."""
    return (_root() / f"{name}.lua").read_text(encoding="utf-8")


def source(name: str, replace: Mapping[str, str] | None = None) -> str:
    """The Lua text of script *name* with every include in place.

    *replace* gives other texts for files: tests swap `lib/clock` for one that
    reads a key.
    """

    def read(name: str) -> str:
        return (replace or {}).get(name) or part(name)

    def expanded(name: str) -> str:
        return _INCLUDE.sub(lambda line: expanded(line[1]), read(name))

    return _inline_constants(expanded(name))


def _inline_constants(text: str) -> str:
    """Put numbers in the place of the names in capitals that stand for them.

    Lua 5.1 has no constants: each function that uses such a name would capture it anew in
    every call of the script, which cost a tenth of a decision.
    """
    numbers: dict[str, str] = {}

    def note(line: re.Match[str]) -> str:
        for name, number in zip(line[1].split(", "), line[2].split(", "), strict=True):
            if numbers.setdefault(name, number) != number:
                raise ValueError(f"{name} stands for {numbers[name]} and for {number}")
        return ""

    text = _CONSTANTS.sub(note, text)
    return _NAME.sub(lambda name: numbers.get(name[0], name[0]), text)


def load(name: str, replace: Mapping[str, str] | None = None) -> Script:
    """Script *name*, ready to be called by its digest."""
    return _loaded(name, tuple(sorted((replace or {}).items())))


@lru_cache(1024)
def _loaded(name: str, replace: tuple[tuple[str, str], ...]) -> Script:
    text = source(name, dict(replace))
    flags = FLAGS.get(name)
    head = "#!lua" if flags is None else f"#!lua flags={flags}"
    return _script(name, f"{head}\n{text}", _script(name, text))


def _script(name: str, text: str, plain: Script | None = None) -> Script:
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest(), plain)


def _write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (directory / f"{name}.lua").write_text(source(name), encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
