"""All the ways to cut a body."""

from collections.abc import Iterator


def pieces(body: bytes, size: int) -> list[bytes]:
    """Chunks of *size*."""
    return [body[at : at + size] for at in range(0, len(body), size)]


def chunkings(body: bytes, *, most: int = 700) -> Iterator[list[bytes]]:
    """Whole, one byte, 17 bytes, with empty chunks between, and cut once at each place.

    Of the places in a long body about *most* are taken, evenly.
    """
    yield [body]
    yield pieces(body, 1)
    yield pieces(body, 17)
    yield [b"", *(x for piece in pieces(body, 64) for x in (piece, b""))]
    for at in range(1, len(body), 1 + len(body) // most):
        yield [body[:at], body[at:]]
