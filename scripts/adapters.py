"""Build the environments in which adapters meet the real packages, and run their tests there.

    python scripts/adapters.py build     what is missing or out of date
    python scripts/adapters.py test      and run tests/adapters in each; arguments go to pytest

Versions of these packages conflict with one another, and none is a dependency of ours. An
environment holds what `tests/adapters/requirements/NAME.txt` pins, by hash, and sees the
packages of the environment that this script runs in behind them.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "tests/adapters/requirements"
BEHIND = "import site; site.addsitedir({path!r})\n"


def names() -> list[str]:
    """The environments."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


def home(name: str) -> Path:
    """Where the environment *name* is."""
    return Path(sys.prefix).parent / ".venv-adapters" / name


def python(name: str) -> Path:
    """The interpreter of the environment *name*."""
    return home(name) / "bin/python"


def build(name: str) -> None:
    """Make the environment *name*, unless it is there and holds what is wanted."""
    pins = REQUIREMENTS / f"{name}.txt"
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    stamp = home(name) / "made-from"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"adapters: building {name}", flush=True)
    venv.create(home(name), clear=True, with_pip=False, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", str(python(name)), "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-compile", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "-r", str(pins)], check=True)  # noqa: S603  # our own words
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    behind = BEHIND.format(path=sysconfig.get_path("purelib"))
    (home(name) / "lib" / version / "site-packages/behind.pth").write_text(behind)
    stamp.write_text(wanted)


# Packages that would look for their home, or for a collector, when they are imported or used.
ALONE = {
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}


def test(name: str, arguments: list[str]) -> int:
    """Run the tests in the environment *name*; the exit code of pytest."""
    print(f"adapters: testing in {name}", flush=True)
    command = [str(python(name)), "-m", "pytest", "tests/adapters", "-q", "-p", "no:schemathesis"]
    command += ["--timeout", "180"]  # importing some of these packages takes its time
    command += ["-W", "default"]  # what clients of others leave open is not ours to close
    environment = os.environ | ALONE  # noqa: TID251  # for a child
    done = subprocess.run([*command, *arguments], cwd=ROOT, check=False, env=environment)  # noqa: S603  # as above
    return done.returncode


def main(arguments: list[str]) -> int:
    """Do what is asked; the first exit code that is not 0."""
    if not arguments or arguments[0] not in {"build", "test"}:
        print(__doc__)
        return 2
    for name in names():
        build(name)
    codes = [test(name, arguments[1:]) for name in names()] if arguments[0] == "test" else []
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
