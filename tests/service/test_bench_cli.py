"""`sluicegate bench`: a short measurement, of a service of its own or of a running one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from typer.testing import CliRunner, Result

from limiter_service.bench.measuring import times
from limiter_service.cli import app

POOLS = """
pools:
  p:
    models:
      m: {limits: [{name: budget, meter: tokens, limit: 100000, per: 366d}]}
      few: {limits: [{name: calls, meter: requests, limit: 3, per: 366d}]}
"""


_LONG_ENOUGH = ("0.2", "2", "20")
"""Seconds in which this machine answers something: nearly always the first."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short name: the path of a socket is bounded."""
    with tempfile.TemporaryDirectory(prefix="sg-") as name:
        yield Path(name)


def test_a_service_of_its_own_is_started_measured_and_stopped(folder: Path):
    """Nothing is left of it, and a setting of this environment is not its."""
    env = {**os.environ, "TMPDIR": str(folder), "SLUICEGATE_PORT": "1"}
    command = [sys.executable, "-m", "limiter_service", "bench", "--output", "json"]
    for seconds in _LONG_ENOUGH:
        done = subprocess.run(
            [*command, "--connections", "2", "--seconds", seconds],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["granted"] > 0
    assert found["pairs_per_second"] == pytest.approx(found["granted"] / float(seconds))
    assert 0 < found["acquire"]["p50"] <= found["acquire"]["p99"] <= found["acquire"]["max"]
    assert found["refused"] == {}
    assert list(folder.iterdir()) == []


def benched(*words: str) -> Result:
    """A run that is long enough for this machine to answer something."""
    for seconds in _LONG_ENOUGH:
        command = ["bench", "--seconds", seconds, "--connections", "3", *words]
        done = CliRunner().invoke(app, command)
        if "none ended in time" not in done.output:
            return done
    raise AssertionError(done.output)


@pytest.mark.parametrize("server", ["valkey"], indirect=True)
def test_a_running_service_gets_its_tokens_back(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
):
    """What is refused is told by its code, and nothing granted at all is a failure."""
    file = write_config(POOLS)
    with ServiceProcess("--config", str(file), "--redis-url", server.url) as service:
        there = ("--url", service.url)
        done = benched("p/m", *there)
        assert done.exit_code == 0, done.output
        assert "3 connections, " in done.output
        left = httpx.get(f"{service.url}/v1/resources/p/m").json()["limits"][0]["remaining"]
        assert left == 100_000
        spent = benched("p/few", *there)
        assert spent.exit_code == 1
        assert "refused with rate_limited" in spent.output
        assert "no call was granted: rate_limited" in spent.output
    away = benched("p/m", "--url", "http://127.0.0.1:1")
    assert away.exit_code == 1
    assert "the service at http://127.0.0.1:1 cannot be reached" in away.output


def test_quantiles_are_values_that_were_seen():
    """And zeros where none were."""
    found = times([3.0, 1.0, 2.0])
    assert (found.p50, found.max) == (2.0, 3.0)
    assert times([]).max == 0
