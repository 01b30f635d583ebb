"""Run tests; what fails by its timing may show that it passes alone.

    python scripts/test.py ARGUMENTS     those of pytest

What has failed is run once more, one test after another and nothing beside them, with the same
seed. When all of it passes then, so does the run, and it ends with their names, which are added
to build/flaky.txt too. A second run would hide what a test with random input has found, so the
failure of such a test is final; so is that of a test that breaks its process, and a run with
more than ten failures is not repeated.
"""

import subprocess
import sys
from pathlib import Path

import pytest

FLAKY = Path("build/flaky.txt")
MOST = 10
"""So many failures may be bad luck."""

DRAWN = ("tests/lua/", "tests/simulation/")
"""Models and simulations, and their planted faults. Hypothesis marks its tests by itself."""


class Failures:
    """What failed in a run: a plugin."""

    def __init__(self) -> None:
        self.again: dict[str, None] = {}
        self.final: dict[str, None] = {}
        self.options: list[str] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        """Keep the options of the run, without what names tests or has them run side by side."""
        named = set(config.args)
        self.options = [str(each) for each in config.invocation_params.args if each not in named]
        self.options += ["-n", "0"] if config.pluginmanager.hasplugin("xdist") else []

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the seed, where there is one."""
        seed = session.config.getoption("randomly_seed", None)
        if seed is not None:
            self.options.append(f"--randomly-seed={seed}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Sort a failure."""
        if report.failed:
            final = report.nodeid.startswith(DRAWN) or "hypothesis" in report.keywords
            broken = report.when not in {"setup", "call", "teardown"}  # xdist lost a worker
            (self.final if final or broken else self.again)[report.nodeid] = None

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """What cannot be read does not pass alone either."""
        if report.failed:
            self.final[report.nodeid] = None


def main(arguments: list[str]) -> int:
    """The exit code: of the run, or 0 when all that failed passes alone."""
    here = str(Path(__file__).parent)
    sys.path[:] = [each for each in sys.path if each != here]  # as pytest would be started
    failures = Failures()
    code = int(pytest.main(arguments, plugins=[failures]))
    names = list(failures.again)
    if code != pytest.ExitCode.TESTS_FAILED or failures.final or len(names) > MOST:
        return code
    print(f"\ntest: {len(names)} failed; each again, one after another", flush=True)
    command = [sys.executable, "-m", "pytest", *failures.options, *names]
    done = subprocess.run(command, check=False)  # noqa: S603  # our own words
    if done.returncode == 0:
        tell(names)
    return done.returncode


def tell(names: list[str]) -> None:
    """Leave no doubt about what happened."""
    print("\ntest: passed only when run again:")
    print("\n".join(f"  {name}" for name in names), flush=True)
    FLAKY.parent.mkdir(exist_ok=True)
    with FLAKY.open("a") as file:
        file.writelines(f"{name}\n" for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
