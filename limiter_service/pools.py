"""The pools file while the service runs: read, watched, and replaced only by a better one."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from watchfiles import awatch

from limiter_service import config_view
from limiter_service.config import Config, ConfigError, ConfigProblem, catalogue_of, load, parse
from limiter_service.prices import Catalogue, PriceFileError
from limiter_wire import ConfigChange

_log = structlog.get_logger()

EXAMPLE = """
pools:
  example:
    models:
      "*": {rpm: 60, tpm: 10000, concurrency: 8}
"""
"""Served when no file is given, so that a first acquire works."""


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """What came of reading the file: versions, and changes; `problems` when it is refused."""

    before: str
    version: str
    changes: list[ConfigChange] = []
    problems: list[ConfigProblem] = []

    @property
    def accepted(self) -> bool:
        """Whether the file is in force now."""
        return not self.problems


class Pools:
    """The configuration in force, and the file that it comes from."""

    def __init__(self, path: Path | None) -> None:
        """Read *path*. Raises ConfigError with everything that is wrong in it."""
        self.path = path
        text = _text(path) if path else None  # before it is read: no change may be missed
        self.config: Config = load(path) if path else parse(EXAMPLE, ".yaml", "example")
        self._seen = text, self._texts()[1]
        self.catalogue = self._prices()
        self.problems: list[ConfigProblem] = []
        self.version, self.read_at = self._version(self.config), _now()
        self._reading = asyncio.Lock()

    @property
    def source(self) -> str:
        """Where the configuration comes from."""
        return str(self.path or "the built-in example")

    @property
    def problem(self) -> str | None:
        """Why the file's latest text is not in force; None when it is."""
        return str(ConfigError(self.source, self.problems)) if self.problems else None

    def describe(self) -> str:
        """One line for probes: what is in force, and why not the file's latest text."""
        text = f"{len(self.config.pools)} pools from {self.source}"
        return f"{text}; the file is refused: {self.problem}" if self.problem else text

    async def read_again(self) -> Reload:
        """`reload` beside other work, one at a time."""
        async with self._reading:
            return await asyncio.to_thread(self.reload)

    def reload(self) -> Reload:
        """Read the file again; keep what is in force when it is refused."""
        before, was = self.version, self.config
        if self.path is None:
            return Reload(before=before, version=before)
        self._seen = self._texts()
        try:
            config = load(self.path)
        except ConfigError as error:
            self.problems = error.problems
            _log.error("configuration refused, the running one stays", problem=str(error))
            return Reload(before=before, version=before, problems=error.problems)
        self.config, self.problems = config, []
        self.catalogue = self._prices()
        self.version, self.read_at = self._version(config), _now()
        _log.info("configuration reloaded", pools=len(config.pools), version=self.version)
        changes = config_view.changes(was, config)
        return Reload(before=before, version=self.version, changes=changes)

    async def watch(self, told: Callable[[Reload], None], stop: asyncio.Event) -> None:
        """Call *told* after each change of the file, until *stop* is set.

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
                told(await self.read_again())

    def _texts(self) -> tuple[bytes | None, tuple[int, ...]]:
        """What the pools file says, and which price file that is: it may be large."""
        prices = self._price_file(self.config)
        if self.path is None:
            return None, ()
        return _text(self.path), _stamp(prices) if prices else ()

    def _price_file(self, config: Config) -> Path | None:
        if self.path is None or config.price_file is None:
            return None
        return self.path.parent / config.price_file

    def _version(self, config: Config) -> str:
        prices = self._price_file(config)
        return config_view.version(config, _text(prices) if prices else None)

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


def _now() -> float:
    return time.time_ns() / 1e9
