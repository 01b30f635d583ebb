"""The LLM client: asks a model under the shared budget, and survives what providers send."""

import threading
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from client_sdk._async.limiter import Limiter
from client_sdk._async.llm_call import Call, Tools
from client_sdk._async.llm_stream import ResponseStream
from client_sdk._provider_http import async_client
from client_sdk.llm import recovering
from client_sdk.llm.endpoints import Target, provider_in, target
from client_sdk.llm.figures import ClientStatistics, Figures, FleetStatistics, beside
from client_sdk.llm.options import Message, Tool, sorted_options
from client_sdk.llm.plans import Plan
from client_sdk.llm.recovering import Recovery
from client_sdk.llm.results import Response
from client_sdk.llm.retrying import RetryBudget, RetryPolicy
from client_sdk.streaming import StreamTimeouts


class LLMClient:
    """Asks one model, and others in its place when it fails. One per model; tasks share it."""

    def __init__(
        self,
        model: str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        api: str = "chat",
        api_key: str | None = None,
        limiter: Limiter | None = None,
        resource: str | None = None,
        timeouts: StreamTimeouts = StreamTimeouts(),  # noqa: B008  # frozen
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  # frozen
        recovery: Recovery | Sequence[Recovery] = "none",
        fallbacks: "Sequence[str | LLMClient]" = (),
        http_client: Any = None,
    ) -> None:
        """*model* is the provider's name of it, or `provider/model`. The key is that of the
        environment unless it is given (`OPENAI_API_KEY` and so on).

        *resource* is what the limiter knows the model as: by default `provider/model`.
        *recovery* is what happens when an answer breaks behind its first content: `restart`,
        `continue` or `resume`, or several of them in the order of preference. *fallbacks*
        are models of the same endpoint, `provider/model` of another, or other clients.
        *http_client* is one of `httpx` or `httpx2`, which stays yours to close.
        """
        self._target = target(
            model,
            provider=provider,
            base_url=base_url,
            api=api,
            api_key=api_key,
            resource=resource,
        )
        self._recovery = recovering.ways(recovery, self._target.endpoint)
        others = [
            self._other(each, base_url=base_url, api=api, api_key=api_key) for each in fallbacks
        ]
        self._targets = (self._target, *others)
        self._limiter, self._timeouts, self._retry = limiter, timeouts, retry
        self._given = http_client
        self._figures = Figures()
        self._budget = RetryBudget(retry)
        self._turn = threading.Lock()
        self._shared: Tools | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of our own."""
        shared, self._shared = self._shared, None
        if shared is not None and self._given is None:
            await shared.http.aclose()

    @property
    def model(self) -> str:
        """The provider's name of the model."""
        return self._target.model

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._target.provider

    @property
    def resource(self) -> str:
        """What the limiter knows the model as."""
        return self._target.resource

    async def get_response_with_tools(
        self, messages: Sequence[Message], tools: Iterable[Tool] | None = None, **options: Any
    ) -> Response:
        """The whole answer to *messages*, in which *tools* may be called.

        Messages are OpenAI's (`role`, `content`, `tool_calls`, `tool_call_id`), tools are
        functions with a JSON schema; both are translated for the provider. Options of the
        answer: `max_tokens`, `temperature`, `top_p`, `stop`, `seed`, `tool_choice`; of the
        budget: `tenant`, `priority`, `max_wait`, `request_id`, `route`, `worker`, `ttl`.
        `extra_headers` and anything else go to the provider as they are.

        Raises CallFailed when the provider failed, Refused when the limiter gave nothing.
        """
        call = self._call(messages, tools, options, stream=False)
        try:
            while await call.next() is not None:
                pass
        finally:
            await call.aclose()
        assert call.result is not None
        return call.result

    def get_streaming_response_with_tools(
        self, messages: Sequence[Message], tools: Iterable[Tool] | None = None, **options: Any
    ) -> ResponseStream:
        """The same, chunk by chunk as it comes: iterate it, best inside `async with`."""
        return ResponseStream(self._call(messages, tools, options, stream=True))

    def get_statistics(self) -> ClientStatistics:
        """The figures of all calls of this client."""
        return self._figures.snapshot()

    async def stats(self, since: str = "hour") -> FleetStatistics:
        """The same beside what the service knows of this client's models: figures of the fleet in
        the time *since*, which `Limiter.stats` describes.
        """
        told = None if self._limiter is None else await self._limiter.stats(since)
        names = {target.resource for target in self._targets}
        return beside(self._figures.snapshot(), told, names)

    def _call(
        self,
        messages: Sequence[Message],
        tools: Iterable[Tool] | None,
        options: dict[str, Any],
        *,
        stream: bool,
    ) -> Call:
        sorted_ = sorted_options(options)
        plan = Plan(
            targets=self._targets,
            messages=tuple(messages),
            tools=None if tools is None else tuple(tools),
            options=sorted_,
            stream=stream,
            request_id=sorted_.budgeting.request_id or uuid.uuid4().hex,
            timeouts=self._timeouts,
            retry=self._retry,
            recovery=self._recovery,
        )
        return Call(plan, self._tools())

    def _tools(self) -> Tools:
        """What calls share; made with the first one, since a client may be made at import."""
        from client_sdk.estimate import Estimator  # noqa: PLC0415  # its weights are for callers only

        with self._turn:
            if self._shared is None:
                http = async_client() if self._given is None else self._given
                self._shared = Tools(http, self._limiter, Estimator(), self._figures, self._budget)
            return self._shared

    def _other(
        self, other: "str | LLMClient", *, base_url: str | None, api: str, api_key: str | None
    ) -> Target:
        """The target of a fallback."""
        if isinstance(other, LLMClient):
            return other._target  # noqa: SLF001  # of the same class
        if provider_in(other) not in {None, self._target.provider}:
            return target(other)
        pool = self._target.resource.partition("/")[0]
        model = other.removeprefix(f"{self._target.provider}/")
        return target(
            model,
            provider=self._target.provider,
            base_url=base_url,
            api=api,
            api_key=api_key,
            resource=f"{pool}/{model}",
        )
