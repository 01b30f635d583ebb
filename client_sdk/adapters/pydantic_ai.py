"""pydantic-ai: a model under a limiter, or the limiter in place of its concurrency limits.

agent = Agent(LimitedModel("openai:gpt-4o", limiter))
"""

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic_ai.concurrency import AbstractConcurrencyLimiter
from pydantic_ai.models.wrapper import WrapperModel

from client_sdk import Lease, Limiter, Usage
from client_sdk.adapters._leases import PATIENCE, close
from client_sdk.adapters._plans import Plan, plan


class LimitedModel(WrapperModel):  # type: ignore[misc]  # mypy does not see the package
    """Each request takes a lease by its estimated size, and settles it with its usage.

    The resource is the provider (`system`) and the name of the model unless *resource* is
    given. `max_wait` is in seconds.
    """

    def __init__(
        self,
        wrapped: Any,
        limiter: Limiter,
        *,
        resource: str | None = None,
        tenant: str | None = None,
        max_wait: float = PATIENCE,
    ) -> None:
        super().__init__(wrapped)
        self._limiter, self._resource = limiter, resource
        self._tenant, self._max_wait = tenant, max_wait

    async def request(
        self, messages: Any, model_settings: Any, model_request_parameters: Any
    ) -> Any:
        """One request."""
        async with self._lease(messages, model_settings, model_request_parameters) as lease:
            answer = await self.wrapped.request(messages, model_settings, model_request_parameters)
            _account(lease, answer.usage)
            return answer

    @contextlib.asynccontextmanager
    async def request_stream(
        self,
        messages: Any,
        model_settings: Any,
        model_request_parameters: Any,
        run_context: Any = None,
    ) -> AsyncIterator[Any]:
        """One request that streams."""
        async with (
            self._lease(messages, model_settings, model_request_parameters) as lease,
            self.wrapped.request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream,
        ):
            try:
                yield stream
            finally:
                usage = stream.usage
                _account(lease, usage() if callable(usage) else usage)

    @contextlib.asynccontextmanager
    async def _lease(self, messages: Any, settings: Any, parameters: Any) -> AsyncIterator[Lease]:
        wanted = self._plan(messages, settings, parameters)
        async with self._limiter.acquire(
            wanted.resource, **wanted.options(), tenant=self._tenant, max_wait=self._max_wait
        ) as lease:
            yield lease

    def _plan(self, messages: Any, settings: Any, parameters: Any) -> Plan:
        tools = getattr(parameters, "function_tools", None) or ()
        return plan(
            resource=self._resource,
            provider=str(self.system),
            model=str(self.model_name),
            messages=[_message(part) for message in messages for part in message.parts],
            tools=[{"name": t.name, "parameters": t.parameters_json_schema} for t in tools],
            max_output_tokens=(settings or {}).get("max_tokens"),
        )


class LimiterForPydanticAI(AbstractConcurrencyLimiter):  # type: ignore[misc]  # as above
    """For `ConcurrencyLimitedModel` and agents: a lease of *tokens* for each operation.

    pydantic-ai tells neither size nor usage here: a reservation stays as it is. Use
    `LimitedModel` where tokens matter.
    """

    def __init__(
        self,
        limiter: Limiter,
        resource: str,
        *,
        tokens: int = 1,
        tenant: str | None = None,
        max_wait: float = PATIENCE,
    ) -> None:
        self._limiter, self._resource, self._tokens = limiter, resource, tokens
        self._tenant, self._max_wait = tenant, max_wait
        self._leases: deque[Lease] = deque()

    async def acquire(self, source: str) -> None:
        """Take a lease."""
        lease = await self._limiter.acquire(
            self._resource, tokens=self._tokens, tenant=self._tenant, max_wait=self._max_wait
        )
        self._leases.append(lease)

    def release(self) -> None:
        """Give back the oldest one, on whatever task: all are alike."""
        close(self._leases.popleft(), None)


def _message(part: Any) -> dict[str, Any]:
    content = getattr(part, "content", None)
    if isinstance(content, str):
        return {"content": content}
    if isinstance(content, Sequence):
        return {"content": [{"text": each} for each in content if isinstance(each, str)]}
    arguments = getattr(part, "args", None)
    return {"content": str(content or arguments or "")}


def _account(lease: Lease, usage: Any) -> None:
    given, said = int(usage.input_tokens or 0), int(usage.output_tokens or 0)
    if given or said:
        lease.account(
            Usage(
                input_tokens=given,
                output_tokens=said,
                cache_read_tokens=int(usage.cache_read_tokens or 0),
                cache_write_tokens=int(usage.cache_write_tokens or 0),
            )
        )
