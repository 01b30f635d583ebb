"""TLS of the service's own: certificate, key and authorities, read again when they change.

Files are looked at with each handshake, which costs a hundred times as much, so there is nothing to
watch and no signal to send. A connection that is open keeps what it began with.
"""

import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog
from uvicorn import Config

_log = structlog.get_logger()


class Certificates:
    """Gives uvicorn its context. *files* are all that it is made of."""

    def __init__(self, files: Iterable[Path | None]) -> None:
        self._files = [path for path in files if path is not None]
        self._seen: list[tuple[int, ...]] = []
        self._make: Callable[[], ssl.SSLContext] | None = None
        self._now: ssl.SSLContext | None = None

    def __call__(self, _config: Config, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """The context that connections begin with; each handshake goes on with the latest."""
        self._make, self._seen = make, self._stamps()
        first = self._now = make()
        first.sni_callback = self._choose
        return first

    def _choose(self, handshake: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        """Called by OpenSSL, whether a name is said or not."""
        handshake.context = self._latest()

    def _latest(self) -> ssl.SSLContext:
        assert self._make is not None
        assert self._now is not None
        stamps = self._stamps()
        if stamps != self._seen:
            self._seen = stamps
            try:
                self._now = self._make()
            except OSError as error:  # of which an ssl.SSLError is one
                _log.error("certificates are refused, those before stay", problem=str(error))
            else:
                _log.warning("certificates are read again", files=list(map(str, self._files)))
        return self._now

    def _stamps(self) -> list[tuple[int, ...]]:
        return [_stamp(path) for path in self._files]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
