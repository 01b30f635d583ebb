"""The pools file while the service runs: read, watched, and replaced only by a better one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from watchfiles import awatch

from limiter_service.config import Config, ConfigError, load, parse

_log = structlog.get_logger()

EXAMPLE = """
pools:
  example:
    models:
      "*": {rpm: 60, tpm: 10000, concurrency: 8}
"""
"""Served when no file is given, so that a first acquire works."""


class Pools:
    """The configuration in force, and the file that it comes from."""

    def __init__(self, path: Path | None) -> None:
        """Read *path*. Raises ConfigError with everything that is wrong in it."""
        self.path = path
        self._seen = _text(path) if path else None
        self.config: Config = load(path) if path else parse(EXAMPLE, ".yaml", "example")
        self.problem: str | None = None

    def describe(self) -> str:
        """One line for probes: what is in force, and why not the file's latest text."""
        text = f"{len(self.config.pools)} pools from {self.path or 'the built-in example'}"
        return f"{text}; the file is refused: {self.problem}" if self.problem else text

    def reload(self) -> bool:
        """Read the file again; keep what is in force when it is refused."""
        assert self.path is not None
        try:
            self.config, self.problem = load(self.path), None
        except ConfigError as error:
            self.problem = str(error)
            _log.error("configuration refused, the running one stays", problem=str(error))
            return False
        _log.info("configuration reloaded", pools=len(self.config.pools))
        return True

    async def watch(self, changed: Callable[[Config], None], stop: asyncio.Event) -> None:
        """Call *changed* after each good change of the file, until *stop* is set.

        The directory is watched, not the file: editors and Kubernetes replace the file, or
        a link on the way to it, by renaming. What is read is compared with what was read
        last, also every second without an event: a change before the watch began counts.
        """
        if self.path is None:
            return
        async for _ in awatch(
            self.path.absolute().parent,
            stop_event=stop,
            step=50,
            debounce=200,
            rust_timeout=1000,
            yield_on_timeout=True,
        ):
            text = _text(self.path)
            if text is not None and text != self._seen:
                self._seen = text
                if self.reload():
                    changed(self.config)


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
