"""The processes of the demo: started in order, watched, and all stopped at the end."""

import asyncio
import contextlib
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from limiter_service.demo.plan import Plan, pools_file
from limiter_service.settings import without_ours

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 12.0
_LONGEST_LINE = 1 << 20
_LISTENING = re.compile(rb"listening on (http://\S+)")


class ProcessError(RuntimeError):
    """A process of the demo ended or did not start; the message has its last words."""


class Process:
    """One child: its pipes, and its stderr for when it fails."""

    def __init__(self, name: str, child: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self.name = name
        self._child = child
        self._errors = errors

    @property
    def input(self) -> asyncio.StreamWriter:
        """Its stdin."""
        assert self._child.stdin is not None
        return self._child.stdin

    @property
    def output(self) -> asyncio.StreamReader:
        """Its stdout."""
        assert self._child.stdout is not None
        return self._child.stdout

    async def address(self) -> str:
        """The URL that it announces. Raises ProcessError when it announces none."""
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                async for line in self.output:
                    found = _LISTENING.search(line)
                    if found:
                        return found.group(1).decode()
        except TimeoutError:
            raise ProcessError(f"{self.name} did not start in {_START_TIMEOUT:.0f} s") from None
        raise await self.failure()

    async def failure(self) -> ProcessError:
        """What to raise when its output has ended too early."""
        status = await self._child.wait()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-8:]
        words = "\n  ".join(last) or "it said nothing"
        return ProcessError(f"{self.name} ended with status {status}:\n  {words}")

    async def ended(self) -> None:
        """Wait until it has ended of its own accord. Raises ProcessError when it does not."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self._child.wait()
        except TimeoutError:
            raise ProcessError(f"{self.name} does not end") from None

    async def stop(self) -> None:
        """End it, where it has not ended: politely, then not."""
        if self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                # Also reads what it still says: a full pipe would keep it from ending.
                await self._child.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()


@contextlib.asynccontextmanager
async def python(name: str, *arguments: str) -> AsyncIterator[Process]:
    """Run this interpreter with `arguments` until the block is left."""
    with tempfile.TemporaryFile() as errors:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=_LONGEST_LINE,
            env=without_ours(),  # the demo has its own store and never touches another
            # A terminal's Ctrl-C is for the demo, which then stops its children in order.
            start_new_session=True,
        )
        process = Process(name, child, errors)
        try:
            yield process
        finally:
            await asyncio.shield(process.stop())


@contextlib.asynccontextmanager
async def provider(plan: Plan) -> AsyncIterator[str]:
    """A simulated provider with the plan's limits; its URL."""
    sim = plan.provider()
    options = {
        "--port": 0,
        "--rpm": sim.rpm,
        "--tpm": sim.tpm,
        "--window": sim.window,
        "--charge": sim.charge,
        "--speed": sim.speed,
        "--seed": sim.seed,
    }
    words = [str(word) for option in options.items() for word in option]
    async with python(
        "the provider simulator", "-m", "limiter_service", "provider-sim", *words
    ) as process:
        yield await process.address()


@contextlib.asynccontextmanager
async def service(plan: Plan) -> AsyncIterator[str]:
    """The limiter with a pool that matches the provider, and a store of its own; its URL."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-demo-") as name:
        folder = Path(name)
        config = folder / "pools.yaml"
        config.write_text(pools_file(plan), encoding="utf-8")
        options = {
            "--port": "0",
            "--config": str(config),
            "--state-dir": str(folder / "state"),
            "--log-level": "warning",
        }
        words = [word for option in options.items() for word in option]
        async with python("the service", "-m", "limiter_service", "serve", *words) as process:
            yield await process.address()
