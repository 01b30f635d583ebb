"""A connection to Redis or Valkey that sends the calls of one loop tick together.

One pipeline per tick costs the service a third of a pool with a connection per call, and
the server half: many sockets become one read (docs/decisions/0003).
"""

import asyncio
import contextlib
import itertools
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import redis.asyncio as redis
from redis import exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import Script

Argument = str | bytes
_MAX_PIPELINE = 256
_MAX_FLIGHTS = 4
_MOST_AT_ONCE = 16  # connections per node of a cluster, where calls travel one by one
_MOST_ATTEMPTS = 3
_PAUSE = 0.02

Watch = Callable[[str, float, bool], None]
"""Hears of every call of a script: its name, seconds, and whether there was an answer."""


class _Call:
    """One script call that waits for its answer."""

    __slots__ = ("answer", "arguments", "keys", "script")

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        answer: asyncio.Future[Any],
    ) -> None:
        self.script, self.keys, self.arguments, self.answer = script, keys, arguments, answer

    def by_digest(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments)

    def by_text(self) -> tuple[Any, ...]:
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments)


class Client:
    """Runs scripts. Raises StoreUnavailable when the store does not answer in time."""

    def __init__(self, url: str, *, connect_timeout: float, command_timeout: float) -> None:
        self._timeout = command_timeout
        self.watch: Watch | None = None
        self._cluster = urlsplit(url).scheme.endswith("+cluster")
        self.sharded = self._cluster
        self._redis = _connect(url, connect_timeout, command_timeout)
        self._waiting: deque[_Call] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:  # bytes, or lists of them
        """Run *script* and return its answer; `watch` hears how long that took."""
        if self.watch is None:
            return await self._run(script, keys, arguments)
        clock = asyncio.get_running_loop().time
        began, good = clock(), False
        try:
            answer = await self._run(script, keys, arguments)
            good = True
        finally:
            self.watch(script.name, clock() - began, good)
        return answer

    async def _run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:  # bytes, or lists of them
        """Run *script* and return its answer.

        Every script of ours is safe to run twice (its request id, its lease), so a lost
        answer is asked for again within the deadline.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        for attempt in itertools.count(1):
            call = _Call(script, keys, arguments, loop.create_future())
            self._waiting.append(call)
            self._schedule(loop)
            try:
                async with asyncio.timeout_at(deadline):
                    return await call.answer
            except TimeoutError as error:
                message = f"no answer within {self._timeout:g} s"
                raise StoreUnavailable(message) from error
            except _TRANSIENT as error:
                if attempt == _MOST_ATTEMPTS or loop.time() + _PAUSE >= deadline:
                    raise StoreUnavailable(_reason(error)) from error
                await asyncio.sleep(_PAUSE)
            except _FAILURES as error:
                raise StoreUnavailable(_reason(error)) from error
        raise AssertionError("unreachable")

    async def quiet(self) -> None:
        """Return when the calls under way now have been made, whether their callers stay or not."""
        if self._flights:
            await asyncio.wait(set(self._flights))

    async def ping(self) -> None:
        """Return when the store answers; raise StoreUnavailable when it does not."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._redis.execute_command("PING")
        except (TimeoutError, *_FAILURES) as error:
            raise StoreUnavailable(_reason(error)) from error

    async def info(self, section: str) -> dict[str, Any]:
        """The server's own report."""
        try:
            async with asyncio.timeout(self._timeout):
                return dict(await self._redis.info(section))
        except (TimeoutError, *_FAILURES) as error:
            raise StoreUnavailable(_reason(error)) from error

    @contextlib.asynccontextmanager
    async def subscription(self) -> AsyncIterator["Subscription"]:
        """A connection of its own for messages; on a cluster, for each node that has some."""
        if self._cluster:
            await self._redis.initialize()
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            yield Subscription(pubsub, sharded=self.sharded)
        finally:
            with contextlib.suppress(*_FAILURES):
                await pubsub.aclose()

    async def aclose(self) -> None:
        """Let what is under way end, then close every connection."""
        while self._flights:
            await asyncio.wait(self._flights)
        await self._redis.aclose()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled and len(self._flights) < _MAX_FLIGHTS:
            self._scheduled = True
            loop.call_soon(self._take_off)

    def _take_off(self) -> None:
        self._scheduled = False
        calls = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_PIPELINE))]
        calls = [call for call in calls if not call.answer.done()]
        if calls:
            flight = asyncio.get_running_loop().create_task(self._fly(calls))
            self._flights.add(flight)
            flight.add_done_callback(self._land)
        if self._waiting:
            self._schedule(asyncio.get_running_loop())

    def _land(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        if self._waiting:
            self._schedule(asyncio.get_running_loop())

    async def _fly(self, calls: list[_Call]) -> None:
        answers = await self._send([call.by_digest() for call in calls])
        unknown = [i for i, a in enumerate(answers) if isinstance(a, exceptions.NoScriptError)]
        if unknown:  # not run at all, so these go again with their text, which also loads it
            again = await self._send([calls[i].by_text() for i in unknown])
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        for call, answer in zip(calls, answers, strict=True):
            if call.answer.done():
                continue
            if isinstance(answer, BaseException):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)

    async def _send(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        if self._cluster:
            try:  # once; concurrent first calls would close each other's connections
                await self._redis.initialize()
            except _FAILURES as error:
                return [error] * len(commands)
            return list(await asyncio.gather(*(self._send_in_turn(c) for c in commands)))
        if len(commands) == 1:
            return [await self._send_one(commands[0])]
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            return list(await pipeline.execute(raise_on_error=False))
        except _FAILURES as error:
            return [error] * len(commands)

    async def _send_in_turn(self, command: tuple[Any, ...]) -> Any:
        async with self._turns:
            return await self._send_one(command)

    async def _send_one(self, command: tuple[Any, ...]) -> Any:  # a reply or an error
        while True:
            try:
                return await self._redis.execute_command(*command)
            except exceptions.TryAgainError:
                # A slot is moving and the script was not started: the caller's deadline ends this.
                await asyncio.sleep(_PAUSE)
            except _FAILURES as error:
                return error


class Subscription:
    """Channels that are listened to. Errors are those of the client library."""

    def __init__(self, pubsub: Any, *, sharded: bool) -> None:
        self._pubsub, self._sharded = pubsub, sharded

    async def subscribe(self, *channels: str) -> None:
        """Listen to more channels."""
        await (self._pubsub.ssubscribe if self._sharded else self._pubsub.subscribe)(*channels)

    async def unsubscribe(self, *channels: str) -> None:
        """Listen to fewer."""
        await (self._pubsub.sunsubscribe if self._sharded else self._pubsub.unsubscribe)(*channels)

    async def message(self, timeout: float) -> tuple[str, bytes] | None:
        """Channel and payload of the next message, None when there is none within *timeout*."""
        if self._sharded:
            found = await self._pubsub.get_sharded_message(timeout=timeout)
        else:
            found = await self._pubsub.get_message(timeout=timeout)
        if found is None or found["type"] not in {"message", "smessage"}:
            return None
        return found["channel"].decode(), found["data"]


# A cluster's own errors are no RedisError.
_FAILURES = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
STORE_ERRORS = _FAILURES
_TRANSIENT = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _connect(
    url: str, connect_timeout: float, command_timeout: float
) -> Any:  # two classes without a common base
    options: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": command_timeout,
        "retry": Retry(NoBackoff(), 0),  # redis-py would run a script twice without a word
        "decode_responses": False,
    }
    parts = urlsplit(url)
    if not parts.scheme.endswith("+cluster"):
        return redis.Redis.from_url(url, **options)
    secure = parts.scheme.startswith("rediss")
    if secure:
        options |= {"ssl": True, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    nodes = [_node(urlsplit(f"//{node}")) for node in parts.netloc.rpartition("@")[2].split(",")]
    user, password = parts.username, parts.password
    return RedisCluster(
        startup_nodes=nodes,
        username=unquote(user) if user else None,
        password=unquote(password) if password else None,
        **options,
    )


def _node(address: SplitResult) -> ClusterNode:
    return ClusterNode(address.hostname or "127.0.0.1", address.port or 6379)


def redacted(url: str) -> str:
    """*url* without its password, for logs and messages."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    with contextlib.suppress(ValueError):
        name = user.partition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{name}:***{at}{hosts}" if at else hosts))
    return parts.scheme
