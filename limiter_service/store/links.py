"""Ways to a store: one server, the primary that sentinels name, or the nodes of a cluster.

A link sends commands and returns a reply or an error for each; it repeats nothing but what a
cluster redirects. `place` is who gets a command: calls for different places do not wait for
each other.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import structlog
from redis import exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from limiter_service.store.berths import Berths
from limiter_service.store.exchange import Command, Then
from limiter_service.store.faults import FAILURES

_log = structlog.get_logger()
_MOST_HOPS = 5
_BETWEEN_LOOKS = 0.1
_BETWEEN_QUESTIONS = 1.0  # to sentinels, who is the primary
_KEY = 3  # EVALSHA digest count key
_TURNED_AWAY = (exceptions.AskError, exceptions.ClusterDownError)


class Link(Protocol):
    """A way to a store."""

    sharded: bool
    """Whether there are several places: else the one has an empty name."""

    def place(self, key: str) -> str:
        """Who is asked for *key*, as far as it is known; empty: whoever that may be."""

    async def send(self, place: str, commands: Sequence[Command]) -> list[Any]:
        """A reply or an error for each command, in order."""

    async def doubt(self) -> None:
        """The server that was asked cannot be the right one: look again."""

    async def ping(self) -> None:
        """Return when some server answers. Raises FAILURES."""

    async def info(self, section: str) -> dict[str, Any]:
        """A server's own report. Raises FAILURES."""

    async def ask(self, words: tuple[Any, ...]) -> Any:
        """What a server answers to a command that is no script. Raises FAILURES."""

    async def sentinels(self) -> list[Any]:
        """What each sentinel says of the primaries that it watches, or an error; none elsewhere."""

    async def pubsub(self) -> Any:
        """A connection of its own for messages. Raises FAILURES."""

    async def aclose(self) -> None:
        """Close every connection."""


class Direct(ABC):
    """A link that also sends without a task, where a connection is idle."""

    @abstractmethod
    def post(self, place: str, commands: Sequence[Command], then: Then) -> bool:
        """Send at once, and return True: *then* hears what `send` would return. False: no
        connection is idle.
        """


class Watchers(Protocol):
    """The sentinels of a primary."""

    sentinels: list[Any]

    async def renamed(self) -> tuple[str, int] | None:
        """Host and port of the primary, if it is another than the last time. Raises FAILURES."""

    async def aclose(self) -> None:
        """Close the connections to all of them."""


class OneServer(Direct):
    """One server, or the one that sentinels name."""

    sharded = False

    def __init__(self, client: Any, patience: float, watchers: Watchers | None = None) -> None:
        """An exchange takes at most *patience* seconds."""
        self._redis, self._watchers = client, watchers
        self._question: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        pool = client.connection_pool
        self._berths = Berths(
            lambda: _connection(pool.connection_class, pool.connection_kwargs), patience
        )

    def place(self, key: str) -> str:  # noqa: ARG002  # there is one
        """Always the same."""
        return ""

    def post(self, place: str, commands: Sequence[Command], then: Then) -> bool:  # noqa: ARG002
        """One exchange over one connection, which a failure closes."""
        if self._watchers is not None:
            self._be_sure(self._watchers)
        return self._berths.post(commands, then)

    async def send(self, place: str, commands: Sequence[Command]) -> list[Any]:  # noqa: ARG002
        """The same, over a new connection if need be."""
        if self._watchers is not None:
            self._be_sure(self._watchers)
        return await self._berths.send(commands)

    async def doubt(self) -> None:
        """The next connections may lead to another server: by name, or by what sentinels say."""
        self._berths.close_idle()
        with contextlib.suppress(*FAILURES):
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def ping(self) -> None:
        """One exchange."""
        await self._redis.execute_command("PING")

    async def info(self, section: str) -> dict[str, Any]:
        """The server's own report."""
        return dict(await self._redis.info(section))

    async def ask(self, words: tuple[Any, ...]) -> Any:
        """The one there is."""
        return await self._redis.execute_command(*words)

    async def sentinels(self) -> list[Any]:
        """Those of the address, by their own login."""
        found = [] if self._watchers is None else self._watchers.sentinels
        asked = (each.sentinel_masters() for each in found)
        return list(await asyncio.gather(*asked, return_exceptions=True))

    async def pubsub(self) -> Any:
        """From the same pool."""
        return self._redis.pubsub(ignore_subscribe_messages=True)

    async def aclose(self) -> None:
        """The connections to sentinels too."""
        if self._question is not None:
            self._question.cancel()
            await asyncio.wait({self._question})
        await self._berths.aclose()
        await self._redis.aclose()
        if self._watchers is not None:
            await self._watchers.aclose()

    def _be_sure(self, watchers: Watchers) -> None:
        """Ask sentinels now and then: a primary that they have cut off answers as ever, and what it
        grants is lost.
        """
        loop = asyncio.get_running_loop()
        if self._question is None and loop.time() - self._asked_at >= _BETWEEN_QUESTIONS:
            self._question = loop.create_task(self._ask(watchers))
            self._question.add_done_callback(self._answered)

    async def _ask(self, watchers: Watchers) -> None:
        with contextlib.suppress(*FAILURES):
            primary = await watchers.renamed()
            if primary is not None:
                host, port = primary
                _log.warning("sentinels name another primary", host=host, port=port)
                self._berths.move()
                await self.doubt()

    def _answered(self, question: asyncio.Task[None]) -> None:
        self._question, self._asked_at = None, question.get_loop().time()


class Cluster(Direct):
    """The nodes of a cluster. Redirections are followed here.

    The client library knows the nodes and their connections; commands go past its own retries,
    which close the connections to every node when one fails, and may send an ASKING on another
    connection than its command.
    """

    sharded = True

    def __init__(self, client: RedisCluster, patience: float) -> None:
        """An exchange with a node takes at most *patience* seconds."""
        self._redis, self._nodes = client, client.nodes_manager
        self._patience = patience
        self._berths: dict[str, Berths] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._given = [(node.host, int(node.port)) for node in client.startup_nodes]
        self._look: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._failed: str | None = None

    def place(self, key: str) -> str:
        """The name of the node that owns the key's slot."""
        owners = self._nodes.slots_cache.get(key_slot(key.encode()))
        return owners[0].name if owners else ""

    def post(self, place: str, commands: Sequence[Command], then: Then) -> bool:
        """To the node, if it is known."""
        berths = self._berths.get(place)
        heard = partial(self._heard, place, commands, then)
        return berths is not None and berths.post(commands, heard)

    async def send(self, place: str, commands: Sequence[Command]) -> list[Any]:
        """One pipeline to the node; each to its own where that is not known."""
        node = self._nodes.nodes_cache.get(place)
        if node is None:
            return list(await asyncio.gather(*(self._send_somewhere(c) for c in commands)))
        replies = await self._exchange(node, commands)
        await self._follow_all(place, replies, commands)
        return replies

    async def doubt(self) -> None:
        """Ask the cluster anew who owns what, beside other work; not too often."""
        now = asyncio.get_running_loop().time()
        if self._look is None and now - self._looked_at >= _BETWEEN_LOOKS:
            self._begin_to_look()

    async def ping(self) -> None:
        """Any node with slots: the loss of one takes its pools, not the service."""
        await self._known()
        replies = await asyncio.gather(
            *(self._exchange(node, [("PING",)]) for node in self._redis.get_primaries())
        )
        errors = [reply for (reply,) in replies if isinstance(reply, Exception)]
        if len(errors) == len(replies):
            raise errors[0]

    async def info(self, section: str) -> dict[str, Any]:
        """The report of one node."""
        await self._known()
        return dict(await self._redis.get_default_node().execute_command("INFO", section))

    async def ask(self, words: tuple[Any, ...]) -> Any:
        """One node, the same as `info`."""
        await self._known()
        return await self._redis.get_default_node().execute_command(*words)

    async def sentinels(self) -> list[Any]:
        """A cluster needs none."""
        return []

    async def pubsub(self) -> Any:
        """A connection to each node that has channels of ours."""
        self._begin_to_look()
        await self._known()
        return self._redis.pubsub(ignore_subscribe_messages=True)

    async def aclose(self) -> None:
        """Every node's connections."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look})
        await asyncio.gather(*(berths.aclose() for berths in self._berths.values()))
        await self._nodes.aclose()
        await self._nodes.aclose("startup_nodes")

    async def _send_somewhere(self, command: Command) -> Any:
        assert isinstance(command, tuple)  # the words: they say who is asked
        if command[0] == "WAIT":
            return 0  # it is about a connection, and the others went over some
        try:
            if command[0] == "SET":
                await self._known()
                (reply,) = await self._exchange(
                    self._owner(key_slot(command[1].encode())), [command]
                )
                return reply
            await self._known()
            node = self._owner(key_slot(str(command[_KEY]).encode()))
        except FAILURES as error:
            return error
        (reply,) = await self._exchange(node, [command])
        return await self._follow(reply, command)

    def _heard(
        self, place: str, commands: Sequence[Command], then: Then, replies: list[Any]
    ) -> None:
        """Replies to what was posted: to follow a redirection takes a task."""
        if not any(isinstance(reply, _TURNED_AWAY) for reply in replies):
            then(replies)
            return
        follow = self._follow_all(place, replies, commands)
        task = asyncio.get_running_loop().create_task(follow)
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        task.add_done_callback(lambda _: then(replies))

    async def _follow_all(
        self, place: str, replies: list[Any], commands: Sequence[Command]
    ) -> None:
        for i, reply in enumerate(replies):
            if isinstance(reply, exceptions.ClusterDownError):
                self._failed = place  # who is cut off knows least of who owns what
            elif isinstance(reply, exceptions.AskError):
                try:
                    replies[i] = await self._follow(reply, commands[i])
                except FAILURES as error:  # nobody owns the slot now
                    replies[i] = error

    async def _follow(self, reply: Any, command: Command) -> Any:
        """The reply to *command* of the node that the reply so far names."""
        for _ in range(_MOST_HOPS):
            if isinstance(reply, exceptions.MovedError):
                await self._nodes.move_slot(reply)
                node = self._owner(reply.slot_id)
                (reply,) = await self._exchange(node, [command])
            elif isinstance(reply, exceptions.AskError):
                node = self._node(reply.host, reply.port)
                _, reply = await self._exchange(node, [("ASKING",), command])
            else:
                return reply
        return exceptions.TryAgainError("redirected in circles", status_code="TRYAGAIN")

    def _owner(self, slot: int) -> ClusterNode:
        owners = self._nodes.slots_cache.get(slot)
        if not owners:
            raise exceptions.SlotNotCoveredError(f"no node of the cluster owns slot {slot}")
        return owners[0]

    def _node(self, host: str, port: int) -> ClusterNode:
        known = self._nodes.get_node(host=host, port=port)
        if known is not None:
            return known
        node = ClusterNode(host, port, "primary", **self._redis.connection_kwargs)
        self._nodes.set_nodes(self._nodes.nodes_cache, {node.name: node})
        return node

    async def _exchange(self, node: ClusterNode, commands: Sequence[Command]) -> list[Any]:
        """One pipeline over one connection, which a failure closes."""
        berths = self._berths.get(node.name)
        if berths is None:
            berths = self._berths[node.name] = Berths(
                lambda: _connection(node.connection_class, node.connection_kwargs),
                self._patience,
                partial(setattr, self, "_failed", node.name),
            )
        return await berths.send(commands)

    async def _known(self) -> None:
        """Return when it is known who owns what. Raises FAILURES."""
        if self._look is None and not self._nodes.slots_cache:
            self._begin_to_look()
        if self._look is not None:
            await asyncio.shield(self._look)

    def _begin_to_look(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().create_task(self._look_again())
            self._look.add_done_callback(self._looked)

    async def _look_again(self) -> None:
        failed, self._failed = self._failed, None
        try:
            await self._initialize(failed)
        except FAILURES:
            # Every node that was known is gone: those of the URL may be others by now.
            given = [ClusterNode(h, p, **self._redis.connection_kwargs) for h, p in self._given]
            self._nodes.set_nodes(self._nodes.startup_nodes, {node.name: node for node in given})
            await self._initialize()

    async def _initialize(self, failed: str | None = None) -> None:
        try:
            await self._nodes.initialize(last_failed_node_name=failed)
        except IndexError as error:  # of an empty list of primaries
            raise exceptions.SlotNotCoveredError("no node of the cluster owns slots") from error

    def _looked(self, look: asyncio.Task[None]) -> None:
        self._look, self._looked_at = None, look.get_loop().time()
        gone = self._berths.keys() - self._nodes.nodes_cache.keys()
        for name in gone:
            self._berths.pop(name).retire()
        if not look.cancelled() and (error := look.exception()) is not None:
            _log.debug("the cluster does not say who owns what", problem=str(error))


def _connection(kind: type[Any], options: Mapping[str, Any]) -> Any:
    """A connection of the client library, which connects and repeats nothing. It does not ask to
    be told of maintenance: nobody would listen.
    """
    asked = {name: value for name, value in options.items() if "maint_notifications" not in name}
    return kind(**asked | {"retry": Retry(NoBackoff(), 0)})
