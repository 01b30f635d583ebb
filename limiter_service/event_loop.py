"""The event loop of the service: uvloop's, with a deadline for TLS handshakes.

Servers that uvicorn starts leave a client a minute for its handshake, in which the connection
is none that a protocol could bound.
"""

import asyncio
import sys
from typing import Any

if sys.platform == "win32":
    from asyncio import ProactorEventLoop as _Loop
else:
    from uvloop import Loop as _Loop

HANDSHAKE = 4.0
"""Seconds until a handshake must be over."""


class Loop(_Loop):
    """Serves TLS to clients that speak it at once."""

    async def create_server(self, *arguments: Any, **keywords: Any) -> Any:  # as any loop's
        """Listen."""
        if keywords.get("ssl") is not None:
            keywords.setdefault("ssl_handshake_timeout", HANDSHAKE)
        return await super().create_server(*arguments, **keywords)


def new() -> asyncio.AbstractEventLoop:
    """An event loop, for uvicorn to run."""
    return Loop()
