"""A client that shows what is on the wire: bytes, and how the connection ends."""

import asyncio
import json
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec


class Seen(msgspec.Struct, kw_only=True):
    """What a caller sees of an answer.

    `ending` is how it came to an end: the body was complete, the connection was closed or
    reset before it was, or nothing more came and the connection stayed open.
    """

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    pieces: int = 0
    ending: Literal["complete", "closed", "reset", "open"] = "open"


async def post(url: str, path: str, body: dict[str, Any], **headers: str) -> Seen:
    """Send one request and read until the answer ends, or nothing comes for a while."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: sim", f"content-length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
    raw, ending, pieces = b"", "open", 0
    try:
        while True:
            piece = await asyncio.wait_for(reader.read(65536), PATIENCE)
            if not piece:
                ending = "closed"
                break
            raw, pieces = raw + piece, pieces + 1
            if _complete(raw):
                ending = "complete"
                break
    except TimeoutError:
        pass
    except ConnectionResetError:
        ending = "reset"
    writer.close()
    seen = _read(raw)
    seen.ending, seen.pieces = ending, pieces  # type: ignore[assignment]
    return seen


# Longer than a loaded machine needs between two pieces that are due at once.
PATIENCE = 1.5


def _read(raw: bytes) -> Seen:
    head, found, rest = raw.partition(b"\r\n\r\n")
    if not found:
        return Seen(body=raw)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    chunked = headers.get("transfer-encoding") == "chunked"
    return Seen(
        status=int(first.split()[1]),
        headers=headers,
        body=_unchunked(rest)[0] if chunked else rest,
    )


def _complete(raw: bytes) -> bool:
    _head, found, rest = raw.partition(b"\r\n\r\n")
    if not found:
        return False
    seen = _read(raw)
    if "content-length" in seen.headers:
        return len(rest) >= int(seen.headers["content-length"])
    return _unchunked(rest)[1]


def _unchunked(rest: bytes) -> tuple[bytes, bool]:
    """The body so far, and whether its last chunk has come."""
    body = b""
    while True:
        size, found, rest = rest.partition(b"\r\n")
        if not found:
            return body, False
        length = int(size, 16)
        if length == 0:
            return body, True
        body += rest[:length]
        if len(rest) < length + 2:
            return body, False
        rest = rest[length + 2 :]
