"""Run the tests that need a Docker engine, with an engine of their own where none answers.

    python scripts/containers.py            arguments go to pytest
    python scripts/containers.py --all ...  every test that takes a store, over containers

Tests that take a store take it from a fixture, which gives them one in a container. Those that
kill stores or make clusters of them start their own.

An engine of their own is Debian's `dockerd` in a temporary directory, without a network: what
runs in it is built from what is installed here and speaks over sockets and the loopback
address. Where there is no `dockerd`, or nobody may start it, the tests skip and say so.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker

ROOT = Path(__file__).parents[1]
_START_TIMEOUT = 30.0
_STORES: tuple[str, ...] = ("tests/lua/test_scripts.py", "tests/service/test_acquire_http.py")
_STORES += ("tests/service/test_settle_http.py", "tests/service/test_queue_http.py")


def main(arguments: list[str]) -> int:
    """Run tests/containers, and over stores in containers some tests that take one, or all."""
    every = "--all" in arguments
    arguments = [word for word in arguments if word != "--all"]
    stores = ["tests"] if every else list(_STORES)
    with contextlib.ExitStack() as stack:
        environment = dict(os.environ)  # noqa: TID251  # for children
        if not answers(None):
            environment |= stack.enter_context(own_engine())
        pytest = [sys.executable, "scripts/test.py", *arguments]
        codes = [
            subprocess.run([*pytest, *tests], cwd=ROOT, env=environment | more, check=False)  # noqa: S603  # our own words
            for tests, more in ((["tests/containers"], {}), (stores, {"STORES": "containers"}))
        ]
    return next((done.returncode for done in codes if done.returncode), 0)


def answers(address: str | None) -> bool:
    """Whether an engine answers there."""
    try:
        client = docker.DockerClient(address) if address else docker.from_env()
        with contextlib.closing(client):
            return bool(client.ping())
    except (docker.errors.DockerException, OSError):
        return False


@contextlib.contextmanager
def own_engine() -> Iterator[dict[str, str]]:
    """The environment in which an engine of our own is found; empty where none can run."""
    binary = shutil.which("dockerd")
    if binary is None or os.geteuid() != 0:
        print("containers: no engine answers, and none can be started here", flush=True)
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="engine", ignore_cleanup_errors=True) as home:
        address = f"unix://{home}/s"
        command = [binary, "--host", address, "--iptables=false", "--ip6tables=false"]
        command += ["--bridge=none", "--pidfile", f"{home}/pid"]
        command += ["--data-root", f"{home}/data", "--exec-root", f"{home}/run"]
        with Path(home, "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603  # as above
        try:
            deadline = time.monotonic() + _START_TIMEOUT
            while not answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    print("containers: dockerd does not run here:", flush=True)
                    print(Path(home, "log").read_text()[-2000:], flush=True)
                    yield {}
                    return
                time.sleep(0.1)
            yield {"DOCKER_HOST": address}
        finally:
            process.terminate()
            process.wait()
            _let_go(home)


def _let_go(home: str) -> None:
    """Unmount what an engine leaves mounted, as its networks' namespaces: it cannot be removed."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([path for path in mounted if path.startswith(f"{home}/")]):
        subprocess.run(["umount", "--lazy", place], check=False)  # noqa: S603, S607  # as above


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
