"""Write the pins of the image, a part of constraints.txt, or check (`--check`) them.

constraints-image.txt holds what the image runs, constraints-build.txt what makes our wheel:
hashes are those of constraints.txt. What belongs to each follows from the requirements of
the packages that are installed here, for every Python that we support.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# A base may have no time zones, which calendar windows need.
PARTS = {
    "constraints-image.txt": ("What the image runs", ["sluicegate[service,cost]", "tzdata"]),
    "constraints-build.txt": ("What makes the wheel", ["hatchling"]),
}


def main(arguments: list[str]) -> int:
    """Write or check both files; 0 when all is well."""
    blocks = pins(PINS.read_text(encoding="utf-8"))
    stale = 0
    for name, (about, roots) in PARTS.items():
        wanted = closure(roots) & set(blocks)
        head = f"# {about}: a part of constraints.txt, written by scripts/image_pins.py.\n"
        text = head + "".join(blocks[package] for package in sorted(wanted))
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"pins: {name} is stale; run scripts/image_pins.py")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


def pins(text: str) -> dict[str, str]:
    """The lines of each package of a file of pins."""
    found = re.findall(r"^[^\s#][^\n]*\n(?:[ \t]+[^\n]*\n)*", text, re.MULTILINE)
    return {_normal(re.split(r"[=\[ ;]", block)[0]): block for block in found}


def closure(roots: Iterable[str]) -> set[str]:
    """*roots*, and what they need in turn."""
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            key = _normal(wanted.name), extra
            if key not in seen:
                seen.add(key)
                waiting += _needs(*key)
    return {name for name, _ in seen} - {"sluicegate"}


def _needs(name: str, extra: str) -> Iterator[Requirement]:
    """What a package needs with an extra, on Linux."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # for another Python than this one
        return
    for line in lines:
        needed = Requirement(line)
        marker = needed.marker
        if marker is None or any(
            marker.evaluate(
                {
                    "extra": extra,
                    "python_version": python,
                    "python_full_version": f"{python}.0",
                    "sys_platform": "linux",
                    "platform_system": "Linux",
                }
            )
            for python in PYTHONS
        ):
            yield needed


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
