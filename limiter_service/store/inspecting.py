"""Look at a store as an operator does, over the way that the service takes; nothing changes."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import redis

from limiter_service.store import acl
from limiter_service.store.client import Client
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.faults import FAILURES, reason
from limiter_service.store.keys import FleetKeys
from limiter_service.store.packing import pack
from limiter_service.store.scripts import load

_PINGS = 50
_LOOK = -1.0


class Sentinels(msgspec.Struct, frozen=True, kw_only=True):
    """What the sentinels of a URL say of one service.

    `silent` are those that do not answer, and why. `unaware` is how many answer and do not watch
    the service. `primaries` are the servers that the others name; `quorum`, `known` (sentinels
    that watch, as they know each other) and `replicas` are the least that any of them says.
    `down` says that one of them holds the primary to be down.
    """

    asked: int
    silent: list[str] = []
    unaware: int = 0
    primaries: list[str] = []
    quorum: int = 0
    known: int = 0
    replicas: int = 0
    down: bool = False

    @property
    def answer(self) -> int:
        """How many watch the service, and say so."""
        return self.asked - len(self.silent) - self.unaware


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself; None where it does not say, or may not be asked.

    `skew` is its clock less that of this host, give or take `way`; seconds. `script` is why a
    script of ours cannot run. `denied` are commands that the user lacks, None when nobody may
    ask. `slots` are those of a cluster that are served, `sentinels` those that are asked for the
    primary.
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
    sentinels: Sentinels | None = None


async def inspect(client: Client, prefix: str) -> Store:
    """Ask the store of *client*: the primary that sentinels name, and one node of a cluster.
    Raises StoreUnavailable.
    """
    try:
        return await _asked(client, prefix)
    except (TimeoutError, *FAILURES) as error:
        raise StoreUnavailable(reason(error)) from error


async def _asked(client: Client, prefix: str) -> Store:
    info = await client.info("default")
    mode = str(info.get("server_mode") or info.get("redis_mode", "standalone"))
    cluster = client.sharded or mode == "cluster"
    skew, way = await _skew(client)
    state = await _cluster(client) if cluster else {}
    save = await _setting(client, "save")
    least = await _setting(client, "min-replicas-to-write")
    user = await _user(client)
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
        pings=await _pings(client),
        skew=skew,
        way=way,
        script=await _script_fails(client, prefix),
        user=user,
        denied=None if user is None else await _denied(client, user, cluster=cluster),
        cluster=cluster,
        cluster_state=state.get("cluster_state"),
        slots=int(state["cluster_slots_ok"]) if "cluster_slots_ok" in state else None,
        sentinels=_sentinels(await client.sentinels(), client.address.service),
    )


def _sentinels(said: Sequence[Any], service: str) -> Sentinels | None:
    if not said:
        return None
    watching = [each[service] for each in said if isinstance(each, dict) and service in each]
    silent = [reason(each) for each in said if isinstance(each, BaseException)]
    return Sentinels(
        asked=len(said),
        silent=silent,
        unaware=len(said) - len(silent) - len(watching),
        primaries=sorted({f"{each['ip']}:{each['port']}" for each in watching}),
        quorum=min((int(each["quorum"]) for each in watching), default=0),
        known=min((int(each["num-other-sentinels"]) + 1 for each in watching), default=0),
        replicas=min((int(each["num-slaves"]) for each in watching), default=0),
        down=any(each["is_sdown"] or each["is_odown"] for each in watching),
    )


async def _pings(client: Client) -> list[float]:
    found = []
    for _ in range(_PINGS):
        began = time.perf_counter()
        await client.ask("PING")
        found.append(time.perf_counter() - began)
    return sorted(found)


async def _skew(client: Client) -> tuple[float, float]:
    """Of several tries the one with the shortest way says most."""
    tries = []
    for _ in range(5):
        before = time.time_ns()
        seconds, microseconds = await client.ask("TIME")
        after = time.time_ns()
        there = int(seconds) + int(microseconds) / 1e6
        tries.append(((after - before) / 1e9, there - (before + after) / 2e9))
    way, skew = min(tries)
    return skew, way


async def _script_fails(client: Client, prefix: str) -> str | None:
    """Why a script of ours that changes nothing does not run; None when it does."""
    keys = FleetKeys(prefix)
    names = (keys.orders(), keys.replicas(), keys.cards())
    try:
        await client.run(load("fleet"), names, (pack([1.0, _LOOK]), "", ""), always=True)
    except StoreUnavailable as error:
        down = "CLUSTERDOWN" in str(error)  # also when it was said until the deadline
        return None if down or _is_elsewhere(error.__cause__) else str(error)
    return None


def _is_elsewhere(error: BaseException | None) -> bool:
    """Whether it is another node's slot, or nobody's: scripts run where it is served."""
    return isinstance(
        error,
        redis.exceptions.MovedError
        | redis.exceptions.ClusterDownError
        | redis.exceptions.SlotNotCoveredError,
    )


async def _cluster(client: Client) -> dict[str, str]:
    with contextlib.suppress(redis.RedisError):
        told = await client.ask("CLUSTER INFO")
        if isinstance(told, dict):
            return {str(k): str(v) for k, v in told.items()}
        pairs = (line.partition(":") for line in _text(told).splitlines())
        return {name: value for name, _, value in pairs}
    return {}


async def _setting(client: Client, name: str) -> str | None:
    with contextlib.suppress(redis.RedisError):
        told = await client.ask("CONFIG GET", name)
        return str(told.get(name, ""))
    return None


async def _user(client: Client) -> str | None:
    with contextlib.suppress(redis.RedisError):
        return _text(await client.ask("ACL WHOAMI"))
    return None


_WORDS: dict[str, Sequence[str]] = {"cluster|slots": ("CLUSTER", "SLOTS")}
_ARGUMENTS = 4  # of most commands more than are needed, and a right is looked at before these


async def _denied(client: Client, user: str, *, cluster: bool) -> list[str] | None:
    """Commands that the user may not call, where it may be asked (ACL DRYRUN, from Redis 7)."""
    wanted = [rule[1:] for rule in acl.rules(cluster=cluster) if rule.startswith("+")]
    found = []
    for name in wanted:
        words = _WORDS.get(name, (name.upper(), *("x",) * _ARGUMENTS))
        try:
            told = await client.ask("ACL DRYRUN", user, *words)
        except redis.RedisError as error:
            if "wrong number of arguments" in str(error) or "arity" in str(error):
                continue
            return None
        if "has no permissions to run" in _text(told):
            found.append(name)
    return found


def _text(told: Any) -> str:  # bytes or text, as the library has it
    return told.decode() if isinstance(told, bytes) else str(told)
