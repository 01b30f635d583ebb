"""Where the store is, read from a URL. Pure: nothing is connected.

    redis://[user[:password]@]host[:6379][/db]              one server
    rediss://...                                            the same over TLS
    unix://[user[:password]@]/path/to/socket[?db=N]         one server on this host
    redis+sentinel://[user[:password]@]host[:26379],host.../service[/db]
    redis+cluster://[user[:password]@]host[:6379],host...

`rediss+sentinel` and `rediss+cluster` are the last two over TLS. User and password are
percent-encoded. Those of a Sentinel URL are for the servers; sentinels have a login of their own.
"""

import contextlib
from enum import StrEnum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

import msgspec


class Topology(StrEnum):
    """How many servers there are, and who knows which of them is asked."""

    ONE = "one"
    UNIX = "unix"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = {
    "redis": Topology.ONE,
    "unix": Topology.UNIX,
    "redis+sentinel": Topology.SENTINEL,
    "redis+cluster": Topology.CLUSTER,
}
_PORTS = {Topology.ONE: 6379, Topology.CLUSTER: 6379, Topology.SENTINEL: 26379}
_LAST_PORT = 65_535


class BadAddress(ValueError):
    """A URL that names no store; the message says what is wrong, and never the password."""


class Login(msgspec.Struct, frozen=True):
    """Who connects; an empty name is the server's default user."""

    username: str | None = None
    password: str | None = None


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Files in PEM. Without `ca` the system's authorities are trusted; `server_name` is what the
    certificate must say where that is not the host of the URL.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One store. `hosts` are the server, sentinels, or some nodes of a cluster."""

    topology: Topology
    secure: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    login: Login = Login()


def parse(url: str) -> Address:
    """The store that *url* names. Raises BadAddress."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise BadAddress(f"it cannot be read: {error}") from None
    secure = parts.scheme.startswith("rediss")
    topology = _SCHEMES.get(parts.scheme.replace("rediss", "redis", 1))
    if topology is None:
        shown = f"{parts.scheme}://" if parts.scheme else "no scheme"
        raise BadAddress(
            f"{shown} is not known; known are redis://, rediss:// (TLS), unix://, "
            "redis+sentinel://, rediss+sentinel://, redis+cluster:// and rediss+cluster://"
        )
    if parts.fragment:
        raise BadAddress("it has a `#`: percent-encode it (%23) in a password")
    unknown = [name for name, _ in query if not (name == "db" and topology is Topology.UNIX)]
    if unknown:
        raise BadAddress(f"it has the unknown option {unknown[0]!r}: {_OPTIONS[topology]}")
    who, _, where = parts.netloc.rpartition("@")
    login = _login(who)
    if topology is Topology.UNIX:
        return _unix(parts, where, dict(query), login)
    hosts = tuple(_host(host, _PORTS[topology]) for host in where.split(","))
    if topology is Topology.ONE and len(hosts) > 1:
        raise BadAddress("several hosts are redis+sentinel:// or redis+cluster://")
    service, database = _path(topology, parts.path)
    return Address(
        topology=topology,
        secure=secure,
        hosts=hosts,
        service=service,
        database=database,
        login=login,
    )


_OPTIONS = {
    Topology.ONE: "the database is the path, as in redis://host:6379/2",
    Topology.UNIX: "it takes only `db`, as in unix:///run/redis.sock?db=2",
    Topology.SENTINEL: "it takes none; certificates and the login of sentinels are settings",
    Topology.CLUSTER: "it takes none; certificates are settings",
}


def _login(who: str) -> Login:
    user, _, password = who.partition(":")
    return Login(unquote(user) or None, unquote(password) or None)


def _unix(parts: SplitResult, where: str, query: dict[str, str], login: Login) -> Address:
    if where:
        raise BadAddress("a socket has no host: unix:///absolute/path")
    if not parts.path.strip("/"):
        raise BadAddress("the path of the socket is missing: unix:///absolute/path")
    database = _number(query.get("db", "0"))
    return Address(topology=Topology.UNIX, path=unquote(parts.path), database=database, login=login)


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        address = urlsplit(f"//{text}")
        host, given = address.hostname, address.port
    except ValueError:
        host, given = None, None
        text = text.rpartition(":")[0] or text
    if not host:
        example = "host:port, or [address]:port for IPv6"
        raise BadAddress(
            f"{text!r} is no host: {example}" if text else f"a host is missing: {example}"
        )
    if given == 0:
        raise BadAddress(f"port 0 of {host} is no port: 1 to {_LAST_PORT}")
    return host, port if given is None else given


def _path(topology: Topology, path: str) -> tuple[str, int]:
    names = [unquote(name) for name in path.strip("/").split("/")] if path.strip("/") else []
    service = ""
    if topology is Topology.SENTINEL:
        if not names:
            raise BadAddress(
                "the name of the service is missing: redis+sentinel://host:26379/mymaster"
            )
        service = names.pop(0)
    if len(names) > 1:
        raise BadAddress(f"{path!r} has too many parts")
    database = _number(names[0]) if names else 0
    if database and topology is Topology.CLUSTER:
        raise BadAddress(f"database {database} does not exist: a cluster has only number 0")
    return service, database


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):  # noqa: PLR2004  # 16 as a rule
        raise BadAddress(f"{text!r} is no database: a number from 0")
    return int(text)


def redacted(url: str) -> str:
    """*url* without its password, for logs and messages."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        name = user.partition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{name}:***{at}{hosts}" if at else hosts))
    return url.partition("://")[0]
