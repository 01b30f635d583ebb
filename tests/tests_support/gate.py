"""A way to a server that takes some and keeps others out, by the address that they come from.

Hosts of one network are told apart by addresses of loopback: each server and each sentinel binds
what it connects to another one of them (`bind-source-addr`). Clients stay at the first.
"""

import asyncio
import contextlib
import socket
from types import TracebackType

from tests_support.balancer import Balancer, Target

_FIRST = 2  # 127.0.0.1 is everybody else's


def address(nth: int) -> str:
    """Where the *nth* host of a network connects from."""
    return f"127.0.0.{_FIRST + nth}"


def has_addresses() -> bool:
    """Whether loopback has more than one address here; elsewhere no network can be parted."""
    with contextlib.suppress(OSError), socket.socket() as tried:
        tried.bind((address(0), 0))
        return True
    return False


class Gate(Balancer):
    """Lets through nothing to or from addresses that are kept out; their connections stay."""

    def __init__(self, port: int, target: Target) -> None:
        """It listens at *port*."""
        super().__init__([target])
        self.port = port
        self._ways: dict[str, asyncio.Event] = {}

    def keep_out(self, *addresses: str) -> None:
        """Nothing of theirs comes or goes from now on."""
        for each in addresses:
            self._loop.call_soon_threadsafe(lambda each=each: self._way(each).clear())

    def open(self) -> None:
        """Let everything through, also what was held up."""
        self._loop.call_soon_threadsafe(self._open)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open()
        super().__exit__(kind, error, trace)

    def _open(self) -> None:
        for way in self._ways.values():
            way.set()

    def _way(self, host: str) -> asyncio.Event:
        if host not in self._ways:
            self._ways[host] = asyncio.Event()
            self._ways[host].set()
        return self._ways[host]

    def _gates(self, writer: asyncio.StreamWriter) -> tuple[asyncio.Event, asyncio.Event]:
        way = self._way(writer.get_extra_info("peername")[0])
        return way, way
