"""Stores and the service in containers, where an engine runs."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import docker
import redis
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from tests_support import images
from tests_support.servers import Server
from tests_support.waiting import wait_until

# It would be an image from a registry. What is started here is stopped here.
testcontainers_config.ryuk_disabled = True

RESTRICTED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}
_LISTENING = re.compile(r"listening on (http://\S+)")
_START_TIMEOUT = 60.0


def engine() -> docker.DockerClient | str:
    """The engine, or why there is none."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not address.startswith("unix://"):
        return f"the engine at {address} is not on this machine: it shares no sockets with tests"
    try:
        # Asked by hand: docker's client leaves its socket open when nobody is there.
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address.removeprefix("unix://"))
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        return f"no Docker engine answers at {address}: {error}"
    return client


class StoreContainer(Server):
    """A Redis or Valkey in a container, at a socket in a directory that both see."""

    def __init__(self, image: str, home: Path, *options: str) -> None:
        super().__init__("", home, *options)
        self._container = (
            DockerContainer(image)
            .with_volume_mapping(str(home), str(home), "rw")
            .with_command(self._command[1:])
            .with_kwargs(network_mode="none", user=f"{os.getuid()}:{os.getgid()}", **RESTRICTED)
        )

    @property
    def pid(self) -> int:
        """Inside the container, where it is alone."""
        return 1

    def start(self) -> None:
        """Start, and return when it answers."""
        self._container.start()
        wait_until(self._answers, "the store in the container does not answer", _START_TIMEOUT)

    def kill(self) -> None:
        """End it without a warning."""
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """Start the same container again, with its data."""
        self.socket.unlink(missing_ok=True)
        self._container.get_wrapped_container().start()
        wait_until(self._answers, "the store in the container does not come back", _START_TIMEOUT)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.stop()

    def _answers(self) -> bool:
        client = redis.Redis(unix_socket_path=str(self.socket))
        with client, contextlib.suppress(redis.ConnectionError):
            return bool(client.info()["loading"] == 0)
        return False


class ServiceContainer:
    """The image of the service on the loopback address; a context manager."""

    def __init__(self, *arguments: str, volumes: dict[str, str] | None = None, **more: Any) -> None:
        self._container = (
            DockerContainer(images.SERVICE)
            .with_command(["serve", "--host", "127.0.0.1", "--port", "0", *arguments])
            .with_kwargs(**RESTRICTED | {"network_mode": "host"} | more)
        )
        self._container.tmpfs |= {
            "/tmp": "mode=1777",
            "/var/lib/sluicegate": "uid=65532,gid=65532,mode=700",
        }
        for host, inside in (volumes or {}).items():
            self._container.with_volume_mapping(host, inside, "ro")
        self.url = ""

    def __enter__(self) -> "ServiceContainer":
        self._container.start()
        try:
            wait_until(self._listens, "the container does not serve", _START_TIMEOUT)
        except BaseException:
            self._container.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._container.stop()

    @property
    def inner(self) -> Any:  # docker's own, which has no types
        """The container as docker knows it."""
        return self._container.get_wrapped_container()

    def logs(self) -> str:
        """What it has written so far."""
        text: str = self.inner.logs().decode()
        return text

    def stop(self, seconds: int = 20) -> tuple[int, float]:
        """SIGTERM, and SIGKILL after *seconds*; the exit code, and how long it took."""
        began = time.monotonic()
        self.inner.stop(timeout=seconds)
        return self.inner.wait()["StatusCode"], time.monotonic() - began

    def _listens(self) -> bool:
        found = _LISTENING.search(self.logs())
        if found:
            self.url = found[1]
        else:
            self.inner.reload()
            assert self.inner.status != "exited", self.logs()
        return found is not None


Ran = tuple[int, str]


def runner(client: docker.DockerClient, image: str) -> Callable[..., Ran]:
    """Run a command in a fresh container of *image*: its exit code and what it wrote."""

    def run(*command: str, **more: Any) -> Ran:
        started = client.containers.create(
            image, list(command), **({"network_mode": "none"} | RESTRICTED | more)
        )
        try:
            started.start()
            code = started.wait()["StatusCode"]
            return code, started.logs().decode()
        finally:
            started.remove(force=True, v=True)

    return run


def files_of(client: docker.DockerClient, image: str, path: str) -> Iterator[bytes]:
    """The tarball of a directory of *image*."""
    created = client.containers.create(image)
    try:
        stream, _ = created.get_archive(path)
        yield from stream
    finally:
        created.remove(v=True)
