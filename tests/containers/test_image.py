"""The image: small, bare, not root, and it does what it is told."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest
from tests_support import chart, containers, images
from tests_support.containers import ServiceContainer
from tests_support.waiting import wait_until

from client_sdk import SyncLimiter

pytestmark = pytest.mark.timeout(900)  # the first test builds the image

POOLS = """
pools:
  p:
    limits:
      - {name: day, meter: requests, limit: 1000, per: day, window: calendar,
         timezone: Europe/Berlin}
    models:
      m: {tpm: 1000, concurrency: 4}
"""


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pools file that other users may read."""
    home = tmp_path_factory.mktemp("pools")
    home.chmod(0o755)
    (home / "pools.yaml").write_text(POOLS)
    return str(home)


@pytest.fixture(scope="module")
def service(image: str, pools: str) -> Iterator[ServiceContainer]:
    """A container with its own store and a root file system that is only read."""
    arguments = ("--config", "/etc/sluicegate/pools.yaml")
    with ServiceContainer(*arguments, volumes={pools: "/etc/sluicegate"}) as running:
        yield running


def test_it_adds_less_than_150_mb(engine: docker.DockerClient, image: str) -> None:
    """On top of the Python that it is built on."""
    sizes = [engine.images.get(name).attrs["Size"] for name in (image, images.BASE)]
    assert 20e6 < sizes[0] - sizes[1] < 150e6


def test_it_has_no_installer_and_no_compiler(engine: docker.DockerClient, image: str) -> None:
    """Nothing in it makes anything."""
    run = containers.runner(engine, image)
    look = """
import importlib.util, shutil
tools = [t for t in ("pip", "gcc", "cc", "make", "git", "curl", "wget") if shutil.which(t)]
modules = [m for m in ("pip", "setuptools", "hatchling", "pytest") if importlib.util.find_spec(m)]
print(tools + modules)
"""
    assert run("-c", look, entrypoint=["python"]) == (0, "[]\n")
    code, said = run("-m", "pip", entrypoint=["/usr/local/bin/python"])
    assert (code, "No module named pip" in said) == (1, True)


def test_it_is_not_root_and_writes_nowhere_but_where_it_may(
    engine: docker.DockerClient, image: str
) -> None:
    """By its own default, without a word of whoever starts it."""
    attempt = """
import os
print(os.getuid(), os.getgid())
for path in ("/opt/sluicegate/x", "/etc/x", "/x", "/var/lib/sluicegate/x", "/tmp/x"):
    try:
        open(path, "w").close()
    except OSError as error:
        print(path, error.errno)
    else:
        print(path, "written")
"""
    run = containers.runner(engine, image)
    _, said = run("-c", attempt, entrypoint=["python"], read_only=False)
    assert said.splitlines() == [
        "65532 65532",
        "/opt/sluicegate/x 13",
        "/etc/x 13",
        "/x 13",
        "/var/lib/sluicegate/x written",
        "/tmp/x written",
    ]


def test_it_serves_others_only_when_told(engine: docker.DockerClient, image: str) -> None:
    """It listens for everybody, and so asks who may call before it starts."""
    code, said = containers.runner(engine, image)("serve")
    assert (code, "0.0.0.0" in said) == (2, True)


def test_a_lease_goes_round(service: ServiceContainer) -> None:
    """With the store that it starts itself."""
    with SyncLimiter(service.url) as limiter, limiter.acquire("p/m", tokens=300) as lease:
        lease.used(input_tokens=100, output_tokens=100)
    assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_it_says_itself_whether_it_is_well(engine: docker.DockerClient, image: str) -> None:
    """Docker's health check, by the Python in the image."""
    probe = engine.images.get(image).attrs["Config"]["Healthcheck"]["Test"]
    with ServiceContainer() as running:
        here = {"SLUICEGATE_PORT": running.url.rpartition(":")[2]}
        assert running.inner.exec_run(probe[1:], environment=here).exit_code == 0
        elsewhere = {"SLUICEGATE_PORT": "9"}
        assert running.inner.exec_run(probe[1:], environment=elsewhere).exit_code == 1


def test_sigterm_ends_it_with_its_work_done(image: str) -> None:
    """Exit code 0, well before it would be killed."""
    with ServiceContainer() as running:
        code, seconds = running.stop(20)
        assert (code, seconds < 15) == (0, True), running.logs()


def test_the_file_reaches_it_while_it_runs(image: str, tmp_path: Path) -> None:
    """Replaced by a link that is renamed, as Kubernetes does it."""
    home = tmp_path / "pools"
    home.mkdir()
    for name, rpm in (("one", 5), ("two", 7)):
        (home / name).mkdir()
        text = f"pools: {{p: {{models: {{m: {{rpm: {rpm}}}}}}}}}"
        (home / name / "pools.yaml").write_text(text)
    (home / "now").symlink_to("one")
    arguments = ("--config", "/etc/sluicegate/now/pools.yaml")
    with ServiceContainer(*arguments, volumes={str(home): "/etc/sluicegate"}) as running:

        def limit() -> float:
            view = httpx.get(f"{running.url}/v1/resources/p/m").json()
            found: float = view["limits"][0]["limit"]
            return found

        assert limit() == 5
        (home / "next").symlink_to("two")
        (home / "next").rename(home / "now")
        wait_until(lambda: limit() == 7, "the new file is not read", 20)


def test_what_helm_test_runs_is_in_it(
    engine: docker.DockerClient, image: str, service: ServiceContainer
) -> None:
    """The program of the chart's test, by the image's own Python."""
    program = (chart.CHART / "files/round_trip.py").read_text()
    environment = {"SERVICE": service.url, "RESOURCE": "p/m"}
    run = containers.runner(engine, image)
    code, said = run(
        "-c", program, entrypoint=["python"], environment=environment, network_mode="host"
    )
    assert (code, "granted and settled p/m" in said) == (0, True), said


def test_it_is_the_same_when_it_is_built_again(engine: docker.DockerClient, image: str) -> None:
    """File by file: names, modes, owners and content of what is added to the base."""

    def content(name: str) -> dict[str, tuple[int, int, int, str]]:
        data = b"".join(containers.files_of(engine, name, "/opt/sluicegate"))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {
                member.name: (
                    member.mode,
                    member.uid,
                    member.size,
                    hashlib.sha256(archive.extractfile(member).read()).hexdigest(),  # type: ignore[union-attr]  # a file
                )
                for member in archive
                if member.isfile()
            }

    before = content(image)
    images.build_service(engine, again=True)
    after = content(image)
    assert len(before) > 1000
    assert {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)} == set()
