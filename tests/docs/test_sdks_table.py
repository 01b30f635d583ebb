"""The versions that the guide names are those that the adapters are tested with."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = ROOT / "tests/adapters/requirements"


def test_the_guide_names_the_versions_that_are_tested() -> None:
    """All of them, in both environments."""
    pinned: dict[str, set[str]] = {}
    for path in PINS.glob("*.txt"):
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE):
            pinned.setdefault(name, set()).add(version)
    guide = (ROOT / "docs/guides/sdks.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \| ([\d., ]+) \|", guide, re.MULTILINE)
    assert len(rows) == 15
    for name, versions in rows:
        assert set(versions.split(", ")) == pinned[name], name
