"""Look at a store as an operator does: one connection, nothing changes."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from limiter_service.store import acl
from limiter_service.store.commands import pack
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.keys import FleetKeys
from limiter_service.store.scripts import load

_PINGS = 50
_LOOK = -1.0
SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself; None where it does not say, or may not be asked.

    `skew` is its clock less that of this host, give or take `way`; seconds. `script` is why a
    script of ours cannot run. `denied` are commands that the user lacks, None when nobody may
    ask. `slots` are those of a cluster that are served.
    """

    kind: str
    version: str
    mode: str
    role: str
    maxmemory: int
    used_memory: int
    policy: str
    evicted: int
    append_only: bool
    append_ok: bool
    snapshots: bool | None
    replicas: int
    least_replicas: int | None
    pings: list[float]
    skew: float
    way: float
    script: str | None
    user: str | None
    denied: list[str] | None
    cluster: bool
    cluster_state: str | None = None
    slots: int | None = None


def inspect(url: str, prefix: str) -> Store:
    """Ask the store at *url*; of a cluster, its first node. Raises StoreUnavailable, and
    ValueError for a URL that is none.
    """
    connection, cluster = _connected(url)
    with contextlib.closing(connection):
        try:
            return _asked(connection, prefix, cluster=cluster)
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(" ".join(str(error).split())) from error


def _connected(url: str) -> tuple[redis.Redis, bool]:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"{parts.scheme or url!r} is no store; there are: {', '.join(SCHEMES)}")
    cluster = parts.scheme.endswith("+cluster")
    if cluster:
        user, at, hosts = parts.netloc.rpartition("@")
        first = hosts.partition(",")[0]
        parts = parts._replace(
            scheme=parts.scheme.removesuffix("+cluster"), netloc=f"{user}{at}{first}"
        )
    connection = redis.Redis.from_url(
        urlunsplit(parts) if cluster else url,
        socket_connect_timeout=2.0,
        socket_timeout=2.0,
        retry=Retry(NoBackoff(), 0),
    )
    return connection, cluster


def _asked(connection: redis.Redis, prefix: str, *, cluster: bool) -> Store:
    info: dict[str, Any] = dict(connection.info())
    mode = str(info.get("server_mode") or info.get("redis_mode", "standalone"))
    cluster = cluster or mode == "cluster"
    skew, way = _skew(connection)
    state = _cluster(connection) if cluster else {}
    save = _setting(connection, "save")
    least = _setting(connection, "min-replicas-to-write")
    return Store(
        kind="Valkey" if "valkey_version" in info else "Redis",
        version=str(info.get("valkey_version") or info["redis_version"]),
        mode=mode,
        role=str(info.get("role", "master")),
        maxmemory=int(info.get("maxmemory", 0)),
        used_memory=int(info.get("used_memory", 0)),
        policy=str(info.get("maxmemory_policy", "noeviction")),
        evicted=int(info.get("evicted_keys", 0)),
        append_only=bool(info.get("aof_enabled", 0)),
        append_ok=info.get("aof_last_write_status", "ok") == "ok",
        snapshots=None if save is None else bool(save),
        replicas=int(info.get("connected_slaves", 0)),
        least_replicas=None if least is None else int(least),
        pings=_pings(connection),
        skew=skew,
        way=way,
        script=_script_fails(connection, prefix),
        user=_user(connection),
        denied=_denied(connection, cluster=cluster),
        cluster=cluster,
        cluster_state=state.get("cluster_state"),
        slots=int(state["cluster_slots_ok"]) if "cluster_slots_ok" in state else None,
    )


def _ask(connection: Any, *words: Any) -> Any:  # the library has no types for this
    return connection.execute_command(*words)


def _pings(connection: redis.Redis) -> list[float]:
    found = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        connection.ping()
        found.append(time.perf_counter() - began)
    return sorted(found)


def _skew(connection: redis.Redis) -> tuple[float, float]:
    """Of several tries the one with the shortest way says most."""
    tries = []
    for _ in range(5):
        before = time.time_ns()
        told: Any = connection.time()
        after = time.time_ns()
        there = told[0] + told[1] / 1e6
        tries.append(((after - before) / 1e9, there - (before + after) / 2e9))
    way, skew = min(tries)
    return skew, way


def _script_fails(connection: redis.Redis, prefix: str) -> str | None:
    """Why a script of ours that changes nothing does not run; None when it does."""
    script, keys = load("fleet"), FleetKeys(prefix)
    names = (keys.orders(), keys.replicas(), keys.cards())
    try:
        _ask(connection, "EVAL", script.text, len(names), *names, pack([1.0, _LOOK]), "", "")
    except (redis.exceptions.MovedError, redis.exceptions.ClusterDownError):
        return None  # it is another node's slot, or nobody's: scripts run where it is served
    except redis.RedisError as error:
        return " ".join(str(error).split())
    return None


def _cluster(connection: redis.Redis) -> dict[str, str]:
    with contextlib.suppress(redis.RedisError):
        told = _ask(connection, "CLUSTER INFO")
        if isinstance(told, dict):
            return {str(k): str(v) for k, v in told.items()}
        text = told.decode() if isinstance(told, bytes) else str(told)
        pairs = (line.partition(":") for line in text.splitlines())
        return {name: value for name, _, value in pairs}
    return {}


def _setting(connection: redis.Redis, name: str) -> str | None:
    with contextlib.suppress(redis.RedisError):
        told: Any = connection.config_get(name)
        return str(told.get(name, ""))
    return None


def _user(connection: redis.Redis) -> str | None:
    with contextlib.suppress(redis.RedisError):
        told: Any = _ask(connection, "ACL WHOAMI")
        return told.decode() if isinstance(told, bytes) else str(told)
    return None


_WORDS: dict[str, Sequence[str]] = {"cluster|slots": ("CLUSTER", "SLOTS")}
_ARGUMENTS = 4  # of most commands more than are needed, and a right is looked at before these


def _denied(connection: redis.Redis, *, cluster: bool) -> list[str] | None:
    """Commands that the user may not call, where it may be asked (ACL DRYRUN, from Redis 7)."""
    user = _user(connection)
    if user is None:
        return None
    wanted = [rule[1:] for rule in acl.rules(cluster=cluster) if rule.startswith("+")]
    found = []
    for name in wanted:
        words = _WORDS.get(name, (name.upper(), *("x",) * _ARGUMENTS))
        try:
            told = _ask(connection, "ACL DRYRUN", user, *words)
        except redis.RedisError as error:
            if "wrong number of arguments" in str(error) or "arity" in str(error):
                continue
            return None
        text = told.decode() if isinstance(told, bytes) else str(told)
        if "has no permissions to run" in text:
            found.append(name)
    return found
