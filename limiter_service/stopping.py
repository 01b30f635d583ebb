"""Whether this process has been asked to stop.

uvicorn waits for open responses before it ends the lifespan, so a response without an end
has to ask by itself. Its signal handler is a method of the server, which knows.
"""

import signal


def stopping() -> bool:
    """True once SIGTERM or SIGINT has come."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
