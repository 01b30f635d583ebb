"""`sluicegate serve` without a store URL: an embedded Valkey that nobody else can reach."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until

from limiter_service.embedded import EmbeddedError, EmbeddedValkey

SERVE = [sys.executable, "-m", "limiter_service", "serve", "--port", "0"]
DAILY = """
pools:
  p:
    models:
      m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}
"""


@pytest.fixture
def config(write_config: Callable[[str], Path]) -> Path:
    """A pools file whose levels keep still."""
    return write_config(DAILY)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory that does not exist yet."""
    return tmp_path_factory.mktemp("e") / "state"


def service(config: Path, home: Path) -> ServiceProcess:
    """A service with its own Valkey in *home*."""
    return ServiceProcess("--config", str(config), "--state-dir", str(home))


def take(running: ServiceProcess, tokens: int) -> float:
    """Acquire through a service and return what remains."""
    answer = httpx.post(f"{running.url}/v1/acquire", json={"resource": "p/m", "tokens": tokens})
    assert answer.status_code == 200, answer.text
    remaining: float = answer.json()["limits"][0]["remaining"]
    return remaining


def valkey_pid(home: Path) -> int:
    """The process id of the server in *home*, by its own word."""
    with redis.Redis(unix_socket_path=str(home / "valkey.sock")) as connection:
        return int(connection.info("server")["process_id"])


def gone(pid: int) -> bool:
    """Whether no live process has this id; one that waits to be reaped has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_the_store_has_a_private_socket_and_no_port(config: Path, home: Path):
    """The directory is its owner's alone, and no TCP port leads to the data."""
    with service(config, home) as running:
        assert take(running, 1) == 999
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        sock = home / "valkey.sock"
        assert stat.S_ISSOCK(sock.stat().st_mode)
        assert stat.S_IMODE(sock.stat().st_mode) & 0o077 == 0
        with redis.Redis(unix_socket_path=str(sock)) as connection:
            assert connection.config_get("port") == {"port": "0"}
            assert connection.config_get("appendonly") == {"appendonly": "yes"}
        assert running.lines[0] == f"embedded Valkey in {home}"


def test_an_existing_directory_is_made_private(home: Path):
    """A directory that others could enter is closed before the server starts."""
    home.mkdir(mode=0o755)
    with EmbeddedValkey(home):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_levels_survive_a_restart(config: Path, home: Path):
    """SIGTERM ends service and store with exit code 0, and nothing is forgotten."""
    with service(config, home) as first:
        assert take(first, 300) == 700
        pid = valkey_pid(home)
        assert first.stop(signal.SIGTERM) == 0
    assert gone(pid)
    with service(config, home) as second:
        assert take(second, 100) == 600


def test_an_interrupt_ends_the_service_as_well(config: Path, home: Path):
    """Ctrl-C is an ordinary end: exit code 0, and the store is stopped by the service."""
    with service(config, home) as running:
        pid = valkey_pid(home)
        assert running.stop(signal.SIGINT) == 0
    assert gone(pid)


def test_a_killed_service_leaves_no_server_behind(config: Path, home: Path):
    """After SIGKILL the Valkey ends by itself, and the next start has the data."""
    with service(config, home) as first:
        assert take(first, 300) == 700
        pid = valkey_pid(home)
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: gone(pid), "the Valkey of a killed service lives on")
    with service(config, home) as second:
        assert take(second, 100) == 600
        second.stop(signal.SIGKILL)
    with service(config, home) as third:  # at once, while the server before may be ending
        assert take(third, 100) == 500


def test_a_store_that_dies_is_unavailable_and_the_service_says_so(config: Path, home: Path):
    """The service answers 503 instead of hanging, as it was told, and still ends cleanly."""
    text = config.read_text().replace("  p:\n", "  p:\n    on_store_loss: closed\n")
    assert "closed" in text
    config.write_text(text)
    with service(config, home) as running:
        os.kill(valkey_pid(home), signal.SIGKILL)
        answer = httpx.post(f"{running.url}/v1/acquire", json={"resource": "p/m", "tokens": 1})
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert httpx.get(f"{running.url}/readyz").status_code == 503
        assert running.stop(signal.SIGTERM) == 0


def test_a_directory_in_use_is_refused(config: Path, home: Path):
    """A second service on one state directory says what to do, and hurts nobody."""
    with service(config, home) as first:
        second = subprocess.run(
            [
                *(sys.executable, "-m", "limiter_service", "serve", "--port", "0"),
                *("--config", str(config), "--state-dir", str(home)),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 1
        assert "in use by another service" in second.stderr
        assert "--state-dir" in second.stderr
        assert "Traceback" not in second.stderr
        assert take(first, 1) == 999


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path):
    """A file in its place is said at once."""
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(EmbeddedError, match=f"state directory {taken} cannot be used"):
        EmbeddedValkey(taken).start()


def test_a_path_too_long_for_a_socket_works(home: Path):
    """Data stays in the directory; the socket moves to a short private one, and still restarts."""
    deep = home / ("d" * 60) / ("e" * 60)
    for stored in (None, b"1"):
        with EmbeddedValkey(deep) as store:
            assert deep not in store.socket.parents
            assert stat.S_IMODE(store.socket.parent.stat().st_mode) == 0o700
            with redis.Redis(unix_socket_path=str(store.socket)) as connection:
                assert connection.get("a") == stored
                connection.set("a", "1")
    assert any(deep.iterdir())


@pytest.fixture
def several(config: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Command lines of services in directories of their own."""
    base = tmp_path_factory.mktemp("several")
    return [str(base / str(i)) for i in range(3)]


def test_parallel_starts_do_not_meet(config: Path, several: list[str]):
    """Services with different directories start at the same time, each with its own books."""
    command = [*SERVE, "--config", str(config), "--state-dir"]
    processes = [
        subprocess.Popen([*command, home], stdout=subprocess.PIPE, text=True) for home in several
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            line = next(each for each in process.stdout if each.startswith("listening on "))
            body = {"resource": "p/m", "tokens": 10}
            answer = httpx.post(f"{line.split()[-1]}/v1/acquire", json=body)
            assert answer.json()["limits"][0]["remaining"] == 990
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(20) for process in processes]
        for process in processes:
            assert process.stdout is not None
            process.stdout.close()
    assert codes == [0] * len(processes)


def _append_only_file(home: Path) -> Path:
    (found,) = (home / "appendonlydir").glob("*.incr.aof")
    return found


def test_a_torn_end_of_the_data_costs_what_was_torn(config: Path, home: Path):
    """As after a loss of power: the last write is gone, and everything before it is there."""
    with service(config, home) as running:
        take(running, 100)
        take(running, 7)
    data = _append_only_file(home)
    data.write_bytes(data.read_bytes()[:-7])
    with service(config, home) as running:
        assert take(running, 1) in {999 - 100, 999 - 107}


def test_damaged_data_is_set_aside_and_every_limit_begins_cold(config: Path, home: Path):
    """The service starts, says so, and keeps the damaged files for whoever wants to look."""
    with service(config, home) as running:
        take(running, 100)
    data = _append_only_file(home)
    text = bytearray(data.read_bytes())
    command = text.index(b"\r\n*", len(text) // 2) + 2  # within a value nobody would see it
    text[command : command + 16] = b"\xff" * 16
    data.write_bytes(text)
    with service(config, home) as running:
        assert take(running, 1) == 999
    (kept,) = home.glob("damaged-*")
    assert list(kept.glob("*.incr.aof"))
    with service(config, home) as running:
        assert take(running, 1) == 998


def test_a_log_of_something_else_is_no_damage(home: Path):
    """Data is set aside for one reason alone."""
    home.mkdir()
    (home / "valkey.conf").write_text("")
    (home / "appendonlydir").write_text("in the way of the directory")
    with pytest.raises(EmbeddedError), EmbeddedValkey(home):
        pass
    assert not list(home.glob("damaged-*"))
