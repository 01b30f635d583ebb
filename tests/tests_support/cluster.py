"""A cluster of three masters on loopback, whose slots can be moved and nodes killed."""

import contextlib
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from tests_support.gate import Gate, address
from tests_support.servers import Server
from tests_support.waiting import until, wait_until

_SLOTS = 16_384
_MASTERS = 3
_BUS = 10_000  # a node's bus listens this far above its port


@contextlib.contextmanager
def cluster(binary: str, home: Path) -> Iterator[list[int]]:
    """Start three masters that own every slot between them; yields their ports."""
    with Nodes(binary, home) as nodes:
        yield nodes.ports


class Nodes:
    """The nodes of a cluster; a context manager.

    The last of `ports` are replicas of the first masters, as many as were asked for. Where they are
    `gated`, nodes can be cut off from each other.
    """

    def __init__(
        self,
        binary: str,
        home: Path,
        *options: str,
        replicas: int = 0,
        timeout: int = 2000,
        gated: bool = False,
    ) -> None:
        count = _MASTERS + replicas
        found = free_ports(2 * count if gated else count)
        self.ports = found[:count]
        self._gates = {
            port: Gate(way, port + _BUS)
            for port, way in zip(self.ports, found[count:], strict=False)
        }
        self.servers: dict[int, Server] = {}
        for nth, port in enumerate(self.ports):
            (home / str(port)).mkdir()
            self.servers[port] = Server(
                binary,
                home / str(port),
                *("--port", str(port), "--bind", "127.0.0.1", "--protected-mode", "no"),
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout)),
                *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
                *(self._behind_its_gate(port, address(nth)) if gated else ()),
                *options,
            )
        self._stack = contextlib.ExitStack()
        self._orders: dict[int, redis.Redis] = {}

    def _behind_its_gate(self, port: int, host: str) -> tuple[str, ...]:
        """The others find its bus there, and know it by where it comes from."""
        bus = ("--cluster-announce-bus-port", str(self._gates[port].port))
        return (*bus, "--cluster-announce-ip", "127.0.0.1", "--bind-source-addr", host)

    @property
    def url(self) -> str:
        """Every node."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+cluster://{hosts}"

    def __enter__(self) -> "Nodes":
        for gate in self._gates.values():
            self._stack.enter_context(gate)
        for port, server in self.servers.items():
            self._stack.enter_context(server)
            self._orders[port] = self._stack.enter_context(redis.Redis(port=port))
        masters, replicas = self.ports[:_MASTERS], self.ports[_MASTERS:]
        for i, port in enumerate(masters):
            first, last = _SLOTS * i // _MASTERS, _SLOTS * (i + 1) // _MASTERS - 1
            self.order(port, "CLUSTER ADDSLOTSRANGE", first, last)
        for port in self.ports[1:]:
            bus = self._gates[port].port if self._gates else port + _BUS
            self.order(masters[0], "CLUSTER MEET", "127.0.0.1", port, bus)
        wait_until(lambda: all(map(self.whole, self.ports)), "the cluster does not form", 30)
        for master, replica in zip(masters, replicas, strict=False):
            self.order(replica, "CLUSTER REPLICATE", self.name(master))
            wait_until(lambda r=replica: self._follows(r), "the replica does not follow", 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def order(self, port: int, *command: Any) -> Any:
        """What a node answers to a command of the test."""
        return self._orders[port].execute_command(*command)

    def name(self, port: int) -> str:
        """The id of a node."""
        return str(self.order(port, "CLUSTER MYID").decode())

    def errors(self) -> dict[str, int]:
        """How often all nodes have refused, by code."""
        total: dict[str, int] = {}
        for orders in self._orders.values():
            for name, seen in orders.info("errorstats").items():
                code = name.removeprefix("errorstat_")
                total[code] = total.get(code, 0) + int(seen["count"])
        return total

    async def move(
        self,
        key: str,
        source: int,
        target: int,
        moved: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Move the slot of *key* as an operator would. Returns when callers of the slot have met
        every kind of redirection on the way, so there must be some. *moved* is awaited when all
        keys are at the new owner, which does not own them yet.

        While a slot moves, a script with a key that exists and one that does not is refused
        everywhere (TRYAGAIN).
        """
        slot = self.order(source, "CLUSTER KEYSLOT", key)
        self.order(target, "CLUSTER SETSLOT", slot, "IMPORTING", self.name(source))
        self.order(source, "CLUSTER SETSLOT", slot, "MIGRATING", self.name(target))
        await self._met("TRYAGAIN")
        while keys := self.order(source, "CLUSTER GETKEYSINSLOT", slot, 100):
            self.order(source, "MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", *keys)
        await self._met("ASK")
        if moved is not None:
            await moved()
        others = (port for port in self.ports if self.order(port, "ROLE")[0] == b"master")
        for port in (target, source, *others):
            self.order(port, "CLUSTER SETSLOT", slot, "NODE", self.name(target))
        await self._met("MOVED")

    async def _met(self, code: str) -> None:
        before = self.errors().get(code, 0)

        async def more() -> bool:
            return self.errors().get(code, 0) > before

        await until(more, f"nobody is told {code}")

    def whole(self, port: int) -> bool:
        """Whether all of the cluster is served, as a node sees it."""
        return complete(self._orders[port], str(len(self.ports)))

    @contextlib.contextmanager
    def cut_off(self, port: int) -> Iterator[None]:
        """A block in which a node and the others hear nothing of each other over the bus."""
        hosts = {other: address(nth) for nth, other in enumerate(self.ports)}
        mine = hosts.pop(port)
        self._gates[port].keep_out(*hosts.values())
        for other in hosts:
            self._gates[other].keep_out(mine)
        try:
            yield
        finally:
            for gate in self._gates.values():
                gate.open()

    def revive(self, port: int) -> None:
        """Start a node again that was killed, as a replica of its heir."""
        self.servers[port].start()
        wait_until(lambda: self._follows(port), "the node does not come back", 30)

    def _follows(self, port: int) -> bool:
        return self._orders[port].info("replication").get("master_link_status") == "up"


def node_of(ports: list[int], key: str) -> int:
    """The port of the master that owns *key*."""
    with redis.Redis(port=ports[0]) as client:
        slot = int(client.execute_command("CLUSTER KEYSLOT", key))
    return ports[next(i for i in range(_MASTERS) if slot < _SLOTS * (i + 1) // _MASTERS)]


def complete(node: redis.Redis, count: str) -> bool:
    """Whether all of the cluster is served, as a node sees it that knows *count* of them."""
    report = node.execute_command("CLUSTER INFO")
    text = (
        report
        if isinstance(report, dict)
        else dict(line.split(":", 1) for line in report.decode().split() if ":" in line)
    )
    return text["cluster_state"] == "ok" and text["cluster_known_nodes"] == count


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody has, nor those of a node's bus that go with them."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 20_000 + _BUS)
        if port in found:
            continue
        with contextlib.suppress(OSError), socket.socket() as plain, socket.socket() as bus:
            plain.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + _BUS))
            found.append(port)
    return found
