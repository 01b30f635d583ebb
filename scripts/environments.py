"""Environments beside ours: pinned packages, by hash, in front of those of this interpreter."""

import hashlib
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEHIND = "import site; site.addsitedir({path!r})\n"


def home(group: str, name: str) -> Path:
    """Where the environment *name* of a group is: beside the one that this script runs in."""
    return Path(sys.prefix).parent / f".venv-{group}" / name


def build(place: Path, pins: Path) -> Path:
    """The interpreter of the environment at *place*, made anew unless it holds what is wanted."""
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    python, stamp = place / "bin/python", place / "made-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"building {place.parent.name}/{place.name}", flush=True)
    venv.create(place, clear=True, with_pip=False, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-compile", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "-r", str(pins)], check=True)  # noqa: S603  # our own words
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    behind = BEHIND.format(path=sysconfig.get_path("purelib"))
    (place / "lib" / version / "site-packages/behind.pth").write_text(behind)
    stamp.write_text(wanted)
    return python
