"""The pools file while the service runs: read, watched, and replaced only by a better one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from watchfiles import awatch

from limiter_service.config import Config, ConfigError, catalogue_of, load, parse
from limiter_service.prices import Catalogue, PriceFileError

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
        text = _text(path) if path else None  # before it is read: no change may be missed
        self.config: Config = load(path) if path else parse(EXAMPLE, ".yaml", "example")
        self._seen = text, self._texts()[1]
        self.catalogue = self._prices()
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
            self.catalogue = self._prices()
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
            texts = self._texts()
            if texts[0] is not None and texts != self._seen:
                self._seen = texts
                if self.reload():
                    changed(self.config)

    def _texts(self) -> tuple[bytes | None, tuple[int, ...]]:
        """What the pools file says, and which price file that is: it may be large."""
        prices = self.config.price_file
        if self.path is None:
            return None, ()
        return _text(self.path), _stamp(self.path.parent / prices) if prices else ()

    def _prices(self) -> Catalogue:
        """The prices of the file in force; a file that has gone since is as one without prices."""
        try:
            return catalogue_of(self.config, self.path.parent if self.path else None).warm()
        except PriceFileError as error:
            _log.error("the price file cannot be read", problem=str(error))
            return Catalogue()


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
