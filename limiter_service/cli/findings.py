"""What is wrong with a store or a service, and the cure. Pure."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

from limiter_service.store.address import Address, Topology
from limiter_service.store.inspecting import Sentinels, Store

_LEAST = {"Redis": (6, 2), "Valkey": (8, 0)}
_ALL_SLOTS = 16_384
_ENOUGH_SENTINELS = 3
_FULL, _SLOW, _VERY_SLOW, _SKEW = 0.8, 0.005, 0.05, 1.0


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at; a cure where something is wrong."""

    level: Level
    about: str
    said: str
    cure: str = ""


def of_store(store: Store) -> Iterator[Finding]:
    """Everything that was looked at, in the order in which to mend it."""
    yield _version(store)
    yield _scripts(store)
    yield from _rights(store)
    yield _eviction(store)
    yield _memory(store)
    yield _persistence(store)
    yield from _replication(store)
    if store.sentinels is not None:
        yield from _sentinels(store.sentinels)
    yield _latency(store)
    yield _clock(store)
    if store.cluster:
        yield _slots(store)


def _version(store: Store) -> Finding:
    said = f"{store.kind} {store.version}, {store.mode}"
    least = _LEAST[store.kind]
    parts = tuple(int(part) for part in store.version.split(".")[:2] if part.isdigit())
    if parts < least:
        wanted = ".".join(map(str, least))
        return Finding(Level.ERROR, "server", said, f"upgrade: {store.kind} {wanted} or newer")
    return Finding(Level.OK, "server", said)


def _scripts(store: Store) -> Finding:
    if store.script is None:
        return Finding(Level.OK, "scripts", "run")
    cure = "give the user the rights that `sluicegate doctor --acl` prints"
    if "NOPERM" not in store.script and "permission" not in store.script:
        cure = "use a server that runs Lua scripts (EVAL, EVALSHA); a proxy may swallow them"
    return Finding(Level.ERROR, "scripts", store.script, cure)


def _rights(store: Store) -> Iterator[Finding]:
    if store.denied is None:
        said = "the user may not ask which commands it may call (ACL DRYRUN, Redis 7 or newer)"
        cure = "compare it with `sluicegate doctor --acl`, or look as an administrator"
        yield Finding(Level.NOTE, "rights", said, cure)
    elif store.denied:
        lacks = ", ".join(store.denied)
        said = f"user {store.user} may not call: {lacks}"
        cure = "give it the rights that `sluicegate doctor --acl` prints"
        yield Finding(Level.ERROR, "rights", said, cure)
    else:
        yield Finding(Level.OK, "rights", f"user {store.user} may call all that is needed")


def _eviction(store: Store) -> Finding:
    if store.evicted:
        said = f"{store.evicted:,} keys were evicted since its start: such a limit was full again"
        return Finding(Level.ERROR, "eviction", said, _CURE_EVICTION)
    if store.policy != "noeviction":
        level = Level.ERROR if store.maxmemory else Level.WARNING
        said = f"maxmemory-policy is {store.policy}: an evicted limit is full again"
        return Finding(level, "eviction", said, _CURE_EVICTION)
    return Finding(Level.OK, "eviction", "maxmemory-policy is noeviction")


_CURE_EVICTION = "CONFIG SET maxmemory-policy noeviction, and in the server's configuration"


def _memory(store: Store) -> Finding:
    used = f"{store.used_memory / 2**20:,.1f} MB used"
    if not store.maxmemory:
        return Finding(Level.OK, "memory", f"{used}, no maxmemory")
    share = store.used_memory / store.maxmemory
    said = f"{used}, {share:.0%} of maxmemory"
    if share < _FULL:
        return Finding(Level.OK, "memory", said)
    return Finding(
        Level.WARNING,
        "memory",
        said,
        "raise maxmemory: a store that is full refuses acquires until there is room",
    )


def _persistence(store: Store) -> Finding:
    if store.append_only and not store.append_ok:
        said = "the append-only file cannot be written"
        return Finding(Level.ERROR, "persistence", said, "look at the disk and the server's log")
    if store.append_only:
        return Finding(Level.OK, "persistence", "appendonly yes")
    kept = "only snapshots" if store.snapshots else "nothing is kept"
    said = f"{kept}: after a restart limits begin at cold_start, or where the snapshot was"
    return Finding(Level.WARNING, "persistence", said, "CONFIG SET appendonly yes")


def _replication(store: Store) -> Iterator[Finding]:
    if store.role != "master":
        said = f"this is a {store.role}: it takes no writes"
        yield Finding(Level.ERROR, "replication", said, "give the address of the primary")
    elif store.replicas and not store.least_replicas:
        unknown = store.least_replicas is None
        said = f"{store.replicas} replicas; " + (
            "min-replicas-to-write may not be asked" if unknown else "min-replicas-to-write is 0"
        )
        cure = "CONFIG SET min-replicas-to-write 1: it bounds what a failover can lose"
        yield Finding(Level.NOTE if unknown else Level.WARNING, "replication", said, cure)
    else:
        said = f"{store.replicas} replicas" if store.replicas else "no replicas"
        yield Finding(Level.OK, "replication", said)


def _sentinels(seen: Sentinels) -> Iterator[Finding]:
    """Whether they would name another primary when this one goes, and which."""
    yield _watch(seen)
    if len(seen.primaries) > 1:
        said = f"sentinels name different primaries: {', '.join(seen.primaries)}"
        cure = "SENTINEL RESET on those that are wrong: budget is granted twice meanwhile"
        yield Finding(Level.ERROR, "sentinels", said, cure)
    if seen.down:
        said = f"a sentinel holds the primary {seen.primaries[0]} to be down"
        cure = "look at the network between them: a failover may be near"
        yield Finding(Level.WARNING, "sentinels", said, cure)
    if not seen.replicas:
        cure = "add a replica: nobody can take over from the primary"
        yield Finding(Level.WARNING, "sentinels", "they know of no replica", cure)


def _watch(seen: Sentinels) -> Finding:
    """Whether there are enough of them."""
    said = (
        f"{seen.answer} of {seen.asked} in the URL answer, {seen.known} watch "
        f"{' and '.join(seen.primaries)} with quorum {seen.quorum}; {seen.replicas} replicas"
    )
    silent = f" ({seen.silent[0]})" if seen.silent else ""
    if seen.quorum > seen.known or seen.answer <= seen.known // 2:
        cure = f"start them: a failover takes {max(seen.quorum, seen.known // 2 + 1)} sentinels"
        return Finding(Level.ERROR, "sentinels", said + silent, cure)
    if seen.silent or seen.unaware:
        cure = "start those that are down, and leave out of the URL those that are gone"
        return Finding(Level.WARNING, "sentinels", said + silent, cure)
    if seen.known < _ENOUGH_SENTINELS:
        cure = "run three or more on hosts of their own: fewer cannot outvote a lost one"
        return Finding(Level.WARNING, "sentinels", said, cure)
    return Finding(Level.OK, "sentinels", said)


_NO_TLS = "the store speaks no TLS there: redis:// in place of rediss://"
_LOGIN = "user and password of the URL, percent-encoded; those of sentinels are settings"
_CURES = (
    ("certificate verify failed", "SLUICEGATE_REDIS_CA, or SLUICEGATE_REDIS_SERVER_NAME"),
    ("certificate required", "SLUICEGATE_REDIS_CERTIFICATE and SLUICEGATE_REDIS_KEY"),
    ("wrong version number", _NO_TLS),
    ("record layer failure", _NO_TLS),
    ("authentication", _LOGIN),
    ("username-password", _LOGIN),
    ("no permissions", "give the user the rights that `sluicegate doctor --acl` prints"),
    ("owns slot", "redis-cli --cluster check, then fix"),
    ("cluster support disabled", "it is one server: redis:// in place of redis+cluster://"),
    ("cluster mode is not enabled", "it is one server: redis:// in place of redis+cluster://"),
    ("no master found", "do sentinels answer, do they watch the service, is its primary up?"),
)
_ASKS = (
    " One that asks its clients for a certificate wants SLUICEGATE_REDIS_CERTIFICATE and "
    "SLUICEGATE_REDIS_KEY, and may close a connection without a word"
)
_SECURE = "; a store that speaks TLS alone is rediss://"


def unreachable(address: Address, shown: str, why: str) -> Finding:
    """A store that could not be asked: the reason, and what to look at for it."""
    told = why.lower().replace("_", " ")
    cure = next((cure for part, cure in _CURES if part in told), None)
    if cure is None:
        cure = "is it running, and is the address that of `serve`?"
        if address.secure:
            cure += _ASKS
        elif address.topology is not Topology.UNIX:
            cure += _SECURE
    return Finding(Level.ERROR, "store", f"{shown} does not answer: {why}", cure)


def _latency(store: Store) -> Finding:
    middle = store.pings[len(store.pings) // 2]
    said = f"{middle * 1000:.2f} ms there and back, at most {store.pings[-1] * 1000:.2f} ms"
    if middle < _SLOW:
        return Finding(Level.OK, "latency", said)
    level = Level.ERROR if middle > _VERY_SLOW else Level.WARNING
    cure = "put the service near the store: every acquire takes the way once"
    return Finding(level, "latency", said, cure)


def _clock(store: Store) -> Finding:
    ahead = "ahead of" if store.skew > 0 else "behind"
    said = f"{abs(store.skew) * 1000:.0f} ms {ahead} this host, give or take {store.way * 500:.1f}"
    if abs(store.skew) <= _SKEW + store.way:
        return Finding(Level.OK, "clock", said)
    cure = "run NTP on both hosts: calendar windows and deadlines in answers follow the store"
    return Finding(Level.WARNING, "clock", said, cure)


def _slots(store: Store) -> Finding:
    if store.cluster_state is None:
        said = "the user may not ask for the state of the cluster (CLUSTER INFO)"
        return Finding(Level.NOTE, "cluster", said, "look as an administrator")
    said = f"state {store.cluster_state}, {store.slots or 0:,} of {_ALL_SLOTS:,} slots are served"
    if store.cluster_state == "ok" and store.slots == _ALL_SLOTS:
        return Finding(Level.OK, "cluster", said)
    cure = "redis-cli --cluster check, then fix: a pool whose slot is not served is refused"
    return Finding(Level.ERROR, "cluster", said, cure)


def of_service(
    unready: str | None, fleet: dict[str, Any], config: dict[str, Any]
) -> Iterator[Finding]:
    """What the replicas say of themselves."""
    if unready is None:
        yield Finding(Level.OK, "service", f"ready; {fleet['answered_by']} has answered")
    else:
        draining = any(order["kind"] == "drain" for order in fleet["orders"])
        cure = "sluicegate undrain" if draining else "sluicegate doctor --redis-url URL"
        yield Finding(Level.ERROR, "service", unready, cure)
    for fault in config["faults"]:
        said = f"{config['source']} is refused: {fault['path']}: {fault['message']}"
        yield Finding(Level.ERROR, "configuration", said, "mend the file; the one before runs on")
    versions = {each["config"] for each in fleet["replicas"]}
    if not fleet["agreed"]:
        names = ", ".join(f"{each['name']} {each['config']}" for each in fleet["replicas"])
        said = f"replicas decide by {len(versions)} configurations: {names}"
        cure = "give all of them the same file, then `sluicegate config reload`"
        yield Finding(Level.ERROR, "configuration", said, cure)
    elif not config["faults"]:
        count = len(fleet["replicas"])
        said = f"version {config['version']} at {count} replica{'s' * (count != 1)}"
        yield Finding(Level.OK, "configuration", said)
    releases = sorted({each["version"] for each in fleet["replicas"]})
    if len(releases) > 1:
        said = f"replicas run {', '.join(releases)}"
        yield Finding(Level.NOTE, "versions", said, "finish the rollout")
    for order in fleet["orders"]:
        if order["until"] is None:
            what = "undrain" if order["kind"] == "drain" else "log-level --clear"
            said = f"{order['kind']} {order['value']} by {order['actor']} holds until it is cleared"
            yield Finding(Level.NOTE, "orders", said, f"sluicegate {what}")
