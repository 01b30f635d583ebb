"""What `helm test` runs in a cluster, run here against a service."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests_support import chart
from tests_support.service import ServiceProcess

PROGRAM = (chart.CHART / "files/round_trip.py").read_text()
KEY = "sg_0123456789ab_" + "k" * 43
POOLS = """
pools:
  p:
    models:
      m: {tpm: 1000}
      spent: {rpm: 1, concurrency: 1}
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The URL of a service with its own store."""
    pools = tmp_path / "pools.yaml"
    pools.write_text(POOLS)
    arguments = ("--config", str(pools), "--state-dir", str(tmp_path / "s"))
    with ServiceProcess(*arguments, env={"SLUICEGATE_ADMIN_KEY": KEY}) as running:
        yield running.url


def run(url: str, resource: str | None = None, key: str = KEY) -> subprocess.CompletedProcess[str]:
    """The program as the pod starts it."""
    given = {"SERVICE": url, "KEY": f"{key}\n"} | ({"RESOURCE": resource} if resource else {})
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_lease_goes_round(service: str) -> None:
    """Granted and settled, or refused for want of budget: both are a service that works."""
    for resource, word in ((None, "readyz 200"), ("p/m", "granted"), ("p/spent", "granted")):
        done = run(service, resource)
        assert done.returncode == 0, done.stderr
        assert word in done.stdout
    assert "refused" in run(service, "p/spent").stdout


def test_what_does_not_work_fails(service: str) -> None:
    """A resource that is not served, a key that is not known, a service that is not there."""
    assert run(service, "p/unknown").returncode != 0
    assert run(service, "p/m", KEY[:-1] + "x").returncode != 0
    assert run("http://127.0.0.1:9").returncode != 0


def test_the_pod_is_told_a_resource_that_is_served() -> None:
    """Of the first pool in the configuration; none where the chart does not know it."""

    def told(values: chart.Values) -> list[str]:
        pod = chart.the("Pod", chart.objects(values))["spec"]["containers"][0]
        assert pod["command"][2].rstrip("\n") == PROGRAM.rstrip("\n")
        return [e["value"] for e in pod["env"] if e["name"] == "RESOURCE"]

    models = {"*": {"rpm": 5}, "n": {"rpm": 5}, "m": {"rpm": 5}}
    assert told({}) == ["example/helm-test"]
    assert told({"existingConfigMap": "pools"}) == []
    assert told({"config": {"pools": {"b": {}, "a": {"models": models}}}}) == ["a/m"]
    assert told({"config": {"pools": {"a": {"models": {"*": {"rpm": 5}}}}}}) == ["a/helm-test"]
    assert told({"helmTest": {"resource": "x/y"}}) == ["x/y"]
