"""Many worker processes that a test gives orders to, watches, and kills."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from tests_support.crowd_member import Birth, Hello, Order, Ordered, Said, Stop
from tests_support.waiting import until


class Task:
    """An order under way: everything that was said of it so far."""

    def __init__(self, member: "Member", number: int) -> None:
        self.member, self.number = member, number
        self.said: list[Said] = []
        self.done = asyncio.Event()

    def hear(self, said: Said) -> None:
        """Take in what the worker says."""
        if said.what == "done":
            self.done.set()
        else:
            self.said.append(said)

    def count(self, what: str) -> int:
        """How often something was said."""
        return sum(each.what == what for each in self.said)

    @property
    def probes(self) -> int:
        """How many of its calls were probes."""
        return sum(each.probe for each in self.said)

    async def end(self) -> Said:
        """The last word, when it is done."""
        await asyncio.wait_for(self.done.wait(), 45)
        assert self.said, "nothing was said"
        assert self.said[-1].what != "broken", self.said[-1].text
        return self.said[-1]

    async def stop(self) -> None:
        """No further call; returns when the one that is under way has ended."""
        await self.member.do(Stop(self.number))
        await asyncio.wait_for(self.done.wait(), 45)

    async def no_more(self) -> None:
        """No further call; what is under way goes on."""
        await self.member.do(Stop(self.number))

    async def cancel(self) -> None:
        """Cancel it within the worker."""
        await self.member.do(Stop(self.number, at_once=True))


class Member:
    """A worker process, as the test sees it."""

    def __init__(self, hello: Hello, writer: asyncio.StreamWriter) -> None:
        self.name, self.pid = hello.name, hello.pid
        self._writer = writer
        self._tasks: dict[int, Task] = {}

    def begin(self, order: Order) -> Task:
        """Give an order; do not wait for what comes of it."""
        task = Task(self, len(self._tasks) + 1)
        self._tasks[task.number] = task
        self._writer.write(msgspec.json.encode(Ordered(task.number, order)) + b"\n")
        return task

    async def do(self, order: Order) -> Said:
        """Give an order; the last that was said of it. A `Stop` says nothing."""
        task = self.begin(order)
        await asyncio.wait_for(task.done.wait(), 45)
        return task.said[-1] if task.said else Said(number=task.number, what="done")

    def kill(self) -> None:
        """End the process without a warning."""
        os.kill(self.pid, signal.SIGKILL)

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Hear what it says, until it is gone."""
        decoder = msgspec.json.Decoder(Said)
        while line := await reader.readline():
            said = decoder.decode(line)
            self._tasks[said.number].hear(said)


class Nursery:
    """The process that workers are forked from; a context manager."""

    def __enter__(self) -> "Nursery":
        # Nothing here speaks TLS, and certificates would cost each worker 30 ms to read.
        nowhere = Path(__file__).parent
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests_support.crowd_member"],
            cwd=Path(__file__).parents[1],
            env=os.environ | {"SSL_CERT_DIR": str(nowhere)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=20)
        assert self._process.returncode == 0

    @contextlib.asynccontextmanager
    async def crowd(
        self, names: Sequence[str], services: Sequence[str], provider: str
    ) -> AsyncIterator[list[Member]]:
        """Workers by these names, spread over the services; gone when the block is left."""
        members: dict[str, Member] = {}
        writers: list[asyncio.StreamWriter] = []

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with contextlib.suppress(ConnectionError):
                hello = msgspec.json.decode(await reader.readline(), type=Hello)
                members[hello.name] = Member(hello, writer)
                await members[hello.name].listen(reader)
            writer.close()

        async def complete() -> bool:
            return len(members) == len(names)

        with tempfile.TemporaryDirectory() as home:
            path = f"{home}/s"
            server = await asyncio.start_unix_server(connected, path)
            birth = Birth(list(names), path, list(services), provider)
            assert self._process.stdin is not None
            self._process.stdin.write(msgspec.json.encode(birth).decode() + "\n")
            self._process.stdin.flush()
            try:
                await until(complete, "a worker does not come", 30)
                yield [members[name] for name in names]
            finally:
                server.close()
                for writer in writers:
                    writer.close()
                for writer in writers:
                    with contextlib.suppress(ConnectionError):
                        await writer.wait_closed()
