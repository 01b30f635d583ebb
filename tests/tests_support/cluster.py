"""A cluster of three masters on loopback."""

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import redis

from tests_support.servers import Server
from tests_support.waiting import wait_until

_SLOTS = 16_384
_MASTERS = 3
_BUS = 10_000  # a node's bus listens this far above its port


@contextlib.contextmanager
def cluster(binary: str, home: Path) -> Iterator[list[int]]:
    """Start three masters that own every slot between them; yields their ports."""
    with contextlib.ExitStack() as stack:
        ports = free_ports(_MASTERS)
        for port in ports:
            (home / str(port)).mkdir()
            options = ("--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes")
            more = ("--cluster-node-timeout", "2000", "--protected-mode", "no")
            stack.enter_context(Server(binary, home / str(port), *options, *more))
        nodes = [stack.enter_context(redis.Redis(port=port)) for port in ports]
        for i, node in enumerate(nodes):
            first, last = _SLOTS * i // _MASTERS, _SLOTS * (i + 1) // _MASTERS - 1
            node.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[i])
        wait_until(lambda: all(_complete(node) for node in nodes), "the cluster does not form", 30)
        yield ports


def node_of(ports: list[int], key: str) -> int:
    """The port of the master that owns *key*."""
    with redis.Redis(port=ports[0]) as client:
        slot = int(client.execute_command("CLUSTER KEYSLOT", key))
    return ports[next(i for i in range(_MASTERS) if slot < _SLOTS * (i + 1) // _MASTERS)]


def _complete(node: redis.Redis) -> bool:
    report = node.execute_command("CLUSTER INFO")
    text = (
        report
        if isinstance(report, dict)
        else dict(line.split(":", 1) for line in report.decode().split() if ":" in line)
    )
    return text["cluster_state"] == "ok" and text["cluster_known_nodes"] == str(_MASTERS)


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody has, nor those of a node's bus that go with them."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 40_000)
        with contextlib.suppress(OSError), socket.socket() as plain, socket.socket() as bus:
            plain.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + _BUS))
            found.append(port)
    return found
