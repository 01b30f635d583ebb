"""What a caller gets: a response, and the chunk that announces a fresh start."""

from typing import Any, Literal

import msgspec

from client_sdk.streaming import (
    StreamAccumulator,
    StreamChunk,
    StreamOutcome,
    StreamStatistics,
    Thought,
    ToolCall,
)
from limiter_wire import Usage


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One whole answer.

    `usage` carries its provenance, `outcome` is `completed`, `length` or `content_filter`.
    `request_id` is the id of the call on our side, `provider_request_id` the provider's.
    `attempts` counts the requests that it took.
    """

    text: str
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    usage: Usage
    finish_reason: str | None
    outcome: StreamOutcome | None
    statistics: StreamStatistics
    resource: str
    request_id: str
    model: str = ""
    provider_request_id: str | None = None
    attempts: int = 1

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message of the conversation, to be sent with the next question.

        It carries `thoughts`, which the provider that sealed them wants back; others get none.
        """
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        if self.thoughts:
            message["thoughts"] = [msgspec.to_builtins(thought) for thought in self.thoughts]
        return message


class Restarted(StreamChunk, frozen=True, kw_only=True, gc=False):
    """The answer begins again: what was delivered before counts no more.

    `discarded` is the text that it was, `reason` how that stream ended.
    """

    type: Literal["restarted"] = "restarted"  # type: ignore[assignment]  # one more kind
    discarded: str = ""
    reason: StreamOutcome | None = None


def with_ids(calls: tuple[ToolCall, ...], request_id: str) -> tuple[ToolCall, ...]:
    """Calls that a result can refer to: where the provider gives no ids, they get ours."""
    if all(call.id for call in calls):
        return calls
    stem = f"call_{request_id[:24]}"
    return tuple(
        call if call.id else msgspec.structs.replace(call, id=f"{stem}_{call.index}")
        for call in calls
    )


def response_of(
    stream: StreamAccumulator,
    *,
    usage: Usage,
    resource: str,
    model: str,
    request_id: str,
    provider_request_id: str | None,
    attempts: int,
) -> Response:
    """The response that *stream* was; of a broken one, what arrived."""
    return Response(
        text=stream.text,
        reasoning=stream.reasoning,
        refusal=stream.refusal,
        tool_calls=with_ids(stream.tool_calls, request_id),
        thoughts=stream.thoughts,
        usage=usage,
        finish_reason=stream.finish_reason,
        outcome=stream.outcome,
        statistics=stream.statistics,
        resource=resource,
        request_id=request_id,
        model=model,
        provider_request_id=provider_request_id,
        attempts=attempts,
    )
