"""LlamaIndex: a rate limiter that knows the size of each call, and settles it.

    ours = LimiterForLlamaIndex(limiter, resource="openai/gpt-4o")
    llm = OpenAI(model="gpt-4o", rate_limiter=ours, callback_manager=CallbackManager([ours]))

LlamaIndex asks its rate limiter for 0 tokens; what the call says stands in the event before.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.rate_limiter import BaseRateLimiter

from client_sdk import Limiter, SyncLimiter
from client_sdk.adapters._leases import PATIENCE, AnyLease, close, plain, usage_from
from client_sdk.adapters._plans import Plan, plan


class LimiterForLlamaIndex(BaseRateLimiter, BaseCallbackHandler):  # type: ignore[misc]  # mypy does not see the package
    """Give it as `rate_limiter` and in the `callback_manager` of an LLM.

    A SyncLimiter serves the blocking methods, a Limiter the async ones. `pool` stands before
    the model's name where no `resource` is given; `max_wait` is in seconds.
    """

    def __init__(
        self,
        *limiters: Limiter | SyncLimiter,
        resource: str | None = None,
        pool: str = "openai",
        tenant: str | None = None,
        max_wait: float = PATIENCE,
    ) -> None:
        super().__init__([], [])
        self._async = next((each for each in limiters if isinstance(each, Limiter)), None)
        self._sync = next((each for each in limiters if isinstance(each, SyncLimiter)), None)
        self._resource, self._pool = resource, pool
        self._tenant, self._max_wait = tenant, max_wait
        self._pending: ContextVar[tuple[str, Plan] | None] = ContextVar(
            f"sluicegate-llama-index-{id(self)}", default=None
        )
        self._leases: dict[str, AnyLease] = {}

    # Of the rate limiter.

    def acquire(self, num_tokens: int = 0) -> None:
        """Take a lease for the call that was announced, or for *num_tokens* (embeddings)."""
        if self._sync is None:
            raise TypeError("the blocking methods need a SyncLimiter")
        event_id, wanted = self._next(num_tokens)
        lease = self._sync.acquire(
            wanted.resource, **wanted.options(), tenant=self._tenant, max_wait=self._max_wait
        )
        self._keep(event_id, lease)

    async def async_acquire(self, num_tokens: int = 0) -> None:
        """The same in a task."""
        if self._async is None:
            raise TypeError("the async methods need a Limiter")
        event_id, wanted = self._next(num_tokens)
        lease = await self._async.acquire(
            wanted.resource, **wanted.options(), tenant=self._tenant, max_wait=self._max_wait
        )
        self._keep(event_id, lease)

    def _next(self, num_tokens: int) -> tuple[str | None, Plan]:
        found = self._pending.get()
        self._pending.set(None)
        if found is not None:
            return found
        if self._resource is None:
            raise RuntimeError("give this object to the callback manager as well, or a resource")
        return None, Plan(
            resource=self._resource, input_tokens=max(1, num_tokens), max_output_tokens=0
        )

    def _keep(self, event_id: str | None, lease: AnyLease) -> None:
        if event_id is None:
            close(lease, None)  # nobody will say how it ended
        else:
            self._leases[event_id] = lease

    # Of the callback.

    def on_event_start(
        self,
        event_type: Any,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **_told: Any,
    ) -> str:
        """A call is announced."""
        if event_type == CBEventType.LLM and payload is not None:
            self._pending.set((event_id, self._plan(payload)))
        return event_id

    def on_event_end(
        self,
        event_type: Any,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **_told: Any,
    ) -> None:
        """It is over."""
        lease = self._leases.pop(event_id, None)
        if lease is None:
            return
        told = payload or {}
        answer = told.get(EventPayload.RESPONSE) or told.get(EventPayload.COMPLETION)
        close(lease, _usage(answer), told.get(EventPayload.EXCEPTION))

    def start_trace(self, trace_id: str | None = None) -> None:
        """Traces are none of ours."""

    def end_trace(
        self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None
    ) -> None:
        """Traces are none of ours."""

    def _plan(self, payload: Mapping[Any, Any]) -> Plan:
        about = payload.get(EventPayload.SERIALIZED) or {}
        extra = payload.get(EventPayload.ADDITIONAL_KWARGS) or {}
        messages = payload.get(EventPayload.MESSAGES) or ()
        said = [{"content": message.content} for message in messages]
        if (prompt := payload.get(EventPayload.PROMPT)) is not None:
            said.append({"content": prompt})
        return plan(
            resource=self._resource,
            provider=self._pool,
            model=str(about.get("model") or about.get("model_name") or "unknown"),
            messages=said,
            tools=extra.get("tools"),
            max_output_tokens=extra.get("max_tokens") or about.get("max_tokens"),
        )


def _usage(answer: Any) -> Any:
    """The usage that hangs on an answer: its raw response's, or the figures beside it."""
    if answer is None:
        return None
    raw = plain(getattr(answer, "raw", None))
    found = usage_from(plain(raw.get("usage")))
    return found or usage_from(getattr(answer, "additional_kwargs", None))
