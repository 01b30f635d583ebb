"""Environments that hold the peers: thrown away with build/, made again when their pins change."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "peers"


def peers() -> Path:
    """The interpreter of the environment with every peer but one."""
    return _made("peers", Path(sys.executable))


def token_throttle(python: str | None) -> Path | None:
    """The interpreter of the one with token-throttle, made by *python* or whichever is found;
    None where none is new enough.
    """
    newer = _newer(python)
    return None if newer is None else _made("token-throttle", newer)


def _newer(python: str | None) -> Path | None:
    """A Python of 3.12 or later. Commands of that name may be there and not run."""
    names = ["python3.14", "python3.13", "python3.12"]
    for found in [python] if python else (sys.executable, *map(shutil.which, names)):
        asks = [found or "false", "-c", "import sys; sys.exit(sys.version_info < (3, 12))"]
        if subprocess.run(asks, capture_output=True, check=False).returncode == 0:
            return Path(str(found))
    return None


def _made(name: str, python: Path) -> Path:
    place, pins = BUILD / name, HERE / "requirements" / f"{name}.txt"
    wanted = hashlib.sha256(pins.read_bytes() + str(python).encode()).hexdigest()
    stamp, inside = place / "made-from", place / "bin/python"
    if not stamp.exists() or stamp.read_text() != wanted:
        sys.stderr.write(f"building {place}\n")
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([python, "-m", "venv", place], check=True)
        install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-deps", "-r", pins], check=True)
        stamp.write_text(wanted)
    return inside
