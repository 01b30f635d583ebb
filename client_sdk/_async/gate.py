"""Every attempt of a provider's SDK under a lease, whatever the HTTP client under it."""

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from client_sdk._async.attempts import Attempt
from client_sdk._async.lease import Lease
from client_sdk._async.tap import Tap
from client_sdk.errors import InvalidRequest, SluicegateError, UnknownResource
from client_sdk.streaming import StreamAccumulator
from client_sdk.streaming.liveness import NO_TIMEOUTS
from client_sdk.transports.encodings import decoded, undo
from client_sdk.transports.refusals import EXTENSION, answer_of
from client_sdk.transports.requests import (
    LARGEST_BODY,
    Call,
    Ratios,
    attempt_of,
    calls_a_model,
    learned,
    read_call,
)
from client_sdk.transports.warned import Unlimited
from client_sdk.transports.whole import Whole
from limiter_wire import Outcome
from limiter_wire.providers import by_host

if TYPE_CHECKING:
    from client_sdk._async.limiter import Limiter

Resource = str | Callable[[Any], str | None] | None
"""A resource, or what makes one of a request; None of a request lets it pass."""

Send = Callable[[Any], Awaitable[Any]]
Refuse = Callable[[SluicegateError, Any, Call], Any]

_SENT = "sluicegate_sent"
_LARGEST_ERROR = 256 << 10
_STREAMS = ("text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream")


class Gate:
    """What the transports of one `limiter.transport` call share."""

    def __init__(
        self,
        limiter: "Limiter",
        family: Any,  # the module httpx or httpx2
        *,
        pool: str | None,
        resource: Resource,
        tenant: str | None,
        max_wait: float | None,
    ) -> None:
        self._limiter, self._family = limiter, family
        self._pool, self._resource = pool, resource
        self._tenant, self._max_wait = tenant, max_wait or 0.0
        self._unlimited = Unlimited()
        self._ratios: Ratios = {}

    async def handle(self, request: Any, send: Send) -> Any:
        """The response to *request*: the provider's by way of *send*, or a refusal of ours."""
        return await self._through(request, send, self._answered)

    async def guard(self, request: Any, send: Send) -> Any:
        """The same for who can raise: a refusal is the exception that it is."""
        return await self._through(request, send, _raised)

    async def _through(self, request: Any, send: Send, refuse: Refuse) -> Any:
        call = self._read(request)
        resource = None if call is None else self._resource_of(request, call)
        if call is None or resource is None or resource in self._unlimited:
            return await send(request)
        try:
            lease = await self._acquire(resource, request, call)
        except SluicegateError as error:
            return refuse(error, request, call)
        if lease is None:
            return await send(request)
        return await self._attempt(request, send, call, lease)

    def _answered(self, error: SluicegateError, request: Any, call: Call) -> Any:
        """A response in place of the provider's."""
        answer = answer_of(error, call.dialect)
        return self._family.Response(
            answer.status,
            headers=answer.headers,
            content=answer.body,
            request=request,
            extensions={EXTENSION: error},
        )

    # Before.

    def _read(self, request: Any) -> Call | None:
        """What the request asks for; None when that is nothing of ours."""
        if not calls_a_model(request.method, str(request.url)):
            return None
        try:
            body = request.content
        except self._family.RequestNotRead:  # a stream, which is read once, by who sends it
            return None
        if len(body) > LARGEST_BODY:
            self._unlimited.say(str(request.url), "the request is too large to be read")
            return None
        headers = {name.lower(): value for name, value in request.headers.items()}
        return read_call(request.method, str(request.url), headers, body, self._ratios)

    def _resource_of(self, request: Any, call: Call) -> str | None:
        if callable(self._resource):
            return self._resource(request)
        if self._resource is not None:
            return self._resource
        pool = self._pool or by_host(str(request.url))
        if pool is None:
            self._unlimited.say(request.url.host, "no provider is known by this host; set `pool`")
            return None
        return f"{pool}/{call.model}"

    async def _acquire(self, resource: str, request: Any, call: Call) -> Lease | None:
        sent = request.extensions.get(_SENT, 0)
        request.extensions[_SENT] = sent + 1
        try:
            return await self._limiter.acquire(
                resource,
                input_tokens=call.input_tokens,
                max_output_tokens=call.max_output_tokens,
                tenant=self._tenant,
                max_wait=self._max_wait,
                attempt=attempt_of(request.headers, sent),
            )
        except (UnknownResource, InvalidRequest) as error:
            self._unlimited.add(resource, str(error))
            return None

    # During, and after.

    async def _attempt(self, request: Any, send: Send, call: Call, lease: Lease) -> Any:
        provider = call.provider or "generic"
        kind = call.dialect if call.streaming else Whole
        stream = StreamAccumulator(kind, timeouts=NO_TIMEOUTS)
        attempt = Attempt(stream, lease, provider=provider, input_tokens=call.input_tokens)
        began = time.monotonic()
        attempt.start()
        try:
            response = await send(request)
            if call.streaming and not _is_stream(response, call.dialect):
                attempt.stream = StreamAccumulator(Whole, timeouts=NO_TIMEOUTS)
                attempt.stream.start(began)
            attempt.opened(response.status_code, response.headers)
            if attempt.refused:
                await self._refused(response, attempt, lease)
            elif response.is_stream_consumed:  # by who stands between the client and us
                attempt.feed(response.content)
                await attempt.finish()
                self._learn(call)(attempt)
            else:
                encoding = response.headers.get("content-encoding", "")
                tap = Tap(response.stream, attempt, undo(encoding), self._learn(call))
                response.stream = stream_class(self._family)(tap)
        except BaseException as error:
            await attempt.fail(error)
            raise
        return response

    async def _refused(self, response: Any, attempt: Attempt, lease: Lease) -> None:
        """Read the error now: an SDK that tries again does not, and leaves without a word."""
        if response.status_code < 400:  # noqa: PLR2004  # elsewhere: nothing was served here
            lease.used()
            await lease.settle(Outcome.CANCELLED)
            return
        if response.is_stream_consumed:
            await attempt.refuse(response.content)
            return
        parts, size, rest = [], 0, response.stream.__aiter__()
        async for data in rest:
            parts.append(data)
            size += len(data)
            if size > _LARGEST_ERROR:
                break
        raw = b"".join(parts)
        body = decoded(response.headers.get("content-encoding", ""), raw)
        await attempt.refuse(body)
        response.stream = replay_class(self._family)(raw, rest, response.stream)

    def _learn(self, call: Call) -> Callable[[Attempt], None]:
        return lambda attempt: learned(self._ratios, call, attempt.usage)


def _raised(error: SluicegateError, _request: Any, _call: Call) -> Any:
    raise error


def _is_stream(response: Any, dialect: str) -> bool:
    """Whether the answer is the stream that was asked for; what says nothing is taken for one."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _STREAMS or dialect == "ollama":
        return True
    return not kind.endswith("json")


_streams: dict[str, Any] = {}
_replays: dict[str, Any] = {}


def stream_class(family: Any) -> Any:
    """The class of *family* for the body of a response that is looked at."""
    found = _streams.get(family.__name__)
    if found is None:

        class Tapped(family.AsyncByteStream):  # type: ignore[misc]  # of one family or the other
            def __init__(self, tap: Tap) -> None:
                self._tap = tap
                tap.watch(self)

            def __aiter__(self) -> Any:
                return self._tap.passing()

            async def aclose(self) -> None:
                await self._tap.aclose()

        found = _streams[family.__name__] = Tapped
    return found


def replay_class(family: Any) -> Any:
    """The class of *family* for a body that was read already, or begun to be."""
    found = _replays.get(family.__name__)
    if found is None:

        class Replay(family.AsyncByteStream):  # type: ignore[misc]  # as above
            def __init__(self, read: bytes, rest: Any, inner: Any) -> None:
                self._read, self._rest, self._inner = read, rest, inner

            async def __aiter__(self) -> Any:
                yield self._read
                async for data in self._rest:
                    yield data

            async def aclose(self) -> None:
                await self._inner.aclose()

        found = _replays[family.__name__] = Replay
    return found
