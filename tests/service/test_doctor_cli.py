"""`sluicegate doctor`: what is found in a store and a service, and the cure."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from tests_support.servers import Server, valkey_binary
from tests_support.service import ServiceProcess
from typer.testing import CliRunner, Result

from limiter_service.cli import app
from limiter_service.cli.findings import Finding, Level, of_service, of_store
from limiter_service.store import acl
from limiter_service.store.client import Client
from limiter_service.store.inspecting import Sentinels, Store, inspect

WATCH = Sentinels(asked=3, primaries=["10.0.0.1:6379"], quorum=2, known=3, replicas=2)
GOOD = Store(
    kind="Redis",
    version="7.0.15",
    mode="standalone",
    role="master",
    maxmemory=0,
    used_memory=10_000_000,
    policy="noeviction",
    evicted=0,
    append_only=True,
    append_ok=True,
    snapshots=False,
    replicas=0,
    least_replicas=0,
    pings=[0.0001] * 50,
    skew=0.01,
    way=0.001,
    script=None,
    user="sluicegate",
    denied=[],
    cluster=False,
)
CARD = {"name": "a", "version": "1", "config": "c1"}
FLEET = {"answered_by": "a", "agreed": True, "replicas": [CARD], "orders": []}
FILE = {"source": "pools.yaml", "version": "c1", "faults": []}


def run(*words: str) -> Result:
    """The command, without a service."""
    return CliRunner().invoke(app, ["doctor", "--no-service", *words])


def of(findings: list[Finding], about: str) -> Finding:
    """The worst finding about one thing."""
    order = list(Level)
    return max(
        (each for each in findings if each.about == about), key=lambda f: order.index(f.level)
    )


def test_a_good_store_has_nothing_to_mend():
    """And everything that was looked at is told."""
    found = list(of_store(GOOD))
    assert {each.level for each in found} == {Level.OK}
    assert {each.about for each in found} == {
        *("server", "scripts", "rights", "eviction", "memory", "persistence"),
        *("replication", "latency", "clock"),
    }


@pytest.mark.parametrize(
    ("changed", "about", "level", "cure"),
    [
        ({"version": "6.0.16"}, "server", "error", "Redis 6.2 or newer"),
        ({"kind": "Valkey", "version": "7.2.4"}, "server", "error", "Valkey 8.0 or newer"),
        ({"script": "NOPERM this user has no permissions"}, "scripts", "error", "doctor --acl"),
        ({"script": "unknown command 'EVAL'"}, "scripts", "error", "runs Lua scripts"),
        ({"denied": ["eval", "xadd"]}, "rights", "error", "doctor --acl"),
        ({"denied": None}, "rights", "note", "doctor --acl"),
        ({"policy": "allkeys-lru", "maxmemory": 10**9}, "eviction", "error", "noeviction"),
        ({"policy": "allkeys-lru"}, "eviction", "warning", "noeviction"),
        ({"evicted": 3}, "eviction", "error", "noeviction"),
        ({"maxmemory": 11_000_000}, "memory", "warning", "raise maxmemory"),
        ({"append_only": False}, "persistence", "warning", "appendonly yes"),
        ({"append_ok": False}, "persistence", "error", "disk"),
        ({"role": "slave"}, "replication", "error", "the primary"),
        ({"replicas": 2}, "replication", "warning", "min-replicas-to-write 1"),
        ({"replicas": 2, "least_replicas": None}, "replication", "note", "min-replicas"),
        ({"pings": [0.02] * 50}, "latency", "warning", "near the store"),
        ({"pings": [0.2] * 50}, "latency", "error", "near the store"),
        ({"skew": -5.0}, "clock", "warning", "NTP"),
        ({"cluster": True, "cluster_state": "fail", "slots": 0}, "cluster", "error", "fix"),
        ({"cluster": True}, "cluster", "note", "administrator"),
    ],
)
def test_each_fault_of_a_store_is_found_with_its_cure(
    changed: dict[str, object], about: str, level: str, cure: str
):
    """One thing is wrong, and nothing else is said to be."""
    found = list(of_store(msgspec.structs.replace(GOOD, **changed)))
    worst = of(found, about)
    assert (worst.level, cure in worst.cure) == (level, True), worst
    assert {each.level for each in found if each.about != about} == {Level.OK}


def test_a_cluster_that_serves_every_slot_is_good():
    """All of them, and the state says so."""
    whole = msgspec.structs.replace(GOOD, cluster=True, cluster_state="ok", slots=16_384)
    assert of(list(of_store(whole)), "cluster").level is Level.OK


@pytest.mark.parametrize(
    ("unready", "fleet", "file", "about", "cure"),
    [
        ("store_unavailable: no", {}, {}, "service", "doctor --redis-url"),
        (
            "shutting_down: drained",
            {"orders": [{"kind": "drain", "value": "draining", "actor": "x", "until": None}]},
            {},
            "service",
            "sluicegate undrain",
        ),
        (None, {"agreed": False}, {}, "configuration", "the same file"),
        (None, {}, {"faults": [{"path": "p", "message": "m"}]}, "configuration", "mend the file"),
    ],
)
def test_each_fault_of_a_service_is_found_with_its_cure(
    unready: str | None, fleet: dict[str, object], file: dict[str, object], about: str, cure: str
):
    """With the command that mends it."""
    found = list(of_service(unready, FLEET | fleet, FILE | file))
    worst = of(found, about)
    assert worst.level is Level.ERROR
    assert cure in worst.cure
    assert {each.level for each in of_service(None, FLEET, FILE)} == {Level.OK}


@pytest.mark.parametrize(
    ("changed", "level", "cure"),
    [
        ({}, "ok", ""),
        ({"silent": ["refused"]}, "warning", "start those that are down"),
        ({"unaware": 1}, "warning", "leave out of the URL"),
        ({"silent": ["refused", "refused"]}, "error", "takes 2 sentinels"),
        ({"quorum": 4}, "error", "takes 4 sentinels"),
        ({"asked": 2, "known": 2}, "warning", "three or more"),
        ({"primaries": ["10.0.0.1:6379", "10.0.0.2:6379"]}, "error", "SENTINEL RESET"),
        ({"replicas": 0}, "warning", "add a replica"),
        ({"down": True}, "warning", "a failover may be near"),
    ],
)
def test_each_fault_of_the_sentinels_is_found_with_its_cure(
    changed: dict[str, object], level: str, cure: str
):
    """Whether a failover would come about, and only one."""
    watch = msgspec.structs.replace(WATCH, **changed)
    worst = of(list(of_store(msgspec.structs.replace(GOOD, sentinels=watch))), "sentinels")
    assert (worst.level, cure in worst.cure) == (level, True), worst


async def test_a_real_store_is_looked_at(server: Server, db: redis.Redis):
    """Both kinds, and whatever is on is seen."""
    client = Client(server.url, connect_timeout=20.0, command_timeout=20.0)
    seen = await inspect(client, "sg:")
    await client.aclose()
    assert (seen.script, seen.denied, seen.append_only, seen.cluster) == (None, [], False, False)
    assert abs(seen.skew) < 1
    assert list(db.scan_iter()) == []


def test_what_was_seen_is_told(server: Server, db: redis.Redis):
    """With the cure of what is not as it should be."""
    done = run("--redis-url", server.url)
    assert done.exit_code == 0
    assert "WARNING  persistence" in done.output
    assert "cure: CONFIG SET appendonly yes" in done.output


def test_what_is_set_wrong_is_seen(server: Server, db: redis.Redis):
    """3 when something has to be mended."""
    db.config_set("maxmemory-policy", "allkeys-lru")
    db.config_set("maxmemory", "500mb")
    try:
        done = run("--redis-url", server.url, "--output", "json")
    finally:
        db.config_set("maxmemory", "0")
        db.config_set("maxmemory-policy", "noeviction")
    assert done.exit_code == 3
    told = {each["about"]: each for each in json.loads(done.output)}
    assert told["eviction"]["level"] == "error"
    assert "allkeys-lru" in told["eviction"]["said"]


@pytest.fixture
def weak(server: Server, db: redis.Redis) -> Iterator[Callable[[str], str]]:
    """A store's URL for a user with the least rights and others beside."""

    def made(more: str) -> str:
        rules = [*acl.rules(), *more.split()]
        db.execute_command("ACL", "SETUSER", "weak", "reset", "on", ">pw", *rules)
        return f"unix://weak:pw@{server.socket}"

    yield made
    db.acl_deluser("weak")


def test_the_rules_that_it_prints_are_enough_for_itself(weak: Callable[[str], str]):
    """What the user may not ask is a note."""
    done = run("--redis-url", weak(""))
    assert done.exit_code == 0, done.output
    assert "NOTE     rights" in done.output


def test_rights_that_are_missing_are_named(weak: Callable[[str], str]):
    """By the commands, when the user may ask for them; a script that fails is one anyway."""
    asking = "+acl|whoami +acl|dryrun +config|get"
    done = run("--redis-url", weak(f"{asking} -hset -zadd"))
    assert done.exit_code == 3
    assert "user weak may not call: hset, zadd" in done.output
    done = run("--redis-url", weak("-zrangebyscore"))
    assert done.exit_code == 3
    assert "ERROR    scripts" in done.output


def test_the_acl_line_is_one_that_a_server_takes(server: Server, db: redis.Redis):
    """It is the whole line of an ACL file."""
    printed = run("--acl").output.split()
    assert printed[0] == "user"
    db.execute_command("ACL", "SETUSER", printed[1], *printed[2:])
    db.acl_deluser(printed[1])
    assert "+cluster|slots" in run("--acl", "--redis-url", "redis+cluster://a:1,b:2").output
    assert "~other:*" in run("--acl", "--key-prefix", "other:").output


def test_a_cluster_without_slots_is_found(tmp_path: Path):
    """That is what is wrong with it, and not its scripts, which no slot was there for."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    options = ("--cluster-enabled", "yes", "--cluster-config-file", str(tmp_path / "nodes"))
    with Server(binary, tmp_path, *options) as lonely:
        done = run("--redis-url", lonely.url)
    assert done.exit_code == 3
    assert "ERROR    cluster        state fail, 0 of 16,384 slots are served" in done.output
    assert "OK       scripts" in done.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "nothing to look at: give --redis-url"),
        (("--redis-url", "mysql://x"), 2, "known are redis://, rediss:// (TLS), unix://"),
        (("--redis-url", "redis://u:s3cret@127.0.0.1:1/0"), 3, "redis://u:***@127.0.0.1:1/0"),
    ],
)
def test_what_cannot_be_looked_at_is_told(words: tuple[str, ...], code: int, said: str):
    """Without the password."""
    done = run(*words)
    assert done.exit_code == code
    assert said in done.output
    assert "s3cret" not in done.output


@pytest.mark.parametrize("server", ["valkey"], indirect=True)
def test_service_and_store_are_looked_at_together(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
):
    """A running service that is well."""
    file = write_config("pools: {p: {models: {m: {rpm: 5}}}}")
    with ServiceProcess("--config", str(file), "--redis-url", server.url) as service:
        words = ["doctor", "--url", service.url, "--redis-url", server.url]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert "OK       service        ready" in done.output
        assert "OK       configuration" in done.output
    away = CliRunner().invoke(app, ["doctor", "--url", service.url])
    assert away.exit_code == 3
    assert "cure: sluicegate serve" in away.output
