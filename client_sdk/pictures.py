"""Tokens of pictures: by their size, as providers publish it. Pure."""

import base64
import binascii
import math
from collections.abc import Mapping

Size = tuple[int, int]

UNKNOWN: Size = (1024, 1024)
"""Assumed where a picture is named by its address only."""

_HEAD = 65_536
_LOW, _BASE, _TILE = 85, 85, 170  # OpenAI: a thumbnail; a picture; each 512-pixel square of it
_PIXELS_PER_TOKEN, _LONGEST_SIDE, _MOST = 750, 1568, 1600  # Anthropic
_GEMINI, _SMALL, _CROP = 258, 384, 768


def picture_tokens(size: Size, family: str, detail: str = "auto") -> int:
    """What a picture of *size* pixels costs."""
    width, height = max(1, size[0]), max(1, size[1])
    if family.startswith("claude"):
        return _by_area(width, height)
    if family == "gemini":
        return _by_crops(width, height)
    return _LOW if detail == "low" else _by_tiles(width, height)


def _by_area(width: int, height: int) -> int:
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return min(_MOST, math.ceil(width * scale * height * scale / _PIXELS_PER_TOKEN))


def _by_crops(width: int, height: int) -> int:
    if max(width, height) <= _SMALL:
        return _GEMINI
    return _GEMINI * math.ceil(width / _CROP) * math.ceil(height / _CROP)


def _by_tiles(width: int, height: int) -> int:
    """Fit into 2048 pixels, the shorter side into 768, and count squares of 512."""
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    across, down = math.ceil(width * scale / 512), math.ceil(height * scale / 512)
    return _BASE + _TILE * across * down


def size_of(part: Mapping[str, object]) -> Size:
    """The size of the picture in a message's part; the usual one where it cannot be seen."""
    data = _inline(part)
    if data is None:
        return UNKNOWN
    try:
        head = base64.b64decode(data[:_HEAD], validate=False)
    except (binascii.Error, ValueError):
        return UNKNOWN
    return _png(head) or _gif(head) or _jpeg(head) or UNKNOWN


def _inline(part: Mapping[str, object]) -> str | None:
    """Base64 text of a picture: a data URL (OpenAI), `source.data` or `inline_data.data`."""
    for key in ("image_url", "source", "inline_data", "inlineData"):
        value = part.get(key)
        url = value.get("url") if isinstance(value, Mapping) else value
        if isinstance(url, str) and url.startswith("data:"):
            return url.partition(",")[2]
        if isinstance(value, Mapping) and isinstance(value.get("data"), str):
            return str(value["data"])
    return None


def _png(head: bytes) -> Size | None:
    if not head.startswith(b"\x89PNG\r\n\x1a\n") or len(head) < 24:  # noqa: PLR2004  # its header
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _gif(head: bytes) -> Size | None:
    if not head.startswith((b"GIF87a", b"GIF89a")) or len(head) < 10:  # noqa: PLR2004  # its header
        return None
    return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")


def _jpeg(head: bytes) -> Size | None:
    """The size in the first frame header; segments before it are stepped over."""
    if not head.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:  # noqa: PLR2004  # a marker
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if marker in range(0xC0, 0xD0) and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = head[at + 5 : at + 7], head[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += 2 + length
    return None
