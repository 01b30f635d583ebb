"""The command line: what it refuses before anything starts, and several workers."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.calls import EXACT
from tests_support.servers import Server, valkey_binary
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until
from typer.testing import CliRunner, Result

from limiter_service.cli import app
from limiter_service.door import is_loopback
from limiter_service.settings import Settings, unknown


def run(*arguments: str) -> Result:
    """The command in this process; for what ends before anything is started."""
    return CliRunner().invoke(app, arguments, prog_name="sluicegate")


def plain(text: str) -> str:
    """Help without the line breaks that depend on the terminal."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ((), "One exact budget of requests"),
        (("serve",), "Exit codes: 0 stopped as asked, 1 could not start, 2 wrong options"),
        (("check-config",), "Exit codes: 0 the file is good, 2 it is not"),
        (("provider-sim",), "--port"),
        (("demo",), "Usage: sluicegate demo"),
    ],
)
def test_every_verb_explains_itself(verb: tuple[str, ...], said: str):
    """`--help` and `-h` end with 0 and say what the verb is for."""
    for flag in ("--help", "-h"):
        done = run(*verb, flag)
        assert done.exit_code == 0
        assert said in plain(done.output)


def test_every_verb_stands_in_the_help():
    """What can be run is listed."""
    listed = plain(run("--help").output)
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f" {name} " in listed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "99999"), "--port (SLUICEGATE_PORT): 99999: Input should be less than"),
        (("--port", "-1"), "--port (SLUICEGATE_PORT): -1:"),
        (("--workers", "0"), "--workers (SLUICEGATE_WORKERS): 0:"),
        (("--log-level", "loud"), "--log-level (SLUICEGATE_LOG_LEVEL): 'loud':"),
        (("--workers", "2"), "--workers 2 share one store: give it with --redis-url"),
        (("--no-such-option",), "No such option"),
        (("--port", "many"), "Invalid value for '--port'"),
        (("--redis-url", "unix:///nowhere", "--config", "/nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_cannot_work_is_refused(arguments: tuple[str, ...], said: str):
    """Exit code 2, before anything is bound or started, with what to change."""
    done = run("serve", *arguments)
    assert done.exit_code == 2
    assert said in plain(done.output)
    assert "Traceback" not in done.output


def test_every_bad_option_is_told_at_once():
    """One line each."""
    done = run("serve", "--port", "99999", "--workers", "0")
    assert [line.partition(" ")[0] for line in done.output.splitlines()] == ["--port", "--workers"]


def test_an_unknown_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch):
    """A typo would otherwise be a setting that silently does nothing."""
    monkeypatch.setenv("SLUICEGATE_PROT", "1")
    done = run("serve")
    assert done.exit_code == 2
    assert "unknown in the environment: SLUICEGATE_PROT" in done.output
    assert "SLUICEGATE_PORT" in done.output


def test_a_bad_value_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch):
    """With the option that it stands for."""
    monkeypatch.setenv("SLUICEGATE_PORT", "tcp://10.0.0.1:80")
    done = run("serve")
    assert done.exit_code == 2
    assert "--port (SLUICEGATE_PORT): 'tcp://10.0.0.1:80'" in done.output


def test_what_kubernetes_injects_is_not_unknown():
    """A Service called `sluicegate` puts its addresses in every pod's environment."""
    injected = ["SLUICEGATE_SERVICE_HOST", "SLUICEGATE_SERVICE_PORT", "SLUICEGATE_PORT_80_TCP"]
    known = [f"SLUICEGATE_{name.upper()}" for name in Settings.model_fields]
    assert unknown(dict.fromkeys([*injected, *known, "PATH", "SLUICEGATED"], "")) == []
    assert unknown({"SLUICEGATE_X": "", "SLUICEGATE_A": ""}) == ["SLUICEGATE_A", "SLUICEGATE_X"]


def test_settings_have_a_value_for_each_option(monkeypatch: pytest.MonkeyPatch):
    """The environment sets what the command line does, and the command line wins."""
    monkeypatch.setenv("SLUICEGATE_PORT", "1234")
    monkeypatch.setenv("SLUICEGATE_ALLOW_ANONYMOUS", "true")
    assert (Settings().port, Settings().allow_anonymous) == (1234, True)
    assert Settings(port=5).port == 5


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False)),
    ],
)
def test_only_loopback_is_served_without_a_key(host: str, local: bool):
    """Addresses that others could reach need an explicit word."""
    assert is_loopback(host) is local


def test_a_port_in_use_is_told(write_config: Callable[[str], Path], server: Server):
    """The message names address, port and reason."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = subprocess.run(
            [
                *(sys.executable, "-m", "limiter_service", "serve", "--port", port),
                *("--config", str(write_config(EXACT)), "--redis-url", server.url),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_share_one_budget_and_end_together(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
):
    """Several processes behind one port grant no more than there is; SIGTERM ends all with 0."""
    arguments = ["--workers", "2", "--config", str(write_config(EXACT)), "--redis-url", server.url]
    with ServiceProcess(*arguments) as running:
        codes = []
        for _ in range(12):  # a connection each, so that both processes get some
            with httpx.Client(timeout=20) as client:
                body = {"resource": "p/m", "tokens": 150}
                codes.append(client.post(f"{running.url}/v1/acquire", json=body).status_code)
        assert sorted(codes) == [200] * 6 + [429] * 6
        assert running.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hangup_reads_the_file_again(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path], workers: int
):
    """Every worker does, and one that is given a bad file goes on with what it has."""
    arguments = ["--config", str(write_config(EXACT)), "--redis-url", server.url]
    with (
        ServiceProcess(*arguments, "--workers", str(workers)) as running,
        httpx.Client(base_url=running.url, timeout=20) as client,
    ):
        assert running.process is not None

        def reloads(kind: str) -> int:
            """How many replicas say that a signal has made them read."""
            answer = client.get("/v1/events?follow=false", headers={"last-event-id": "0"})
            lines = [line for line in answer.text.splitlines() if f'"type":"{kind}"' in line]
            return len({line.partition('"replica":')[2] for line in lines if "SIGHUP" in line})

        wait_until(
            lambda: len(client.get("/v1/replicas").json()["replicas"]) == workers, "not all serve"
        )
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads("config_reload") == workers, "the file is not read")
        write_config("pools: {p: {modles: {}}}")
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads("config_refused") == workers, "the file is not refused")
        ask = {"resource": "p/m", "tokens": 1}
        assert client.post("/v1/acquire", json=ask).status_code == 200
        assert running.stop() == 0


def test_a_password_in_the_url_of_the_store_is_not_shown(
    write_config: Callable[[str], Path],
):
    """It is started with, not printed."""
    arguments = ["--config", str(write_config(EXACT))]
    url = "redis://user:s3cret@127.0.0.1:1/0"
    with ServiceProcess(*arguments, "--redis-url", url) as running:
        assert running.lines[0] == "store redis://user:***@127.0.0.1:1/0"
        answer = httpx.get(f"{running.url}/readyz")
        assert answer.status_code == 503
        assert "s3cret" not in answer.text


def test_a_store_that_evicts_is_refused_unless_told(tmp_path: Path):
    """What it evicts is budget that was spent, and forgotten."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    with Server(binary, tmp_path, "--maxmemory-policy", "allkeys-lru") as store:
        done = run("serve", "--port", "0", "--redis-url", store.url)
        assert done.exit_code == 2
        assert "maxmemory-policy allkeys-lru" in plain(done.stderr)
        with ServiceProcess("--redis-url", store.url, "--allow-eviction") as running:
            assert httpx.get(f"{running.url}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"REDIS_URL": "http://u:canary@cache"}, "http:// is not known; known are redis://"),
        ({"REDIS_URL": "redis+sentinel://u:canary@s1"}, "the name of the service is missing"),
        ({"REDIS_URL": "redis://cache", "REDIS_CA": "/ca"}, "REDIS_CA is for TLS"),
        ({"REDIS_URL": "rediss://cache", "REDIS_CA": "/nowhere"}, "there is no file /nowhere"),
        ({"REDIS_URL": "rediss://cache", "REDIS_KEY": __file__}, "REDIS_KEY go together"),
        ({"REDIS_URL": "redis://cache", "SENTINEL_PASSWORD": "canary"}, "login of sentinels"),
    ],
)
def test_a_store_that_could_not_be_connected_is_refused(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], said: str
):
    """Before anything starts, with the reason and without the password."""
    for name, value in env.items():
        monkeypatch.setenv(f"SLUICEGATE_{name}", value)
    done = run("serve")
    assert done.exit_code == 2
    assert said in done.output
    assert "canary" not in done.output
