"""A primary, its replicas, and three sentinels that watch over it, on loopback."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from limiter_service.store.address import Tls
from tests_support.balancer import Balancer
from tests_support.cluster import free_ports
from tests_support.gate import Gate, address
from tests_support.servers import Server
from tests_support.waiting import wait_until

SERVICE = "main"
_SENTINELS = 3
_REPLICAS = 2
_QUORUM = 2


class Watched:
    """A context manager. `ports` are those of the servers, the first primary first; replicas
    follow it through a relay. With *tls* all of them speak nothing else, with these files, and
    ask whoever connects for a certificate. Where they are `gated`, `ports` are those of gates by
    which servers are reached, and one can be cut off from its like.
    """

    def __init__(
        self,
        binary: str,
        home: Path,
        *options: str,
        down_after: int = 500,
        tls: Tls | None = None,
        gated: bool = False,
    ) -> None:
        self._tls = tls
        self._relay = Balancer([])
        count = 1 + _REPLICAS
        found = free_ports(_SENTINELS + (2 * count if gated else count))
        self.sentinel_ports, self.ports = found[:_SENTINELS], found[_SENTINELS:][:count]
        own = found[_SENTINELS + count :]
        self._gates = {port: Gate(port, at) for port, at in zip(self.ports, own, strict=False)}
        self._hosts = [address(nth) for nth in range(len(found))]
        self._binary, self._home, self._down_after = binary, home, down_after
        self.servers: dict[int, Server] = {}
        for port, at, host in zip(self.ports, own or self.ports, self._hosts, strict=False):
            (home / str(port)).mkdir()
            lines = self._listens(at) + (_comes_from(host, port) if gated else [])
            self.servers[port] = Server(
                binary,
                home / str(port),
                *(word for line in lines for word in (f"--{line[0]}", line[1])),
                *("--repl-diskless-sync-delay", "0", *options),
            )
        self._stack = contextlib.ExitStack()
        self._orders: dict[int, redis.Redis] = {}

    @property
    def url(self) -> str:
        """Every sentinel, and the service."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis{'s' if self._tls else ''}+sentinel://{hosts}/{SERVICE}"

    @property
    def primary(self) -> int:
        """The port of the primary, as the sentinels have it."""
        sentinel = self._orders[self.sentinel_ports[0]]
        _, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(port)

    def __enter__(self) -> "Watched":
        for gate in self._gates.values():
            self._stack.enter_context(gate)
        for port, server in self.servers.items():
            self._stack.enter_context(server)
            self._orders[port] = self._stack.enter_context(self._client(port))
        self._relay.targets = [self.ports[0]]
        self._stack.enter_context(self._relay)
        for port in self.ports[1:]:
            self.order(port, "REPLICAOF", "127.0.0.1", self._relay.port)
            wait_until(lambda p=port: self._follows(p), "a replica does not follow", 30)
        for port in self.sentinel_ports:
            self._stack.callback(_end, self._start_sentinel(port))
            self._orders[port] = self._stack.enter_context(self._client(port))
        for port in self.sentinel_ports:
            wait_until(lambda p=port: self._knows_all(p), "a sentinel does not know all", 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def order(self, port: int, *command: Any) -> Any:
        """What a server or sentinel answers to a command of the test."""
        return self._orders[port].execute_command(*command)

    def cut_replication(self) -> None:
        """Let no replica hear of anything any more: what the primary grants now is not copied."""
        self._relay.stall()

    @contextlib.contextmanager
    def cut_off(self, port: int) -> Iterator[None]:
        """A block in which sentinels and replicas hear nothing of a server, and clients do."""
        self._gates[port].keep_out(*self._hosts)
        if port == self.ports[0]:
            self._relay.stall()
        try:
            yield
        finally:
            self._relay.flow()
            self._gates[port].open()

    def kill(self) -> None:
        """End the first primary without a warning; what is under way to replicas is lost if
        replication was cut.
        """
        self._relay.targets = []
        self._relay.cut()
        self.servers[self.ports[0]].kill()

    def _start_sentinel(self, port: int) -> "subprocess.Popen[bytes]":
        home = self._home / str(port)
        home.mkdir()
        source = self._hosts[len(self.ports) :][:1] if self._gates else []
        (home / "sentinel.conf").write_text(
            "".join(f"{name} {value}\n" for name, value in self._listens(port))
            + "".join(f"bind-source-addr {host}\n" for host in source)
            + "sentinel announce-ip 127.0.0.1\n"
            + f"dir {home}\nlogfile {home}/log\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.ports[0]} {_QUORUM}\n"
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after}\n"
            f"sentinel failover-timeout {SERVICE} 60000\n"  # it would mend a relayed replica
        )
        command = [self._binary, str(home / "sentinel.conf"), "--sentinel"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: self._answers(port), "a sentinel does not answer")
        return process

    def _listens(self, port: int) -> list[tuple[str, str]]:
        here = [("bind", "127.0.0.1"), ("protected-mode", "no")]
        if self._tls is None:
            return [("port", str(port)), *here]
        return [
            *here,
            *(("port", "0"), ("tls-port", str(port)), ("tls-replication", "yes")),
            *(("tls-auth-clients", "yes"), ("tls-ca-cert-file", str(self._tls.ca))),
            ("tls-cert-file", str(self._tls.certificate)),
            ("tls-key-file", str(self._tls.key)),
        ]

    def _client(self, port: int) -> redis.Redis:
        if self._tls is None:
            return redis.Redis(port=port)
        return redis.Redis(
            host="127.0.0.1",
            port=port,
            ssl=True,
            ssl_ca_certs=self._tls.ca,
            ssl_certfile=self._tls.certificate,
            ssl_keyfile=self._tls.key,
        )

    def _answers(self, port: int) -> bool:
        try:
            with self._client(port) as connection:
                return bool(connection.ping())
        except redis.ConnectionError:
            return False

    def _follows(self, port: int) -> bool:
        return self._orders[port].info("replication").get("master_link_status") == "up"

    def _knows_all(self, port: int) -> bool:
        state = self._orders[port].sentinel_master(SERVICE)
        others = (state["num-slaves"], state["num-other-sentinels"])
        return others == (_REPLICAS, _SENTINELS - 1) and not state["is_sdown"]


def _comes_from(host: str, port: int) -> list[tuple[str, str]]:
    """Where a server behind a gate connects from, and where it is found."""
    found = [("replica-announce-ip", "127.0.0.1"), ("replica-announce-port", str(port))]
    return [*found, ("bind-source-addr", host)]


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    process.wait()
