"""Admin keys that a replica is given beside the store: by its environment, or in a file.

They open the service before a first key is in the store, and while the store is away.
"""

from pathlib import Path

import structlog

from limiter_service.engine import credentials
from limiter_service.engine.credentials import Credential
from limiter_service.settings import Settings

_log = structlog.get_logger()


class GivenKeyError(Exception):
    """What was given is no key; the message says what one looks like."""


class GivenKeys:
    """Reads them, the file again whenever it has changed: so a key is replaced."""

    def __init__(self, settings: Settings) -> None:
        """Raises GivenKeyError."""
        self._path = settings.admin_key_file
        self._seen: tuple[int, ...] | None = None
        self._of_file: list[Credential] = []
        self._of_environment: list[Credential] = []
        if settings.admin_key is not None:
            text = settings.admin_key.get_secret_value()
            self._of_environment = _keys(text, "SLUICEGATE_ADMIN_KEY")
        if self._path is not None:
            self._of_file = self._read(self._path)

    def now(self) -> list[Credential]:
        """The keys in force: those of a file that cannot be read stay."""
        if self._path is not None:
            try:
                if _stamp(self._path) != self._seen:
                    self._of_file = self._read(self._path)
            except GivenKeyError as error:
                _log.error("the file of admin keys is refused", problem=str(error))
        return [*self._of_environment, *self._of_file]

    def _read(self, path: Path) -> list[Credential]:
        try:
            self._seen, text = _stamp(path), path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            self._seen = None
            raise GivenKeyError(f"{path} cannot be read: {error}") from error
        return _keys(text, str(path))


def _keys(text: str, where: str) -> list[Credential]:
    """One key a line; lines that begin with # are for people."""
    lines = [line.strip() for line in text.splitlines()]
    found = [credentials.read(line) for line in lines if line and not line.startswith("#")]
    keys = [key for key in found if key is not None]
    if not keys or len(keys) < len(found):
        hint = "make one with `sluicegate keys generate`"
        raise GivenKeyError(f"{where} holds no key of the form sg_<id>_<secret>: {hint}")
    return keys


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise GivenKeyError(f"{path} cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino
