"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis

from limiter_service.settings import Settings
from limiter_service.store.scripts import NAMES, load, source

ROOT = Path(__file__).parents[2]
PACKAGES = ["limiter_wire", "limiter_service", "client_sdk"]
SLANG = re.compile(
    r"\bphase[ _-]?\d|\bsprint[ _-]?\d|\bFIX-\d|\btc\d|\bTODO\b|\bFIXME\b|\bXXX\b", re.IGNORECASE
)
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\ufe0f]")
MARKETING = re.compile(r"\b(simply|blazing|robust|seamless(ly)?|effortless(ly)?)\b", re.IGNORECASE)
EMPTY_NAMES = {"utils", "util", "common", "core", "models", "types", "constants", "helpers", "misc"}
HERE = Path(__file__).resolve()


def tracked() -> Iterator[Path]:
    """Every text file of the project: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        path = ROOT / name
        if path.is_file() and path.name not in {"constraints.txt", "LICENSE"} and path != HERE:
            yield path


def text_of(path: Path) -> str:
    """The text of a file, empty for what is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def sources(*names: str) -> Iterator[tuple[Path, str]]:
    """Python files of packages, with their text."""
    for name in names:
        for path in sorted((ROOT / name).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


def test_no_text_has_slang_of_a_tracker_or_emoji():
    """History belongs to commits, and the words of a text suffice."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}"
        for path in tracked()
        for rule in (SLANG, EMOJI)
        for match in [rule.search(path.name) or rule.search(text_of(path))]
        if match
    ]
    assert found == []


def test_no_document_patronises():
    """Words that praise or belittle say nothing."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}"
        for path in tracked()
        if path.suffix == ".md"
        for match in [MARKETING.search(text_of(path))]
        if match
    ]
    assert found == []


def test_no_file_name_says_nothing():
    """A module is named after its subject."""
    found = [path for path in tracked() if path.stem in EMPTY_NAMES and path.suffix == ".py"]
    found += [path for path in tracked() if EMPTY_NAMES & set(path.relative_to(ROOT).parts)]
    assert found == []


def test_no_text_knows_the_machine_it_was_written_on():
    """Paths of one machine work on no other."""
    machine = re.compile(r"/(work|home|Users)/\w+/|/root/")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        for match in [machine.search(text_of(path))]
        if match
    ]
    assert found == []


def test_no_python_speaks_lua():
    """Scripts stand in lua/, where they are highlighted and checked."""
    found = [path.name for path, text in sources(*PACKAGES) if re.search(r"redis\.p?call", text)]
    assert found == []


def test_keys_are_named_in_one_module():
    """The prefix and the hash tag are built in `store/keys.py`, and nowhere else."""
    named = re.compile(r"""["']sg:|\{\{\{|["']\{prefix\}""")
    found = {
        path.relative_to(ROOT).as_posix() for path, text in sources(*PACKAGES) if named.search(text)
    }
    assert found == {"limiter_service/settings.py", "limiter_service/store/keys.py"}
    assert Settings.model_fields["key_prefix"].default == "sg:"


def test_only_the_store_imports_redis():
    """Everything else speaks of commands."""
    importing = re.compile(r"^(import|from) redis\b", re.MULTILINE)
    found = {
        path.parent.relative_to(ROOT).as_posix()
        for path, text in sources(*PACKAGES)
        if importing.search(text)
    }
    assert found == {"limiter_service/store"}


def test_every_setting_is_used():
    """A setting that nobody reads is a promise that nobody keeps."""
    text = "\n".join(
        text for path, text in sources("limiter_service") if path.name != "settings.py"
    )
    assert [name for name in Settings.model_fields if f"settings.{name}" not in text] == []


def test_every_package_is_typed():
    """Type checkers of our users read our annotations."""
    for name in PACKAGES:
        assert (ROOT / name / "py.typed").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_script_says_what_it_takes_and_returns(name: str):
    """The header of each script names KEYS, ARGV and what comes back."""
    header = (ROOT / "lua" / f"{name}.lua").read_text().partition("\n\n")[0]
    lines = header.splitlines()
    assert all(line.startswith("--") for line in lines)
    for word in ("KEYS", "ARGV", "returns"):
        assert re.search(rf"^-- {word}\b", header, re.MULTILINE), word


@pytest.mark.parametrize("name", NAMES)
def test_a_script_compiles_on_the_server(name: str, db: redis.Redis):
    """SCRIPT LOAD takes it, under the digest that we call it by."""
    script = load(name)
    loaded = db.script_load(script.text)
    assert (loaded.decode() if isinstance(loaded, bytes) else loaded) == script.sha


def test_every_script_is_known_and_every_part_is_used():
    """No file in lua/ is forgotten, and whatever is included stands in its place."""
    lua = ROOT / "lua"
    assert {path.stem for path in lua.glob("*.lua")} == set(NAMES)
    includes = {
        part
        for path in lua.rglob("*.lua")
        for part in re.findall(r"^-- @include (\S+)$", path.read_text(), re.MULTILINE)
    }
    assert includes == {f"lib/{path.stem}" for path in (lua / "lib").glob("*.lua")}
    assert not any("@include" in source(name) for name in NAMES)


def test_only_one_part_reads_the_clock():
    """Time is the server's, read in one place."""
    reading = [
        path.relative_to(ROOT / "lua").as_posix()
        for path in (ROOT / "lua").rglob("*.lua")
        if re.search(r"""call\(["']TIME""", path.read_text())
    ]
    assert reading == ["lib/clock.lua"]


def test_no_script_builds_a_key_or_scans():
    """Keys are declared, or a cluster could not route the call."""
    forbidden = re.compile(
        r"""call\(["'](KEYS|SCAN|EVAL|FLUSH\w+|RANDOMKEY)\b|KEYS\[[^]]+\] *\.\."""
    )
    for name in NAMES:
        assert not forbidden.search(source(name)), name


def test_every_test_says_what_it_shows():
    """A test without a sentence is a riddle for whoever breaks it."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path, text in sources("tests")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_")
        if not ast.get_docstring(node) and node.name.count("_") < 4  # or its name is a sentence
    ]
    assert silent == []


LENT = {"server", "db", "valkey", "valkey_db"}
"""Fixtures of the stores that tests share (tests/conftest.py)."""


def test_a_store_that_tests_share_is_lent_for_one_test():
    """What lives longer than a test, as a service of a module does, has a store of its own
    (`own_store`): other tests empty the shared ones, stop them, and leave states of other times.
    """
    fixtures = [
        (path, node, "".join(map(ast.unparse, node.decorator_list)))
        for path, text in sources("tests")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lasting = [
        (path, node)
        for path, node, marks in fixtures
        if "fixture" in marks and "scope=" in marks and "scope='function'" not in marks
    ]
    assert lasting
    found = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path, node in lasting
        if node.name in LENT or LENT & {each.arg for each in node.args.args}
    ]
    assert found == []


def test_no_test_sleeps():
    """Tests wait on a condition; the one pause stands in `waiting`. In virtual time sleep is
    what the test is about, and takes none.
    """
    pause = re.compile(r"\bsleep\((?!0\))")
    found = [
        path.relative_to(ROOT).as_posix()
        for path, text in sources("tests")
        if path != HERE and pause.search(text)
    ]
    assert found == [
        "tests/benchmarks/test_native_accounting.py",
        "tests/lua/test_queue_news.py",
        "tests/lua/test_queue_simulation.py",
        "tests/simulation/callers.py",
        "tests/simulation/fate.py",
        "tests/simulation/few.py",
        "tests/simulation/holders.py",
        "tests/simulation/story.py",
        "tests/simulation/test_again.py",
        "tests/simulation/test_alone.py",
        "tests/simulation/test_kept_reports.py",
        "tests/simulation/trips.py",
        "tests/simulation/wakes.py",
        "tests/simulation/world.py",
        "tests/tests_support/replica.py",
        "tests/tests_support/trial/moments.py",
        "tests/tests_support/waiting.py",
    ]


def test_sync_twins_are_current():
    """What is generated equals what it is generated from, and no rule is idle."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/unasync.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


class Loaded(msgspec.Struct):
    """What an installed wheel finds."""

    origin: str
    shas: dict[str, str]


PROBE = """
import json, limiter_service
from limiter_service.store.scripts import NAMES, load
print(json.dumps({"origin": limiter_service.__file__, "shas": {n: load(n).sha for n in NAMES}}))
"""


def test_an_installed_wheel_finds_the_same_scripts(tmp_path: Path):
    """The wheel carries lua/, and what is loaded from it equals the checkout's."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "d")]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = (tmp_path / "d").glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--disable-pip-version-check", "--target", str(target), str(wheel)]
    subprocess.run(install, capture_output=True, check=True)
    for name in PACKAGES:
        assert (target / name / "py.typed").is_file()
    probe = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = msgspec.json.decode(probe.stdout, type=Loaded)
    assert Path(loaded.origin).is_relative_to(target)
    assert loaded.shas == {name: load(name).sha for name in NAMES}
