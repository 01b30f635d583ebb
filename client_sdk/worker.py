"""What this process is called when it asks for budget."""

import os
import secrets

_named: list[str] = []
if hasattr(os, "register_at_fork"):  # else there are no forks
    os.register_at_fork(after_in_child=_named.clear)


def worker_name() -> str:
    """A name for this process: unique in the fleet, and nobody's.

    The breaker opens only when several workers see failures, so it must tell them apart. The
    name is the process id and a random number: neither host nor user are in it. A process that
    was forked has a name of its own.
    """
    if not _named:
        _named.append(f"{os.getpid()}-{secrets.token_hex(6)}")
    return _named[0]  # the same for all, whichever of several threads was the first
