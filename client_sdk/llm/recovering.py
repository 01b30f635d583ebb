"""Taking up an answer that broke behind its first content. Pure.

restart   from the beginning, announced by a `Restarted` chunk; every provider
continue  the text so far is given back as the begin of the answer; providers that go on
          from it
resume    the provider has kept the response, and sends what follows; OpenAI responses
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from client_sdk.llm.endpoints import Endpoint
from client_sdk.llm.options import CallOptions, Message
from client_sdk.llm.results import Response
from client_sdk.streaming import StreamAccumulator, StreamOutcome
from limiter_wire import Provenance, Usage

Recovery = Literal["none", "resume", "continue", "restart"]
RECOVERIES: tuple[str, ...] = get_args(Recovery)

_CUT = frozenset(
    {
        StreamOutcome.TRUNCATED,
        StreamOutcome.INTERRUPTED,
        StreamOutcome.STALLED_CONTENT,
        StreamOutcome.STALLED_BYTES,
        StreamOutcome.PROTOCOL_ERROR,
    }
)
_WORSE = [Provenance.FINAL, Provenance.PARTIAL, Provenance.ESTIMATED, Provenance.UNKNOWN]


def supported(recovery: str, endpoint: Endpoint) -> bool:
    """Whether *endpoint* can take up an answer in this way."""
    match recovery:
        case "resume":
            return endpoint.api == "responses"
        case "continue":
            return endpoint.prefills is not None
        case _:
            return recovery in RECOVERIES


def ways(recovery: str | Sequence[str], endpoint: Endpoint) -> tuple[str, ...]:
    """The ways to take up an answer, in the order in which they are tried. Raises ValueError for
    one that cannot work.
    """
    wanted = (recovery,) if isinstance(recovery, str) else tuple(recovery)
    for each in wanted:
        if each not in RECOVERIES:
            raise ValueError(f"recovery={each!r}: allowed are {', '.join(RECOVERIES)}")
        if not supported(each, endpoint):
            can = ", ".join(way for way in RECOVERIES if supported(way, endpoint))
            raise ValueError(
                f"recovery={each!r}: {endpoint.provider} ({endpoint.api}) allows {can}"
            )
    return tuple(each for each in wanted if each != "none")


def way(
    wanted: Sequence[str], endpoint: Endpoint, stream: StreamAccumulator, *, transient: bool
) -> str | None:
    """The first of *wanted* that can take up *stream*; *transient* says that what cut it may
    pass.
    """
    resumed = "reopened" in stream.statistics.flags
    for each in wanted:
        if not supported(each, endpoint):
            continue  # a fallback's endpoint may do less than the first
        if each == "resume" and transient and resumable(stream):
            return each
        # A response that cannot be resumed any more can be asked for again.
        again = transient or (resumed and stream.outcome in _CUT)
        if again and (each == "restart" or (each == "continue" and continuable(stream))):
            return each
    return None


def prepared(wanted: Sequence[str], options: CallOptions) -> CallOptions:
    """The options of a call that may have to be resumed: the provider has to keep it."""
    if "resume" not in wanted:
        return options
    how = options.generation
    extra = {"background": True, "store": True, **how.extra}
    generation = msgspec.structs.replace(how, extra=extra)
    return msgspec.structs.replace(options, generation=generation)


def resumable(stream: StreamAccumulator) -> bool:
    """Whether the provider can send what is missing of *stream*."""
    return stream.outcome in _CUT and bool(stream.response_id) and stream.position is not None


def continuable(stream: StreamAccumulator) -> bool:
    """Whether the text so far can be the begin of another answer: nothing else was begun."""
    return (
        stream.outcome in _CUT | {StreamOutcome.PROVIDER_ERROR}
        and bool(stream.text.strip())
        and not stream.partial_tool_calls
        and not stream.refusal
    )


def begun(endpoint: Endpoint, messages: Sequence[Message], text: str) -> list[Message]:
    """The conversation with *text* as the begin of the answer.

    White space at its end is taken off: providers refuse it, or begin again before it.
    """
    last: dict[str, Any] = {"role": "assistant", "content": text.rstrip()}
    return [*messages, {**last, **(endpoint.prefills or {})}]


def with_prefill(endpoint: Endpoint, options: CallOptions) -> CallOptions:
    """The options of a request whose answer is begun."""
    if not endpoint.prefill_options:
        return options
    how = options.generation
    extra = {**how.extra, **endpoint.prefill_options}
    return msgspec.structs.replace(options, generation=msgspec.structs.replace(how, extra=extra))


class Seam:
    """Where a continued text joins: white space that was taken off comes once."""

    def __init__(self, text: str) -> None:
        self._owed = text[len(text.rstrip()) :]

    def joined(self, piece: str) -> str:
        """*piece* without what the consumer has already."""
        if not self._owed:
            return piece
        owed, given = self._owed, 0
        while given < min(len(owed), len(piece)) and owed[given] == piece[given]:
            given += 1
        if given == len(piece):
            self._owed = owed[given:]
            return ""
        self._owed = ""
        return piece[given:]


def together(first: Usage, second: Usage) -> Usage:
    """The tokens of two requests for one answer."""
    if first.provenance is Provenance.UNKNOWN or second.provenance is Provenance.UNKNOWN:
        return Usage(provenance=Provenance.UNKNOWN)
    names = [name for name in Usage.__struct_fields__ if name != "provenance"]
    sums: Mapping[str, int] = {name: getattr(first, name) + getattr(second, name) for name in names}
    worse = max(first.provenance, second.provenance, key=_WORSE.index)
    return Usage(**sums, provenance=worse)


def joined(before: Sequence[tuple[str, str, Usage]], last: Response) -> Response:
    """The answer of several requests, each with its text, reasoning and usage."""
    if not before:
        return last
    usage = last.usage
    for _, _, spent in before:
        usage = together(spent, usage)
    return msgspec.structs.replace(
        last,
        text="".join(text for text, _, _ in before) + last.text,
        reasoning="".join(reasoning for _, reasoning, _ in before) + last.reasoning,
        usage=usage,
    )
