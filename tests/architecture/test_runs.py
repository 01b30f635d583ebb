"""How tests are run: what happens to those that fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFTEST = """
def pytest_xdist_make_scheduler(config, log):
    from tests_support.groups import ByGroup
    return ByGroup(config, log)
"""
ONCE = """
import os, pathlib, pytest
from hypothesis import given, strategies

def fail_once(name):
    if not pathlib.Path(name).exists():
        pathlib.Path(name).touch()
        raise AssertionError(name)

"""
LATE = """
@pytest.mark.parametrize("text", ["a::b", "c - d"])
def test_late(text):
    fail_once(text)
"""
PLAIN = """
@pytest.mark.parametrize("n", range(20))
def test_plain(n):
    pass
"""
WRONG = "\ndef test_wrong():\n    raise AssertionError\n"
DRAWN = "\n@given(strategies.just(1))\ndef test_drawn(n):\n    fail_once('drawn')\n"
BREAKS = "\ndef test_breaks():\n    os._exit(3)\n"
MANY = """
@pytest.mark.parametrize("n", range(11))
def test_many(n):
    fail_once(str(n))
"""


def run(home: Path, text: str, *arguments: str) -> tuple[int, str, Path]:
    """The exit code of a run, what it said, and where it notes what it repeats."""
    (home / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT / 'tests'}\n")
    (home / "test_it.py").write_text(ONCE + text)
    names = ("xdist.plugin", "_hypothesis_pytestplugin")
    plugins = [word for name in names for word in ("-p", name)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/test.py"), *plugins, *arguments],
        cwd=home,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, home / "build/flaky.txt"


def test_what_passes_alone_passes_and_is_named(tmp_path: Path):
    """In the last lines of the output, and in a file that is only added to."""
    code, said, noted = run(tmp_path, LATE + PLAIN)
    assert code == 0, said
    names = [f"test_it.py::test_late[{text}]" for text in ("a::b", "c - d")]
    assert said.endswith("\n".join(["passed only when run again:", *(f"  {n}" for n in names), ""]))
    assert noted.read_text().splitlines() == names


@pytest.mark.parametrize("more", [WRONG, DRAWN, MANY], ids=["wrong", "drawn", "many"])
def test_what_is_no_bad_luck_fails(tmp_path: Path, more: str):
    """What fails again; what a random input has found; more than a few."""
    code, said, noted = run(tmp_path, LATE + more)
    assert code == 1, said
    assert ("passed only when run again" in said, noted.exists()) == (False, False)


def test_a_test_that_breaks_its_process_fails_and_the_others_go_on(tmp_path: Path):
    """Side by side, as in `make test`."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    code, said, _ = run(tmp_path, LATE + PLAIN + BREAKS, "-n", "2", "--dist", "loadgroup")
    assert (code, "3 failed, 20 passed" in said) == (1, True), said
