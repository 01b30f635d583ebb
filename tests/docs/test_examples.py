"""The programs in examples/ run as they stand, against a service with its defaults."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support.service import ServiceProcess

from limiter_service.config import load
from limiter_service.config_advice import advice

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service without a pools file: what the examples' headers tell people to start."""
    with ServiceProcess("--state-dir", str(tmp_path_factory.mktemp("state"))) as service:
        yield service.url


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs(example: Path, url: str) -> None:
    """It ends well, says how many calls it made, and complains of nothing."""
    command = [sys.executable, "-W", "error", str(example), "--url", url, "--calls", "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "calls" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_configuration_is_good(file: Path) -> None:
    """And nothing in it is probably not meant."""
    assert advice(load(file)) == []
