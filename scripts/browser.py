"""Try the dashboard in a browser: build an environment with Playwright, run tests/dashboard there.

    python scripts/browser.py            arguments go to pytest
    python scripts/browser.py build      the environment alone

The browser is the system's Chromium (Debian: chromium); none is downloaded. Without one the
tests skip. Pictures of the page are left in build/dashboard.
"""

import subprocess
import sys

from environments import ROOT, build, home

PINS = ROOT / "tests/dashboard/requirements.txt"


def main(arguments: list[str]) -> int:
    """The exit code."""
    python = build(home("browser", "playwright"), PINS)
    if arguments == ["build"]:
        return 0
    command = [str(python), "scripts/test.py", "tests/dashboard", "-q", "-p", "no:schemathesis"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, check=False)  # noqa: S603  # our own words
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
