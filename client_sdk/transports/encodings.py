"""Content encodings, undone for our own eyes beside what the client gets. Pure.

A client asks only for encodings that it can undo, and needs the same packages for it.
"""

import importlib
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol


class Undo(Protocol):
    """Bytes of a body to plain bytes, piece by piece."""

    def __call__(self, data: bytes, /) -> bytes:
        """What *data* adds."""


class CannotDecodeError(Exception):
    """The bytes are not in the encoding that the headers named."""


def undo(content_encoding: str) -> Undo | None:
    """A decoder for the value of a header; None when one of its encodings is unknown here."""
    names = [name.strip().lower() for name in content_encoding.split(",")]
    steps: list[Undo] = []
    for name in reversed([name for name in names if name not in {"", "identity"}]):
        make = _MAKERS.get(name)
        step = make() if make is not None else None
        if step is None:
            return None
        steps.append(step)
    return _chain(steps)


def decoded(content_encoding: str, data: bytes) -> bytes:
    """The whole of a body; as it is, where that cannot be."""
    step = undo(content_encoding)
    try:
        return data if step is None else step(data)
    except CannotDecodeError:
        return data


def _chain(steps: Iterable[Undo]) -> Undo:
    def run(data: bytes) -> bytes:
        try:
            for step in steps:
                data = step(data)
        except Exception as error:  # each package has exceptions of its own
            raise CannotDecodeError(type(error).__name__) from error
        return data

    return run


def _gzip() -> Undo:
    return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress


def _deflate() -> Undo:
    """With or without the header of zlib: servers do both, and two bytes tell."""
    inflate: Undo | None = None
    head = b""

    def run(data: bytes) -> bytes:
        nonlocal inflate, head
        if inflate is None:
            head += data
            if len(head) < 2:  # noqa: PLR2004  # of zlib's header
                return b""
            zlibs = head[0] & 15 == 8 and int.from_bytes(head[:2], "big") % 31 == 0  # noqa: PLR2004  # as above
            inflate = zlib.decompressobj(zlib.MAX_WBITS if zlibs else -zlib.MAX_WBITS).decompress
            data = head
        return inflate(data)

    return run


def _brotli() -> Undo | None:
    for name in ("brotli", "brotlicffi"):
        try:
            package = importlib.import_module(name)
        except ImportError:
            continue
        decoder = package.Decompressor()
        found: Undo = getattr(decoder, "decompress", None) or decoder.process
        return found
    return None


def _zstd() -> Undo | None:
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            decoder = importlib.import_module(name).ZstdDecompressor()
        except ImportError:
            continue
        found: Undo = (decoder.decompressobj() if name == "zstandard" else decoder).decompress
        return found
    return None


_MAKERS: dict[str, Callable[[], Undo | None]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
