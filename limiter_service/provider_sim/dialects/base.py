"""What every dialect reads from a request, and the interface of a dialect."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Protocol

import msgspec

from limiter_service.provider_sim.content import Tool
from limiter_service.provider_sim.options import Rules
from limiter_service.provider_sim.problems import ErrorAnswer, Problem
from limiter_service.provider_sim.provider import Reply

FIRST_CREATED = 1_700_000_000
"""A simulation that repeats itself has no dates: an answer's counts the requests before it."""

BYTES_PER_TOKEN = 4

Json = dict[str, Any]
Size = Annotated[int, msgspec.Meta(ge=1)]

encode = msgspec.json.Encoder().encode


class Place(StrEnum):
    """Where in a stream a frame stands: before, in and after the output, or its end mark."""

    OPENING = "opening"
    CONTENT = "content"
    CLOSING = "closing"
    END = "end"


class Frame(msgspec.Struct, frozen=True):
    """Bytes that leave together, and the tokens of output that they carry.

    Output that a provider does not show is a frame without bytes: it takes its time.
    """

    data: bytes
    place: Place
    tokens: int = 0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call in no provider's words.

    `wants_call` is whether the answer should be a call of a tool: some are offered, and the
    last turn is not a result of one. `prefill` is the beginning of the answer, given by the
    caller. `options` are what a dialect asks itself to remember.
    """

    model: str
    input_tokens: int
    max_output: int | None = None
    stream: bool = False
    tools: Sequence[Tool] = ()
    wants_call: bool = False
    prefill: str = ""
    options: frozenset[str] = frozenset()


class Dialect(Protocol):
    """How one provider speaks. A module of this package."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of the module
        """The name of the dialect in counters and faults."""
        ...

    @property
    def RULES(self) -> Rules:  # noqa: N802
        """Whose accounting its routes have by default."""
        ...

    @property
    def STREAM_TYPE(self) -> str:  # noqa: N802
        """The media type of its streams."""
        ...

    @property
    def REQUEST_ID(self) -> str:  # noqa: N802
        """The header that names a request."""
        ...

    def read_request(self, body: bytes, path: Mapping[str, str]) -> Request:
        """The request; `path` has what its route and query say. Raises BadRequestError."""
        ...

    def plain(self, request: Request, reply: Reply) -> bytes:
        """The whole answer in one body."""
        ...

    def frames(self, request: Request, reply: Reply) -> Iterator[Frame]:
        """The answer as a stream."""
        ...

    def keepalive(self) -> bytes:
        """What it sends when nothing happens."""
        ...

    def broken(self) -> bytes:
        """A frame that no parser of its payload understands."""
        ...

    def stream_error(self, problem: Problem) -> bytes:
        """An error after a stream has begun with status 200."""
        ...

    def error(self, problem: Problem) -> ErrorAnswer:
        """An error as an answer of its own."""
        ...


def estimate(*values: object) -> int:
    """The tokens of a prompt: a fourth of its bytes."""
    size = sum(len(bytes(v)) if isinstance(v, msgspec.Raw) else len(encode(v)) for v in values)
    return max(1, -(-size // BYTES_PER_TOKEN))
