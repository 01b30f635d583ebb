"""docs/data-model.md says of every key, script and layout what the code says."""

import inspect
import re
from pathlib import Path

import pytest

from limiter_service.store.keys import FleetKeys, Keys
from limiter_service.store.scripts import NAMES, part

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data-model.md").read_text()
QUEUE = ("queue", "order", "front", "asleep", "grants", "book", "tickets")
_BOTH = ("acquire", "settle")
WINDOWS = ("bucket", "sliding", "calendar", "concurrency", "ramp")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table whose head begins with *heading*."""
    lines = PAGE[PAGE.index(f"| {heading}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def head(name: str) -> str:
    """The comment at the top of a Lua file, as one line."""
    text = (ROOT / "lua" / f"{name}.lua").read_text()
    lines = [line for line in text.splitlines() if line.startswith("--")]
    return " ".join(" ".join(line.removeprefix("--").split()) for line in lines)


def keys_of(name: str) -> str:
    """The KEYS of a script's head."""
    keys = head(name).partition(" KEYS ")[2].partition(" ARGV ")[0]
    for other in ("acquire", "enqueue"):
        if other != name and f"as for {other}" in keys:
            return keys_of(other)
    return keys


def test_every_key_has_a_row() -> None:
    """Whoever adds a key describes it."""
    methods = {n for n, _ in inspect.getmembers(Keys, inspect.isfunction) if not n.startswith("_")}
    assert {row[1].strip("`") for row in rows("Key |")} == methods - {"channel"}


def test_patterns_are_what_keys_are_called() -> None:
    """Each pattern is the key of its method."""
    keys = Keys("pool")
    scope = keys.model_scope("MODEL")
    real = {
        "pool_scope": keys.pool_scope(),
        "model_scope": scope,
        "tenant_scope": keys.tenant_scope("TENANT"),
        "tenant_model_scope": keys.tenant_model_scope("TENANT", "MODEL").replace(":6:", ":LENGTH:"),
        "slots": keys.slots(scope, 10).replace("s:model:MODEL:a", "SCOPE:ID"),
        "circuit": keys.circuit("MODEL"),
        "pin": keys.pin(),
        "note": keys.note("MODEL"),
        "events": keys.events(),
        "counts": keys.counts(),
        "blocks": keys.blocks(),
        "replicas": keys.replicas(),
        "mark": keys.mark(),
        "sizes": keys.sizes("MODEL", "ROUTE").replace(":5:", ":LENGTH:"),
        "notice": keys.notice(scope, 10).replace("s:model:MODEL:a", "SCOPE:ID"),
        "lease": re.sub(r"[0-9a-f]{32}$", "DIGEST", keys.lease("t", "r")),
    } | {name: getattr(keys, name)() for name in QUEUE}
    assert {row[1].strip("`"): row[0].strip("`") for row in rows("Key |")} == real


def test_every_key_of_the_fleet_has_a_row() -> None:
    """Under the name that its method gives it."""
    methods = inspect.getmembers(FleetKeys(), inspect.ismethod)
    real = {name: method() for name, method in methods if not name.startswith("_")}
    assert {row[1].strip("`"): row[0].strip("`") for row in rows("Fleet key |")} == real


def test_every_script_is_a_writer_or_a_reader() -> None:
    """Whoever adds a script says what it touches."""
    assert [row[0].strip("`") for row in rows("Script |")] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_scripts_name_no_other_keys(name: str) -> None:
    """The KEYS of a script's head are words of the page, with the type that it gives."""
    typed = r"the (\w+)[^,]*, (?:an? )?(string|sorted set|hash|stream)"
    said = [words for words in keys_of(name).split(";") if "no " not in words]
    named = [re.search(typed, words) for words in said if "as for" not in words]
    known = {(row[2], row[3]) for row in (*rows("Key |"), *rows("Fleet key |"))}
    assert named
    assert {match and match.groups() for match in named} <= known


@pytest.mark.parametrize("name", NAMES)
def test_scripts_write_what_the_page_says(name: str) -> None:
    """Scopes, slots and lease: each is written exactly where its column says so."""
    text = part(name)
    for each in (f"lib/{what}_{kind}" for what in _BOTH for kind in ("ordinary", "any")):
        text += part(each) if f"-- @include {each}\n" in text else ""
    (row,) = [row for row in rows("Script |") if row[0] == f"`{name}`"]
    assert row[1].startswith("writes") == (
        "save_all(" in text or "serve(" in text or "-- @include lib/many" in text
    )
    assert row[2].startswith(("adds", "moves")) == (
        "window.hold(" in text or "take(" in text or "serve(" in text
    )
    assert row[2].startswith("removes") == ("settle_lease(" in text)
    assert row[3].startswith("writes") == (
        "save_lease(" in text
        or re.search(r'"SET", KEYS\[#KEYS - [12]\]', text) is not None
        or "-- @include lib/few" in text
    )
    assert row[4].startswith("writes") == ("close_queue(" in text)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_laid_out_as_their_heads_say(name: str) -> None:
    """Record and cell of a window, word by word."""
    (row,) = [row for row in rows("Window |") if row[0] == name]
    text = (ROOT / "lua" / "lib" / f"{name}.lua").read_text()
    record = re.search(r"^-- record +(.+)$", text, re.MULTILINE)
    cell = re.search(r"^-- cell +(.+)$", text, re.MULTILINE)
    assert record is not None
    assert cell is not None
    assert row[1:] == [f"`{name}.lua`", record[1], cell[1]]


@pytest.mark.parametrize(
    ("word", "following"), [("policy", " state version of"), ("state", " A window explains")]
)
def test_a_scope_is_laid_out_as_layout_says(word: str, following: str) -> None:
    """Policy and state of a scope, word by word."""
    text = head("lib/layout")
    listed = text[: text.index(following)].rpartition(f" {word} ")[2]
    (row,) = [row for row in rows("Part |") if row[0] == word]
    assert row[1] == listed.strip()


@pytest.mark.parametrize(
    ("word", "row_name", "following"),
    [("terms", "terms", " record the"), ("record", "record of what is learned", " An operator's")],
)
def test_what_is_learned_is_laid_out_as_its_head_says(
    word: str, row_name: str, following: str
) -> None:
    """Terms and records, word by word."""
    text = head("lib/learned")
    listed = text[: text.index(following)].rpartition(f" {word} ")[2]
    (row,) = [row for row in rows("Part |") if row[0] == row_name]
    assert row[1] == listed.strip()


def test_a_lease_is_laid_out_as_its_head_says() -> None:
    """The numbers of a lease in order, word by word."""
    text = head("lib/lease")
    listed = text[text.index("nonce,") : text.index(" Marks are ")].replace(";", ",").strip()
    assert ", ".join(row[0] for row in rows("Numbers of a lease")) == listed


@pytest.mark.parametrize(
    ("word", "following"),
    [
        ("queue", " model "),
        ("model", " line "),
        ("line", " ticket "),
        ("ticket", " `queue` exists"),
    ],
)
def test_a_record_of_the_queue_is_laid_out_as_its_head_says(word: str, following: str) -> None:
    """Queue, model, line and ticket, word by word."""
    text = head("lib/waiting")
    begin = text.index(" queue waiters,")
    listed = text[text.index(f" {word} ", begin) + len(word) + 2 :]
    (row,) = [row for row in rows("Record | Numbers") if row[0] == word]
    assert row[1] == listed[: listed.index(following)].strip()
