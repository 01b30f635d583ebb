"""LiteLLM: a callback that takes a lease for each call of a deployment, and settles it.

    litellm.callbacks = [LimiterForLiteLLM(limiter)]

It serves `acompletion` and its relatives, also behind a Router: each retry and each fallback
is a call of its own. A refusal is LiteLLM's own RateLimitError, with the time to wait.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import litellm
from litellm.integrations.custom_logger import CustomLogger

from client_sdk import Limiter, Refused, UnknownResource
from client_sdk.adapters._leases import AnyLease, close, plain, usage_from
from client_sdk.adapters._plans import plan
from client_sdk.transports.warned import Unlimited

_MOST = 10_000
_CALLS = ("completion", "responses", "anthropic_messages", "embedding", "text_completion")


class LimiterForLiteLLM(CustomLogger):  # type: ignore[misc]  # mypy does not see the package
    """The resource is `provider/model` as LiteLLM writes it (or *pool* and the model), unless
    *resource* says otherwise: a name, or a function of the call's arguments. `max_wait` is in
    seconds.
    """

    def __init__(
        self,
        limiter: Limiter,
        *,
        pool: str | None = None,
        resource: str | Callable[[Mapping[str, Any]], str | None] | None = None,
        tenant: str | None = None,
        max_wait: float = 0.0,
    ) -> None:
        super().__init__()
        self._limiter, self._pool, self._resource = limiter, pool, resource
        self._tenant, self._max_wait = tenant, max_wait
        self._unlimited = Unlimited()
        self._leases: OrderedDict[str, deque[AnyLease]] = OrderedDict()

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """A deployment was chosen, and is about to be called."""
        name = str(getattr(call_type, "value", call_type) or "")
        if not any(name.endswith(known) for known in _CALLS):
            return None
        resource = self._resource_of(kwargs)
        if resource is None or resource in self._unlimited:
            return None
        wanted = plan(
            resource=resource,
            provider="",
            model=str(kwargs.get("model", "")),
            messages=_messages(kwargs),
            tools=kwargs.get("tools"),
            max_output_tokens=kwargs.get("max_completion_tokens") or kwargs.get("max_tokens"),
        )
        try:
            lease = await self._limiter.acquire(
                resource, **wanted.options(), tenant=self._tenant, max_wait=self._max_wait
            )
        except UnknownResource as error:
            self._unlimited.add(resource, str(error))
            return None
        except Refused as error:
            raise _refusal(error, kwargs) from error
        self._keep(str(kwargs.get("litellm_call_id", "")), lease)
        return None

    async def async_post_call_success_deployment_hook(
        self, request_data: dict[str, Any], response: Any, call_type: Any
    ) -> None:
        """The call has answered, whole."""
        self._answered(request_data, response)

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """The call has answered to its end; of a stream, nobody tells sooner."""
        self._answered(kwargs, response_obj)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """The call has failed."""
        self._failed(kwargs, kwargs.get("exception"))

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, *_told: Any, **_more: Any
    ) -> None:
        """An attempt of a Router has failed, and another one may follow."""
        self._failed(request_data, exception)

    def _answered(self, kwargs: Mapping[str, Any], answer: object) -> None:
        lease = self._taken(kwargs)
        if lease is not None:
            close(lease, usage_from(plain(plain(answer).get("usage"))))

    def _failed(self, kwargs: Mapping[str, Any], error: object) -> None:
        lease = self._taken(kwargs)
        if lease is not None:
            close(lease, None, error if isinstance(error, BaseException) else RuntimeError())

    def _resource_of(self, kwargs: Mapping[str, Any]) -> str | None:
        if callable(self._resource):
            return self._resource(kwargs)
        if self._resource is not None:
            return self._resource
        model = str(kwargs.get("model", ""))
        provider = str(kwargs.get("custom_llm_provider") or "")
        if not provider and "/" in model:
            provider, _, model = model.partition("/")
        model = model.removeprefix(f"{provider}/")
        pool = self._pool or provider
        return f"{pool}/{model}" if pool and model else None

    def _keep(self, call_id: str, lease: AnyLease) -> None:
        self._leases.setdefault(call_id, deque()).append(lease)
        if len(self._leases) > _MOST:  # nobody told of their end; the leases expire
            self._leases.popitem(last=False)

    def _taken(self, kwargs: Mapping[str, Any]) -> AnyLease | None:
        call_id = str(kwargs.get("litellm_call_id", ""))
        leases = self._leases.get(call_id)
        if not leases:
            return None
        lease = leases.popleft()
        if not leases:
            del self._leases[call_id]
        return lease


def _messages(kwargs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    said = kwargs.get("messages") or kwargs.get("input") or kwargs.get("prompt") or ()
    if isinstance(said, str):
        return [{"content": said}]
    return [each if isinstance(each, Mapping) else {"content": str(each)} for each in said]


def _refusal(error: Refused, kwargs: Mapping[str, Any]) -> Exception:
    wait = error.retry_after
    headers = {} if wait is None else {"retry-after": str(math.ceil(wait))}
    response = httpx.Response(429, headers=headers, request=httpx.Request("POST", "http://limiter"))
    refusal: Exception = litellm.RateLimitError(
        message=f"sluicegate: {error}",
        llm_provider=str(kwargs.get("custom_llm_provider") or "sluicegate"),
        model=str(kwargs.get("model", "")),
        response=response,
    )
    return refusal
