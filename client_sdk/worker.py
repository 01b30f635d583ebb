"""What this process is called when it asks for budget."""

import os
import secrets

_names: dict[int, str] = {}


def worker_name() -> str:
    """A name for this process: unique in the fleet, and nobody's.

    The breaker opens only when several workers see failures, so it must tell them apart. The
    name is the process id and a random number: neither host nor user are in it. A process that
    was forked has a name of its own.
    """
    pid = os.getpid()
    name = _names.get(pid)
    if name is None:
        name = _names.setdefault(pid, f"{pid}-{secrets.token_hex(6)}")
    return name
