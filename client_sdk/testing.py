"""For the tests of programs that use the SDK: a limiter without a service, a provider of scripts.

Both are the real clients over a transport in memory, so what a test sees is what a program
gets.
"""

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import msgspec

from client_sdk._async.limiter import Limiter
from client_sdk._sync.limiter import SyncLimiter
from client_sdk.llm.openai_chat import frame
from limiter_wire import (
    Acquire,
    Checked,
    ErrorCode,
    Granted,
    Meter,
    Problem,
    Provenance,
    Renew,
    Renewed,
    Settle,
    Settled,
    problem,
)

DROP = b"\x00drop"
"""A piece of a script: the connection breaks here."""

STALL = b"\x00stall"
"""A piece of a script: nothing comes any more, and the client's patience ends."""

_encode = msgspec.msgpack.Encoder().encode
_TTL = 600.0
_EVENTS = {"content-type": "text/event-stream"}


class Books:
    """What a fake limiter has granted and heard; it refuses when it is told to."""

    def __init__(self, tokens: int | None = None) -> None:
        """*tokens* is the budget that all resources share; None is no limit."""
        self.acquired: list[Acquire] = []
        self.settled: list[Settle] = []
        self.open: dict[str, int] = {}
        self._left = tokens
        self._refusals: list[Problem] = []
        self._numbers = itertools.count(1)

    def refuse(
        self,
        code: ErrorCode = ErrorCode.RATE_LIMITED,
        *,
        retry_after: float | None = 1.0,
        times: int = 1,
    ) -> None:
        """Refuse the next acquires."""
        refusal = problem(code, "a test says so", retry_after=retry_after)
        self._refusals += [refusal] * times

    @property
    def left(self) -> int | None:
        """The tokens that are left of the budget."""
        return self._left

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer as the service does."""
        fields = msgspec.msgpack.decode(request.content)
        if request.url.path == "/v1/batch":
            results = [self._answer(op["op"], op) for op in fields["ops"]]
            told = [{"status": status, "body": body} for status, body in results]
            return httpx.Response(200, content=_encode({"results": told}))
        status, body = self._answer(request.url.path.rpartition("/")[2], fields)
        return httpx.Response(status, content=_encode(body))

    def _answer(self, operation: str, fields: dict[str, Any]) -> tuple[int, Any]:
        match operation:
            case "acquire":
                return self._acquire(msgspec.convert(fields, Acquire))
            case "settle":
                return self._settle(msgspec.convert(fields, Settle))
            case "renew":
                renew = msgspec.convert(fields, Renew)
                return 200, Renewed(lease=renew.lease, expires_in=renew.ttl or _TTL, charged={})
            case _:
                return 200, Checked(would_grant=not self._refusals, limits=[])

    def _acquire(self, asked: Acquire) -> tuple[int, Any]:
        if self._refusals:
            refusal = self._refusals.pop(0)
            return refusal.status, refusal
        tokens = asked.tokens or (asked.input_tokens or 0) + (asked.max_output_tokens or 0)
        if self._left is not None and tokens > self._left:
            refusal = problem(ErrorCode.RATE_LIMITED, "the budget is spent", retry_after=1.0)
            return refusal.status, refusal
        lease = f"lease-{next(self._numbers)}"
        self.acquired.append(asked)
        self.open[lease] = tokens
        self._move(-tokens)
        charged = {str(Meter.TOKENS): float(tokens), str(Meter.REQUESTS): 1.0}
        return 200, Granted(lease=lease, expires_in=_TTL, charged=charged, limits=[])

    def _settle(self, told: Settle) -> tuple[int, Any]:
        if told.phase is not None:
            self.settled.append(told)
            return 200, Settled(settled=False)
        reserved = self.open.pop(told.lease, None)
        if reserved is None:
            return 200, Settled(already_settled=True)
        self.settled.append(told)
        usage = told.usage
        known = usage is not None and usage.provenance is not Provenance.UNKNOWN
        used = usage.input_tokens + usage.output_tokens if usage and known else reserved
        self._move(reserved - used)
        back = {str(Meter.TOKENS): float(abs(reserved - used))}
        if used <= reserved:
            return 200, Settled(refunded=back)
        return 200, Settled(debited=back)

    def _move(self, tokens: int) -> None:
        if self._left is not None:
            self._left += tokens


class FakeLimiter(Limiter):
    """A `Limiter` without a service; `books` is what it has seen."""

    def __init__(self, *, tokens: int | None = None, tenant: str = "default") -> None:
        self.books = Books(tokens)
        transport = httpx.MockTransport(self.books.handle)
        super().__init__("http://fake", tenant=tenant, http_transport=transport)


class FakeSyncLimiter(SyncLimiter):
    """A `SyncLimiter` without a service; `books` is what it has seen."""

    def __init__(self, *, tokens: int | None = None, tenant: str = "default") -> None:
        self.books = Books(tokens)
        transport = httpx.MockTransport(self.books.handle)
        super().__init__("http://fake", tenant=tenant, http_transport=transport)


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a provider: its status, headers and the pieces of its body, among which may
    be DROP and STALL.
    """

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = msgspec.field(default_factory=lambda: dict(_EVENTS))


def says(*texts: str, finish: str | None = "stop", broken: bytes | None = None) -> Script:
    """A streamed answer as OpenAI's chat sends it, a chunk for each text.

    *broken* (DROP or STALL) comes behind the last text, in place of an end; without *finish*
    the body ends there in order.
    """
    pieces = [frame({"id": "c", "choices": [{"index": 0, "delta": {"content": t}}]}) for t in texts]
    if broken is not None:
        return Script(pieces=[*pieces, broken])
    if finish is not None:
        pieces.append(frame({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}))
        usage = {"prompt_tokens": 10, "completion_tokens": len(texts)}
        pieces.append(frame({"choices": [], "usage": usage}))
        pieces.append(b"data: [DONE]\n\n")
    return Script(pieces=pieces)


def refuses(status: int, message: str = "", code: str = "", **headers: str) -> Script:
    """An error as OpenAI sends it; `retry_after="3"` becomes the header `retry-after`."""
    error = {"message": message, "type": code or None, "code": code or None}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = msgspec.json.encode({"error": error})
    return Script(
        pieces=[body], status=status, headers={"content-type": "application/json", **named}
    )


class ScriptedProvider:
    """Answers each request with the next script, and goes on with the last."""

    def __init__(self, *scripts: Script) -> None:
        assert scripts, "give at least one script"
        self._scripts = list(scripts)
        self.requests: list[httpx.Request] = []

    @property
    def bodies(self) -> list[Any]:
        """What was asked, as JSON."""
        return [msgspec.json.decode(request.content) for request in self.requests]

    def client(self) -> httpx.Client:
        """An HTTP client whose every request comes here, for `SyncLLMClient(http_client=...)`."""
        return httpx.Client(transport=httpx.MockTransport(self._handle))

    def async_client(self) -> httpx.AsyncClient:
        """The same for `LLMClient`."""
        return httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.requests.append(request)
        return httpx.Response(
            script.status, headers=script.headers, stream=_Body(script.pieces, request)
        )


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The pieces of a script as the body of an answer."""

    def __init__(self, pieces: Sequence[bytes], request: httpx.Request) -> None:
        self._pieces, self._request = pieces, request

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if piece == DROP:
                raise httpx.ReadError("the script drops it", request=self._request)
            if piece == STALL:
                raise httpx.ReadTimeout("the script stalls", request=self._request)
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece
