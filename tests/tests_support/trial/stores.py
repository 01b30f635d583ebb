"""Stores that can be broken: one server, a primary under sentinels, a cluster."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests_support.cluster import Nodes, node_of
from tests_support.gate import has_addresses
from tests_support.sentinels import SERVICE, Watched
from tests_support.servers import Server
from tests_support.trial.clocks import Clocks
from tests_support.trial.losing import Losing
from tests_support.trial.moments import moment
from tests_support.waiting import wait_until

_NAMED = 240.0  # seconds; a sentinel that got no processor for 2 s does nothing for 30 s
_LOG = "journal"
_UNHEARD = 10  # changes that replicas do not hear of
LOSS = 0.3
"""The part of replies that is lost, each with its connection."""

_SILENT = 1.0  # seconds after which a node does not answer
LATE = 0.7
"""Seconds by which answers come late at most: more than the store is waited for."""

Fault = Callable[[Random], None]


class Stores:
    """What all of them have in common: the journal, and clocks."""

    pool = "p"
    durable = False
    """Whether what it has acknowledged is never lost."""
    together = frozenset({"store killed", "store stopped", "scripts forgotten"})
    """Faults that every service meets at the same time."""
    one_heir = False
    """Whether the replica that acknowledges is the one that is promoted."""

    def __init__(self, binary: str, home: Path) -> None:
        self.home, self.journal = home, home / _LOG
        self.journal.touch()
        self.clocks = Clocks(binary, home)
        self._ahead: dict[Path, float] = {}

    def url(self, _nth: int, /) -> str:
        """Where the *nth* service finds the store."""
        raise NotImplementedError

    def faults(self) -> dict[str, Fault]:
        """What can befall it; each returns when it is over."""
        raise NotImplementedError

    def primary(self) -> Server:
        """The server that decides for the pool."""
        raise NotImplementedError

    def orders(self) -> redis.Redis:
        """A connection to it."""
        raise NotImplementedError

    def heal(self) -> None:
        """Nothing is broken any more."""

    @property
    def log(self) -> tuple[str, ...]:
        """Options of a server that writes into the journal, also when it is promoted."""
        return ("--logfile", str(self.journal), "--loglevel", "notice")

    def count(self) -> int:
        """How many changes of the pool the store knows of."""
        with self.orders() as orders:
            return int(orders.get(f"sg:{{{self.pool}}}:journal") or 0)

    def left(self) -> list[str]:
        """Keys of waiters, of grants that nobody has fetched, and of blocks that are held."""
        names = ("q:order", "q:tickets", "q:grants", "k")
        with self.orders() as orders:
            keys = [f"sg:{{{self.pool}}}:{name}" for name in names]
            return [key for key in keys if orders.exists(key)]

    def connections(self) -> int:
        """How many clients the server that decides has."""
        with self.orders() as orders:
            return len(orders.client_list()) - 1

    # Faults that any of them has.

    def step_clock(self, seconds: float) -> None:
        """Move the clock of the server that decides, between two scripts."""
        server = self.primary()
        home = server.socket.parent
        with stopped(server.pid):
            self._ahead[home] = self._ahead.get(home, 0.0) + seconds
            by = self.clocks.set(home, self._ahead[home])
            with self.journal.open("a") as file:
                file.write(f"CLOCK {server.pid} {by}\n")

    def started(self, server: Server) -> None:
        """Say what the clock of a server is that has been launched just now."""
        by = round(self._ahead.get(server.socket.parent, 0.0) * 1_000_000)
        with self.journal.open("a") as file:
            file.write(f"CLOCK {server.pid} {by}\n")

    @contextlib.contextmanager
    def unheard(self, primary: int, replicas: Sequence[int]) -> Iterator[None]:
        """A block in which a primary dies with changes that its replicas have not heard of."""
        for port in replicas:
            _order(port, "CONFIG", "SET", "masterauth", "no such password")
        _order(primary, "CLIENT", "KILL", "TYPE", "replica")
        heard = self.count()
        wait_until(lambda: self.count() > heard + _UNHEARD, "nothing is granted", _NAMED)
        yield
        for port in replicas:
            _order(port, "CONFIG", "SET", "masterauth", "")

    def _until_found(self, heir: int) -> None:
        """Return when something is changed there."""

        def changes() -> int:
            with redis.Redis(port=heir) as orders:
                return int(orders.get(f"sg:{{{self.pool}}}:journal") or 0)

        before = changes()
        wait_until(lambda: changes() > before, "nobody finds the next primary", _NAMED)

    def _common(self) -> dict[str, Fault]:
        faults: dict[str, Fault] = {
            "scripts forgotten": self._forget,
            "store stopped": self._stop,
            "store slow": lambda luck: self._pause(luck, "WRITE"),
            "store silent": lambda luck: self._pause(luck, "ALL"),
            "store cuts connections": self._cut_clients,
        }
        if self.clocks.movable:
            faults["clock forward"] = lambda luck: self.step_clock(luck.choice([2.0, 8.0]))
            faults["clock back"] = lambda luck: self.step_clock(-luck.choice([2.0, 8.0]))
        return faults

    def _forget(self, _: Random) -> None:
        with self.orders() as orders:
            orders.script_flush()

    def _stop(self, luck: Random) -> None:
        with stopped(self.primary().pid):
            moment(luck)

    def _pause(self, luck: Random, what: str) -> None:
        with self.orders() as orders:
            orders.execute_command("CLIENT", "PAUSE", luck.randint(50, 700), what)
        moment(luck)

    def _cut_clients(self, luck: Random) -> None:
        """In the middle of what they ask."""
        for _ in range(5):
            with self.orders() as orders:
                orders.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            moment(luck, 0.15)


def _order(port: int, *command: str) -> None:
    with redis.Redis(port=port) as orders:
        orders.execute_command(*command)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does not run for the time of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        state = Path(f"/proc/{pid}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it goes on")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Standalone(Stores):
    """One server that writes each change to a file; each service has a way of its own to it."""

    durable = True

    def __init__(self, binary: str, home: Path, services: int) -> None:
        super().__init__(binary, home)
        self.clocks.set(home, 0.0)
        # With `everysec` a server puts off its writes while the disk is busy, and what it has
        # acknowledged dies with it.
        durable = ("--appendonly", "yes", "--appendfsync", "no")
        self._server = Server(self.clocks.binary, home, *durable, *self.log)
        self.ways = [Losing([str(self._server.socket)], Random(n)) for n in range(services)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Standalone":
        self._stack.enter_context(self._server)
        for way in self.ways:
            self._stack.enter_context(way)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, nth: int, /) -> str:
        """Its own way."""
        return f"redis://127.0.0.1:{self.ways[nth % len(self.ways)].port}"

    def primary(self) -> Server:
        """The one."""
        return self._server

    def orders(self) -> redis.Redis:
        """Not through a way."""
        return redis.Redis(unix_socket_path=str(self._server.socket))

    @property
    def lost(self) -> int:
        """Scripts that have run, and whose answers were lost."""
        return sum(way.lost for way in self.ways)

    def heal(self) -> None:
        """All ways are open."""
        for way in self.ways:
            way.flow()

    def faults(self) -> dict[str, Fault]:
        """The common ones; what a network does; and death."""
        return self._common() | {
            "store killed": self._kill,
            "way to the store cut": self._cut,
            "replies of the store lost": self._lose_replies,
            "replies of the store late": self._be_late,
            "one reply in three lost": self._lose_some,
            "partition from the store": self._part,
        }

    def _kill(self, luck: Random) -> None:
        self._server.kill()
        moment(luck)
        self._server.launch()
        self.started(self._server)
        wait_until(self._server._answers, "the store does not start", 60)

    def _cut(self, luck: Random) -> None:
        way = luck.choice(self.ways)
        for _ in range(5):
            way.cut()
            moment(luck, 0.15)

    def _lose_replies(self, luck: Random) -> None:
        way = luck.choice(self.ways)
        for _ in range(3):
            way.keep_answers()
            moment(luck, 0.3)
            way.cut()
            way.flow()

    def _be_late(self, luck: Random) -> None:
        for way in self.ways:
            way.late = LATE
        moment(luck, 1.5)
        for way in self.ways:
            way.late = 0.0

    def _lose_some(self, luck: Random) -> None:
        before = self.lost
        for way in self.ways:
            way.rate = LOSS
        wait_until(lambda: self.lost >= before + luck.randint(10, 40), "no reply is lost", _NAMED)
        for way in self.ways:
            way.rate = 0.0

    def _part(self, luck: Random) -> None:
        way = luck.choice(self.ways)
        way.stall()
        moment(luck, 1.5)
        way.flow()


class Sentinels(Stores):
    """A primary, two replicas, three sentinels. What a primary has not told its replicas when it
    dies is lost.
    """

    def __init__(self, binary: str, home: Path) -> None:
        super().__init__(binary, home)
        made: dict[str, Any] = {"down_after": 1500, "gated": has_addresses()}
        self._watched = Watched(self.clocks.binary, home, *self.log, **made)
        for n, port in enumerate(self._watched.ports):
            # The next primary may be behind the last one.
            self._ahead[home / str(port)] = 3.0 * (1 - n) if self.clocks.movable else 0.0
            self.clocks.set(home / str(port), self._ahead[home / str(port)])

    def __enter__(self) -> "Sentinels":
        self._watched.__enter__()
        for server in self._watched.servers.values():
            self.started(server)
        return self

    def __exit__(self, *_: object) -> None:
        self._watched.__exit__()

    def url(self, _nth: int, /) -> str:
        """The sentinels."""
        return self._watched.url

    def primary(self) -> Server:
        """As the sentinels have it."""
        return self._watched.servers[self._watched.primary]

    def orders(self) -> redis.Redis:
        """To the primary."""
        return redis.Redis(port=self._watched.primary)

    def faults(self) -> dict[str, Fault]:
        """The common ones, without long stops, and failovers."""
        faults = self._common()
        del faults["store stopped"]
        if has_addresses():
            faults["primary cut off from its like"] = self._cut_off
        return faults | {
            "primary killed": self._kill,
            "primary stopped until another is named": self._stop_for_long,
        }

    def _kill(self, _: Random) -> None:
        old = self._until_followed()
        with self.unheard(old, [port for port in self._watched.ports if port != old]):
            self._watched.servers[old].kill()
        self._until_another(old)
        self._watched.servers[old].launch()
        self.started(self._watched.servers[old])

    def _stop_for_long(self, _: Random) -> None:
        old = self._until_followed()
        with stopped(self._watched.servers[old].pid):
            self._until_another(old)

    def _cut_off(self, _: Random) -> None:
        """It goes on, and callers reach it; what it grants beside its heir is lost."""
        old = self._until_followed()
        replicas = [port for port in self._watched.ports if port != old]
        with self.unheard(old, replicas), self._watched.cut_off(old):
            self._until_another(old)
            self._until_found(self._watched.primary)

    def _until_another(self, old: int) -> None:
        # Votes may be split on a busy machine: then they try again after twice this time.
        for port in self._watched.sentinel_ports:
            self._watched.order(port, "SENTINEL", "SET", SERVICE, "failover-timeout", "3000")
        wait_until(lambda: self._watched.primary != old, "no other primary is named", _NAMED)

    def _until_followed(self) -> int:
        """The primary, once everybody else follows it; without a replica there is no failover."""
        found: list[int] = []

        def followed() -> bool:
            primary = self._watched.primary
            found.append(primary)
            return all(self._follows(p, primary) for p in self._watched.ports if p != primary)

        wait_until(followed, "a replica does not follow", _NAMED)
        return found[-1]

    def _follows(self, port: int, primary: int) -> bool:
        ways = {primary, self._watched._relay.port if primary == self._watched.ports[0] else 0}
        with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port) as orders:
            state = orders.info("replication")
            return state.get("master_link_status") == "up" and state.get("master_port") in ways
        return False


class Clustered(Stores):
    """Masters with replicas; the slot of the pool moves, and its master dies."""

    one_heir = True

    def __init__(self, binary: str, home: Path, replicas: int = 1) -> None:
        super().__init__(binary, home)
        made: dict[str, Any] = {"replicas": replicas, "timeout": 1000, "gated": has_addresses()}
        self._nodes = Nodes(self.clocks.binary, home, *self.log, **made)
        masters = len(self._nodes.ports) - replicas
        for n, port in enumerate(self._nodes.ports):
            # An heir is behind its master.
            behind = -3.0 if n >= masters and self.clocks.movable else 0.0
            self._ahead[home / str(port)] = behind
            self.clocks.set(home / str(port), behind)
        self._masters, self._replicas = masters, replicas

    def __enter__(self) -> "Clustered":
        self._nodes.__enter__()
        for server in self._nodes.servers.values():
            self.started(server)
        names = (f"p{n}" for n in range(1000))
        first = self._nodes.ports[0]
        self.pool = next(n for n in names if node_of(self._nodes.ports, f"{{{n}}}") == first)
        return self

    def __exit__(self, *_: object) -> None:
        self._nodes.__exit__()

    def url(self, _nth: int, /) -> str:
        """All nodes."""
        return self._nodes.url

    def primary(self) -> Server:
        """The master of the pool's slot."""
        return self._nodes.servers[self._owner()]

    def orders(self) -> redis.Redis:
        """To that master."""
        return redis.Redis(port=self._owner())

    def _owner(self) -> int:
        found: list[int] = []

        def known() -> bool:
            found.extend(self._owners())
            return bool(found)

        wait_until(known, "nobody owns the slot", _NAMED)
        return found[0]

    def _owners(self) -> Iterator[int]:
        for port in self._nodes.ports:
            # A node may be stopped; by default it would be asked eleven times.
            asked = redis.Redis(port=port, socket_timeout=_SILENT, retry=Retry(NoBackoff(), 0))
            with contextlib.suppress(redis.RedisError), asked as orders:
                slot = orders.execute_command("CLUSTER KEYSLOT", f"{{{self.pool}}}")
                for line in orders.execute_command("CLUSTER NODES").items():
                    address, state = line
                    mine = any(int(a) <= slot <= int(b) for a, b in _ranges(state["slots"]))
                    if mine and "myself" in state["flags"] and "master" in state["flags"]:
                        yield int(address.rpartition(":")[2])

    def faults(self) -> dict[str, Fault]:
        """The common ones, without stops and steps that nodes would take for a death."""
        faults = self._common()
        for name in ("store stopped", "clock forward", "clock back"):
            faults.pop(name, None)
        if any(
            b"MIGRATESLOTS" in line for line in self._nodes.order(self._owner(), "CLUSTER HELP")
        ):
            faults["slot moved at once"] = self._move_at_once
        if has_addresses():
            faults["master cut off from its like"] = self._cut_off
        return faults | {
            "slot moved": self._move,
            "master killed": self._kill,
            "master stopped until another is named": self._stop_for_long,
            "replica promoted by hand": self._promote,
        }

    def _move(self, luck: Random) -> None:
        old, target = self._owner_and_another(luck)
        self._migrate(luck, old, target)

    def _move_at_once(self, luck: Random) -> None:
        old, target = self._owner_and_another(luck)
        slot = self._nodes.order(old, "CLUSTER KEYSLOT", f"{{{self.pool}}}")
        where = ("SLOTSRANGE", slot, slot, "NODE", self._nodes.name(target))
        self._nodes.order(old, "CLUSTER MIGRATESLOTS", *where)
        wait_until(lambda: self._owner_is_not(old), "the slot does not move", _NAMED)

    def _owner_and_another(self, luck: Random) -> tuple[int, int]:
        old = self._owner()
        masters = [p for p in self._nodes.ports if p != old and self._role(p) == b"master"]
        return old, luck.choice(masters)

    def _kill(self, luck: Random) -> None:
        old = self._with_replica(luck)
        with self.unheard(old, self._heirs(old)):
            self._nodes.servers[old].kill()
        wait_until(lambda: self._owner_is_not(old), "no other master", _NAMED)
        moment(luck)
        self._nodes.servers[old].launch()
        self.started(self._nodes.servers[old])
        wait_until(self._nodes.servers[old]._answers, "the node does not start", 60)
        wait_until(lambda: self._nodes._follows(old), "the node does not come back", _NAMED)

    def _stop_for_long(self, luck: Random) -> None:
        old = self._with_replica(luck)
        with stopped(self._nodes.servers[old].pid):
            wait_until(lambda: self._owner_is_not(old), "no other master", _NAMED)
        wait_until(lambda: self._nodes._follows(old), "the old master does not follow", _NAMED)

    def _cut_off(self, luck: Random) -> None:
        """It goes on until it sees that it is alone; callers reach it, and its heir."""
        old = self._with_replica(luck)
        (heir,) = self._heirs(old)
        with self.unheard(old, [heir]), self._nodes.cut_off(old):
            wait_until(lambda: self._owner_is_not(old), "no other master", _NAMED)
            self._until_found(heir)
        wait_until(lambda: self._nodes._follows(old), "the old master does not follow", _NAMED)

    def _promote(self, luck: Random) -> None:
        old = self._with_replica(luck)
        heir = self._heirs(old)[0]
        self._nodes.order(heir, "CLUSTER", "FAILOVER")
        wait_until(lambda: self._owner_is_not(old), "the replica is not promoted", _NAMED)
        wait_until(lambda: self._nodes._follows(old), "the old master does not follow", _NAMED)

    def _with_replica(self, luck: Random) -> int:
        """The owner of the slot, after it has been moved to a master that has a replica."""
        owner = self._owner()
        if self._heirs(owner):
            return owner
        masters = [p for p in self._nodes.ports if self._role(p) == b"master"]
        target = next(port for port in masters if self._heirs(port))
        self._migrate(luck, owner, target)
        return target

    def _migrate(self, luck: Random, source: int, target: int) -> None:
        """Move the slot as an operator does, key by key, under the eyes of callers."""
        order, name = self._nodes.order, self._nodes.name(target)
        slot = order(source, "CLUSTER KEYSLOT", f"{{{self.pool}}}")
        order(target, "CLUSTER SETSLOT", slot, "IMPORTING", self._nodes.name(source))
        order(source, "CLUSTER SETSLOT", slot, "MIGRATING", name)
        moment(luck, 0.2)
        while keys := order(source, "CLUSTER GETKEYSINSLOT", slot, 100):
            order(source, "MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", *keys)
        moment(luck, 0.2)
        others = (port for port in self._nodes.ports if self._role(port) == b"master")
        for port in (target, source, *others):
            order(port, "CLUSTER SETSLOT", slot, "NODE", name)

    def _heirs(self, master: int) -> list[int]:
        role: Any = self._nodes.order(master, "ROLE")
        return [int(replica[1]) for replica in role[2]] if role[0] == b"master" else []

    def _owner_is_not(self, old: int) -> bool:
        return any(port != old for port in self._owners())

    def _role(self, port: int) -> Any:
        return self._nodes.order(port, "ROLE")[0]


def _ranges(slots: Any) -> Iterator[tuple[str, str]]:
    """Of what redis-py makes of the slots of a node."""
    for each in slots:
        if len(each) in {1, 2}:
            yield each[0], each[-1]
