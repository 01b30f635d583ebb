"""LangChain: a rate limiter that knows the size of each call, and settles it.

    ours = LimiterForLangChain(limiter)
    model = ChatOpenAI(model="gpt-4o", rate_limiter=ours, callbacks=[ours])

LangChain asks its rate limiter without a prompt, after it has told its callbacks of it: this
object is both. The resource is LangChain's own name of the provider with the model's name.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.rate_limiters import BaseRateLimiter

from client_sdk import Limiter, RateLimited, SyncLimiter
from client_sdk.adapters._leases import PATIENCE, AnyLease, close, usage_from
from client_sdk.adapters._plans import Plan, plan

Pending = list[tuple[UUID, Plan]]


class LimiterForLangChain(BaseRateLimiter, BaseCallbackHandler):  # type: ignore[misc]  # mypy does not see the package
    """Give it as `rate_limiter` and among the `callbacks` of a chat model.

    A SyncLimiter serves `invoke` and `stream`, a Limiter `ainvoke` and `astream`; give both
    to a model that is used both ways. `max_wait` is in seconds.
    """

    run_inline = True  # in the task of the call, where its context is

    def __init__(
        self,
        *limiters: Limiter | SyncLimiter,
        resource: str | None = None,
        tenant: str | None = None,
        max_wait: float = PATIENCE,
    ) -> None:
        self._async = next((each for each in limiters if isinstance(each, Limiter)), None)
        self._sync = next((each for each in limiters if isinstance(each, SyncLimiter)), None)
        self._resource, self._tenant, self._max_wait = resource, tenant, max_wait
        # Calls that were announced in this context and have not asked yet, in their order.
        self._pending: ContextVar[Pending] = ContextVar(f"sluicegate-langchain-{id(self)}")
        self._leases: dict[UUID, AnyLease] = {}

    # Of the rate limiter.

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take a lease for the call that was announced; without waiting, False is a refusal."""
        if self._sync is None:
            raise TypeError("invoke and stream need a SyncLimiter")
        run_id, wanted = self._next()
        try:
            lease = self._sync.acquire(
                wanted.resource, **wanted.options(), **self._terms(blocking=blocking)
            )
        except RateLimited:
            if blocking:
                raise
            return False
        self._leases[run_id] = lease
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """The same in a task."""
        if self._async is None:
            raise TypeError("ainvoke and astream need a Limiter")
        run_id, wanted = self._next()
        try:
            lease = await self._async.acquire(
                wanted.resource, **wanted.options(), **self._terms(blocking=blocking)
            )
        except RateLimited:
            if blocking:
                raise
            return False
        self._leases[run_id] = lease
        return True

    def _terms(self, *, blocking: bool) -> dict[str, Any]:
        return {"tenant": self._tenant, "max_wait": self._max_wait if blocking else 0.0}

    def _next(self) -> tuple[UUID, Plan]:
        pending = self._pending.get([])
        if not pending:
            raise RuntimeError("give this object to the model's callbacks as well")
        return pending.pop(0)

    # Of the callback.

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], *, run_id: UUID, **told: Any
    ) -> None:
        """A chat model is about to ask."""
        said = [_message(message) for batch in messages for message in batch]
        self._announce(run_id, said, told)

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **told: Any
    ) -> None:
        """So is a model of the older kind."""
        self._announce(run_id, [{"content": prompt} for prompt in prompts], told)

    def on_llm_end(self, response: Any, *, run_id: UUID, **_told: Any) -> None:
        """The answer is there, with what it has used."""
        lease = self._leases.pop(run_id, None)
        if lease is not None:
            close(lease, _usage(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_told: Any) -> None:
        """The call failed, here or there."""
        lease = self._leases.pop(run_id, None)
        if lease is not None:
            close(lease, None, error)

    def _announce(self, run_id: UUID, said: list[dict[str, Any]], told: Mapping[str, Any]) -> None:
        parameters = told.get("invocation_params") or {}
        about = told.get("metadata") or {}
        model = (
            about.get("ls_model_name") or parameters.get("model") or parameters.get("model_name")
        )
        wanted = plan(
            resource=self._resource,
            provider=str(about.get("ls_provider") or parameters.get("_type", "")),
            model=str(model or "unknown"),
            messages=said,
            tools=parameters.get("tools"),
            max_output_tokens=about.get("ls_max_tokens") or parameters.get("max_tokens"),
        )
        pending = self._pending.get(None)
        if pending is None:
            pending = []
            self._pending.set(pending)
        pending.append((run_id, wanted))


def _message(message: Any) -> dict[str, Any]:
    calls = getattr(message, "tool_calls", None)
    return {"content": message.content} | ({"tool_calls": list(calls)} if calls else {})


def _usage(response: Any) -> Any:
    """The usage of all answers: LangChain keeps it on the first message."""
    for generations in response.generations:
        for generation in generations:
            message = getattr(generation, "message", None)
            found = usage_from(getattr(message, "usage_metadata", None))
            if found is not None:
                return found
    return usage_from((response.llm_output or {}).get("token_usage"))
