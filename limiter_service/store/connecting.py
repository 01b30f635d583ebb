"""The way to an address: which classes of the client library, and with which options."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection
from redis.backoff import NoBackoff

from limiter_service.store.address import Address, Login, Tls, Topology
from limiter_service.store.faults import FAILURES, reason
from limiter_service.store.links import Cluster, Link, OneServer

Options = dict[str, Any]


def connect(
    address: Address,
    *,
    connect_timeout: float,
    command_timeout: float,
    tls: Tls,
    sentinels: Login,
) -> Link:
    """The way to *address*. Nothing is connected yet."""
    common: Options = {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": command_timeout,
        "retry": Retry(NoBackoff(), 0),  # redis-py would run a script twice without a word
        "driver_info": None,  # it would be told with CLIENT SETINFO, which a user may lack
    }
    if address.secure:
        common |= _secured(tls)
    options = common | _login(address.login)
    if address.topology is Topology.CLUSTER:
        return Cluster(_cluster(address, options), command_timeout)
    if address.topology is Topology.SENTINEL:
        asking = common | _login(sentinels) | {"socket_timeout": connect_timeout}
        return _by_sentinel(address, options, asking)
    options["db"] = address.database
    if address.topology is Topology.UNIX:
        kind: type[Any] = UnixDomainSocketConnection
        return OneServer(_client(kind, options | {"path": address.path}), command_timeout)
    ((host, port),) = address.hosts
    options |= {"host": host, "port": port}
    return OneServer(_client(_kind(address), options), command_timeout)


class Named(SSLConnection):
    """TLS, with the name that the certificate must carry."""

    def __init__(self, *, server_name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._server_name = server_name

    def _connection_arguments(self) -> Any:
        arguments = dict(super()._connection_arguments())
        if self._server_name is not None:
            arguments["server_hostname"] = self._server_name
        return arguments


class _ManagedNamed(SentinelManagedConnection, Named):
    """The same to the primary that sentinels name."""


class _Asked(Sentinel):
    """Sentinels, which say why they name no primary: the library tells only the kinds of errors."""

    service = ""
    _named: tuple[str, int] | None = None

    async def renamed(self) -> tuple[str, int] | None:
        """Host and port of the primary, if they name another than the last time: that of the latest
        failover, for a sentinel that is cut off does not hear of it.
        """
        asked = (sentinel.sentinel_masters() for sentinel in self.sentinels)
        told: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        latest, named = -1, self._named
        for sentinel, masters in zip(tuple(self.sentinels), told, strict=True):
            state = {} if isinstance(masters, BaseException) else masters.get(self.service, {})
            if state.get("config-epoch", -1) > latest:
                latest, named = state["config-epoch"], (state["ip"], state["port"])
                self._ask_first(sentinel)
        before, self._named = self._named, named
        return None if before in {None, named} else named

    def _ask_first(self, sentinel: Any) -> None:
        self.sentinels.remove(sentinel)
        self.sentinels.insert(0, sentinel)

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary. Raises MasterNotFoundError."""
        reasons: dict[str, None] = {}
        for sentinel in tuple(self.sentinels):
            try:
                masters: Any = await sentinel.sentinel_masters()
            except FAILURES as error:
                reasons[reason(error)] = None
                continue
            state = masters.get(service_name)
            if state is not None and self.check_master_state(state, service_name):
                self._ask_first(sentinel)  # from now on
                self._named = state["ip"], state["port"]
                return self._named
        why = f": {'; '.join(reasons)}" if reasons else ""
        raise MasterNotFoundError(f"No master found for {service_name!r}{why}")


def _kind(address: Address) -> type[Any]:
    return Named if address.secure else Connection


def _client(kind: type[Any], options: Options) -> Any:
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))


def _login(login: Login) -> Options:
    return {"username": login.username, "password": login.password}


def _secured(tls: Tls) -> Options:
    return {
        "ssl_ca_certs": tls.ca,
        "ssl_certfile": tls.certificate,
        "ssl_keyfile": tls.key,
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "server_name": tls.server_name,
    }


def _by_sentinel(address: Address, options: Options, asking: Options) -> OneServer:
    asked: Any = _Asked  # the library's is without annotations
    manager = asked([])
    manager.service = address.service
    manager.sentinels = [
        _client(_kind(address), asking | {"host": host, "port": port})
        for host, port in address.hosts
    ]
    managed = _ManagedNamed if address.secure else SentinelManagedConnection
    options |= {"db": address.database, "connection_class": managed}
    patience = options["socket_timeout"]
    return OneServer(manager.master_for(address.service, **options), patience, manager)


def _cluster(address: Address, options: Options) -> RedisCluster:
    name = options.pop("server_name", None)
    if address.secure:
        options["ssl"] = True
    client = RedisCluster(
        startup_nodes=_nodes(address.hosts),
        require_full_coverage=False,  # a missing range is the loss of its own pools
        **options,
    )
    if address.secure:  # the library has no option for the name; nodes are made with these
        client.connection_kwargs |= {"connection_class": Named, "server_name": name}
        for node in client.startup_nodes:
            node.connection_class = Named
            node.connection_kwargs["server_name"] = name
    return client


def _nodes(hosts: Sequence[tuple[str, int]]) -> list[ClusterNode]:
    return [ClusterNode(host, port) for host, port in hosts]
