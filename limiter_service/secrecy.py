"""Keeps API keys out of logs, wherever a caller has put one: in a path, in a name. Pure."""

import re
from collections.abc import MutableMapping
from typing import Any

_KEY = re.compile(r"(sg_[0-9a-z]{1,32}_)[A-Za-z0-9]+")


def without_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """*event* of structlog, with what looks like the secret of a key crossed out."""
    for name, value in event.items():
        if isinstance(value, str) and "sg_" in value:
            event[name] = _KEY.sub(r"\1***", value)
    return event
