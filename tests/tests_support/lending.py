"""A server that tests share belongs to one test at a time, and is given back as it was."""

import contextlib
from collections.abc import Iterator

import redis

from tests_support.servers import Server


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
        changed = {
            name: now[name] for name, value in self._configured.items() if now[name] != value
        }
        for name in changed:
            self._orders.config_set(name, first[name])
        assert changed == {}, "a test has left the store that tests share configured otherwise"
