"""Stores of tests: where they run, and how a shared one belongs to one test at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests_support.servers import BINARIES, Server

IN_CONTAINERS = os.environ.get("STORES") == "containers"
"""The same stores in containers: `STORES=containers pytest tests`, with an engine."""


def store_of(kind: str, home: Path) -> Server:
    """A server of a kind, not yet started. Without one the test is skipped."""
    binary = BINARIES[kind]
    if binary is None:
        pytest.skip(f"no {kind}-server is installed")
    if not IN_CONTAINERS:
        return Server(binary, home)
    from tests_support import containers, images  # noqa: PLC0415  # needs docker's client

    engine = containers.engine()
    if isinstance(engine, str):
        pytest.skip(engine)
    return containers.StoreContainer(images.build_store(engine, kind, binary), home)


class Shared:
    """A running server, and how it was configured at first; a context manager."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._orders = redis.Redis(unix_socket_path=str(server.socket))
        self._configured: dict[str, str] = self._orders.config_get("*")

    def __enter__(self) -> "Shared":
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()

    @contextlib.contextmanager
    def lent(self) -> Iterator[Server]:
        """The server, empty. Afterwards it must run, and be configured as before."""
        self._orders.flushall()
        yield self._server
        now: dict[str, str] = self._orders.config_get("*")
        first = self._configured
        changed = {name: now[name] for name in first if now[name] != first[name]}
        for name in changed:
            self._orders.config_set(name, first[name])
        assert changed == {}, "a test has left the store that tests share configured otherwise"
