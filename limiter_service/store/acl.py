"""The rights that the service needs at its store, as ACL rules, and no more than those.

Scripts run with the rights of whoever calls them, so what they call is part of it: that is read
from the scripts themselves.
"""

import re

from limiter_service.store.keys import DEFAULT_PREFIX
from limiter_service.store.scripts import NAMES, source

_CALL = re.compile(r'\bcall\(\s*"(\w+)"')

CONNECTING = ("evalsha", "eval", "info", "ping", "hello", "auth", "wait")
HINTS = ("publish", "subscribe", "unsubscribe")
"""What the scripts publish, replicas hear."""

CLUSTER = ("cluster|slots", "asking", "spublish", "ssubscribe", "sunsubscribe")
SENTINEL = ("sentinel|masters", "ping", "hello", "auth")
"""At the sentinels, which have users of their own."""


def script_commands() -> list[str]:
    """Every command that a script calls."""
    return sorted({name.lower() for script in NAMES for name in _CALL.findall(source(script))})


def rules(prefix: str = DEFAULT_PREFIX, *, cluster: bool = False) -> list[str]:
    """The rules of the service's user, without its password: keys and channels that begin with
    *prefix*, and the commands. They are the same for Redis and Valkey of every version.
    """
    own = [name for name in script_commands() if not (name in CONNECTING or name in HINTS)]
    commands = [*CONNECTING[:2], *own, *HINTS, *CONNECTING[2:], *(CLUSTER if cluster else ())]
    pattern = _literally(prefix)
    return [f"~{pattern}*", "resetchannels", f"&{pattern}*", "-@all", *(f"+{c}" for c in commands)]


def sentinel_rules() -> list[str]:
    """The rules of a user at the sentinels."""
    return ["resetkeys", "resetchannels", "-@all", *(f"+{name}" for name in SENTINEL)]


def line(user: str, password: str, given: list[str]) -> str:
    """A line of an ACL file."""
    return " ".join(("user", user, "on", f">{password}", *given))


def _literally(prefix: str) -> str:
    """*prefix* in a pattern that matches it alone."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", prefix)
