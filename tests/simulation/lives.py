"""Scripts whose keys outlive every story.

A server ends keys by its own clock, which runs while the world's stands still: on a machine that
is busy, blocks of two seconds would be forgotten within one.
"""

import re
from collections.abc import Mapping
from functools import cache
from hashlib import sha1

from msgspec.structs import replace

from limiter_service.store.scripts import Script

MORE = 86_400_000
"""Milliseconds by which every key lives longer than its script says."""

_LIFE = re.compile(r'"PX", |"PEXPIRE", [^,]+, ')


def lasting(scripts: Mapping[str, Script]) -> dict[str, Script]:
    """The same scripts, but for the lives of keys."""
    return {name: _lasting(script) for name, script in scripts.items()}


@cache
def _lasting(script: Script) -> Script:
    text = _LIFE.sub(lambda life: f"{life[0]}{MORE} + ", script.text)
    return replace(script, text=text, sha=sha1(text.encode(), usedforsecurity=False).hexdigest())
