"""Anthropic's client: a middleware, which the SDK calls once for each attempt.

    sdk = AsyncAnthropic(middleware=[LimiterMiddleware(limiter)])

Unlike behind `limiter.transport`, a refusal reaches the caller as the error that it is
(`RateLimited` and the like), and the SDK does not try it again.
"""

from typing import Any

import httpx2
import msgspec
from anthropic import Middleware

from client_sdk import Limiter, SyncLimiter
from client_sdk._async.gate import Gate
from client_sdk._async.gate import Resource as Resource  # noqa: PLC0414  # for annotations
from client_sdk._sync.gate import Gate as SyncGate

_BASE = "https://api.anthropic.com"


class LimiterMiddleware(Middleware):  # type: ignore[misc]  # mypy does not see the package
    """Every attempt of a call of a model under a lease; the options are `transport`'s."""

    def __init__(
        self,
        limiter: Limiter | SyncLimiter,
        *,
        pool: str | None = None,
        resource: Resource = None,
        tenant: str | None = None,
        max_wait: float | None = None,
    ) -> None:
        options = {"pool": pool, "resource": resource, "tenant": tenant, "max_wait": max_wait}
        self._gate: Gate | SyncGate = (
            Gate(limiter, httpx2, **options)  # type: ignore[arg-type]  # a dict of keywords
            if isinstance(limiter, Limiter)
            else SyncGate(limiter, httpx2, **options)  # type: ignore[arg-type]  # as above
        )

    async def handle_async(self, request: Any, call_next: Any) -> Any:
        """One attempt of an async client."""
        if not isinstance(self._gate, Gate):
            raise TypeError("an async client needs a Limiter")
        answers: list[Any] = []

        async def send(_seen: Any) -> Any:
            answers.append(await call_next(request))
            return answers[-1].http_response

        await self._gate.guard(_seen(request), send)
        return answers[-1]

    def handle(self, request: Any, call_next: Any) -> Any:
        """One attempt of a blocking client."""
        if not isinstance(self._gate, SyncGate):
            raise TypeError("a blocking client needs a SyncLimiter")
        answers: list[Any] = []

        def send(_seen: Any) -> Any:
            answers.append(call_next(request))
            return answers[-1].http_response

        self._gate.guard(_seen(request), send)
        return answers[-1]


def _seen(request: Any) -> httpx2.Request:
    """The SDK's request as the HTTP request that it becomes, to be read and not to be sent."""
    path = request.url if request.url.startswith("/") else f"/{request.url}"
    body = b"" if request.json is None else msgspec.json.encode(request.json, enc_hook=str)
    retries = {"x-stainless-retry-count": str(request.retries_taken)}
    return httpx2.Request(request.method.upper(), _BASE + path, content=body, headers=retries)
