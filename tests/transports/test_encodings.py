"""Compressed bodies, undone piece by piece."""

import gzip
import zlib

import pytest

from client_sdk.transports.encodings import CannotDecodeError, decoded, undo

TEXT = b"data: the water rises\n\n" * 50
BARE = zlib.compressobj(wbits=-zlib.MAX_WBITS)
RAW = BARE.compress(TEXT) + BARE.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", RAW),
        ("deflate, gzip", gzip.compress(zlib.compress(TEXT))),
    ],
    ids=["none", "identity", "gzip", "x-gzip", "zlib", "deflate", "both"],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_pieces_add_up(encoding: str, data: bytes, size: int):
    """However the bytes are cut."""
    step = undo(encoding)
    assert step is not None
    found = b"".join(step(data[at : at + size]) for at in range(0, len(data), size))
    assert found == TEXT


@pytest.mark.parametrize(("encoding", "package"), [("br", "brotli"), ("zstd", "zstandard")])
def test_others_with_their_package(encoding: str, package: str):
    """As the HTTP clients do it."""
    module = pytest.importorskip(package)
    data = module.compress(TEXT) if encoding == "br" else module.ZstdCompressor().compress(TEXT)
    assert decoded(encoding, data) == TEXT


def test_what_cannot_be_undone_is_said():
    """An encoding that nobody knows, and bytes that are none."""
    assert undo("sdch") is None
    assert decoded("sdch", b"x") == b"x"
    step = undo("gzip")
    assert step is not None
    with pytest.raises(CannotDecodeError):
        step(b"no gzip at all")
    assert decoded("gzip", b"no gzip at all") == b"no gzip at all"
