"""Links lead somewhere: every relative one to a file that exists, every anchor to a heading."""

import re
from pathlib import Path

import pytest
from tests_support.documents import blocks

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "helm").rglob("*.md")])
LANGUAGES = {"python", "yaml", "toml", "json", "bash", "text"}
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _prose(page: Path) -> str:
    """The page without its code blocks and inline code."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def _anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub turns them into anchors."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A file that moved, or a heading that was reworded, is found here."""
    dead = []
    for link in _LINK.findall(_prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_prose_exist(page: Path) -> None:
    """A file of ours that is named in backticks is there."""
    roots = "limiter_service|limiter_wire|client_sdk|lua|tests|scripts|docs|examples|benchmarks"
    named = re.findall(rf"`((?:{roots})/[\w/.-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_are_of_a_language_that_is_checked(page: Path) -> None:
    """No fence escapes execution by a misspelt language, or by having none."""
    text = page.read_text()
    fences = len(re.findall(r"^ *```", text, re.MULTILINE))
    assert fences == 2 * len(blocks(text))
    assert {block.language for block in blocks(text)} <= LANGUAGES


def test_every_page_of_docs_is_reachable_from_the_readme() -> None:
    """Whoever begins at README.md finds every page; decisions by their folder."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        links = [link.partition("#")[0] for link in _LINK.findall(_prose(page))]
        targets = [(page.parent / link).resolve() for link in links if link]
        waiting += [target for target in targets if target.suffix == ".md" and target.exists()]
        waiting += [p for t in targets if t.is_dir() for p in t.glob("*.md")]
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - seen == set()


def test_the_readme_is_short_and_begins_with_code() -> None:
    """Its first example begins by line 30, and it has at most 150 lines."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert lines.index("```python") < 30


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=str)
def test_a_decision_is_one_page(page: Path) -> None:
    """Context, decision, consequences, in at most 40 lines, under the number in its name."""
    text = page.read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences"]
    assert text.startswith(f"# {int(page.name[:4])}. ")
    assert len(text.splitlines()) <= 40
