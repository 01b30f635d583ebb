"""Build the environments in which adapters meet the real packages, and run their tests there.

    python scripts/adapters.py build     what is missing or out of date
    python scripts/adapters.py test      and run tests/adapters in each; arguments go to pytest

Versions of these packages conflict with one another, and none is a dependency of ours. An
environment holds what `tests/adapters/requirements/NAME.txt` pins, by hash, and sees the
packages of the environment that this script runs in behind them.
"""

import os
import subprocess
import sys
from pathlib import Path

from environments import ROOT, build, home

REQUIREMENTS = ROOT / "tests/adapters/requirements"


def built(name: str) -> Path:
    """The interpreter of the environment *name*."""
    return build(home("adapters", name), REQUIREMENTS / f"{name}.txt")


def names() -> list[str]:
    """The environments."""
    return sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))


# Packages that would look for their home, or for a collector, when they are imported or used.
ALONE = {
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}


def test(name: str, arguments: list[str]) -> int:
    """Run the tests in the environment *name*; the exit code of pytest."""
    print(f"adapters: testing in {name}", flush=True)
    command = [str(built(name)), "scripts/test.py", "tests/adapters", "-q", "-p", "no:schemathesis"]
    command += ["--timeout", "180"]  # importing some of these packages takes its time
    command += ["-W", "default"]  # what clients of others leave open is not ours to close
    environment = os.environ | ALONE  # noqa: TID251  # for a child
    done = subprocess.run([*command, *arguments], cwd=ROOT, check=False, env=environment)  # noqa: S603  # our own words
    return done.returncode


def main(arguments: list[str]) -> int:
    """Do what is asked; the first exit code that is not 0."""
    if not arguments or arguments[0] not in {"build", "test"}:
        print(__doc__)
        return 2
    for name in names():
        built(name)
    codes = [test(name, arguments[1:]) for name in names()] if arguments[0] == "test" else []
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
