"""OpenAI Agents: every model of the package through a limited client.

use_limiter(limiter)
await Runner.run(agent, "...")
"""

from collections.abc import Callable
from typing import Any

import agents
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from client_sdk import Limiter


def use_limiter(
    limiter: Limiter,
    *,
    pool: str | None = None,
    resource: str | Callable[[Any], str | None] | None = None,
    tenant: str | None = None,
    max_wait: float | None = None,
    **client: Any,
) -> AsyncOpenAI:
    """Make a limited client the default of all agents, and return it. *client* are options of
    AsyncOpenAI; traces are sent by another client, without a limit.
    """
    http = limiter.transport(
        DefaultAsyncHttpxClient(), pool=pool, resource=resource, tenant=tenant, max_wait=max_wait
    )
    sdk = AsyncOpenAI(http_client=http, **client)
    agents.set_default_openai_client(sdk, use_for_tracing=False)
    return sdk
