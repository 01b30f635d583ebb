"""How many files, and so connections, the operating system lets this process open."""

import sys

if sys.platform != "win32":
    import resource


def files_allowed() -> int | None:
    """The limit that is in force; None where there is none."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def allow_files(wanted: int) -> None:
    """Raise the limit as far as it may be, where *wanted* is above it."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
