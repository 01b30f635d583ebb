"""Every test that documents name exists: a promise without one is a wish."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PAGES = [ROOT / "docs" / "reliability.md", ROOT / "docs" / "security.md"]


@cache
def names_in(path: Path) -> frozenset[str]:
    """The names of the tests of a file."""
    tree = ast.parse(path.read_text()) if path.exists() else ast.parse("")
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.AsyncFunctionDef)]
    plain = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    return frozenset(each.name for each in (*functions, *plain) if each.name.startswith("test_"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page: Path):
    """Under its name, in its file."""
    named = _TEST.findall(page.read_text())
    assert [f"{p}::{t}" for p, t in named if t not in names_in(ROOT / p)] == []


def test_every_promise_names_a_test_or_a_figure():
    """In each row of the tables of promises."""
    text = (ROOT / "docs" / "reliability.md").read_text().partition("## Whatever is sent")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    silent = [
        row[:60]
        for row in rows
        if not _TEST.search(row) and "[figures]" not in row and "Shown by" not in row
    ]
    assert len(rows) > 30
    assert silent == []
