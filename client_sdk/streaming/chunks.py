"""What a consumer of a stream sees: chunks, tool calls and their deltas."""

from typing import Literal

import msgspec

from client_sdk.streaming.terminal import StreamOutcome
from limiter_wire import Usage

Problem = Literal["invalid_json", "concatenated_json", "missing_name"]
Kind = Literal[
    "content",
    "reasoning",
    "refusal",
    "audio",
    "tool_call",
    "usage",
    "finish",
    "other",
    "end",
]


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole call. `problem` says why it cannot be executed; `arguments` are as received.

    `type` is `custom` where the arguments are free text instead of JSON.
    """

    id: str
    name: str
    arguments: str
    index: int
    type: Literal["function", "custom"] = "function"
    problem: Problem | None = None

    @property
    def executable(self) -> bool:
        """Whether name and arguments are whole."""
        return self.problem is None

    @property
    def input(self) -> object:
        """The arguments as a value: decoded JSON, or the text of a custom tool."""
        if self.type == "custom":
            return self.arguments
        return msgspec.json.decode(self.arguments)


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A piece of a call; `index` is its place among the calls of this choice.

    `name` is the name so far, given when it changes; `arguments` is the next piece.
    """

    index: int
    id: str
    name: str = ""
    arguments: str = ""


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of reasoning under a provider's seal, which it wants back unchanged.

    `text` is what may be read of it, `signature` the seal; `redacted` is what only the provider
    can read. `before` is the number of the tool call that it stands before. A seal without any
    text is that call's own.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""
    before: int = 0


class StreamChunk(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One step of a stream.

    `content`, `reasoning`, `refusal` and `tool_call_delta` are what this step adds, `usage`
    and `finish_reason` what it brought. The last chunk has the type `end`, and with it the
    complete `tool_calls` and the `outcome`. `raw` is the payload of what no dialect knows.
    `processing_latency` is in milliseconds, from the arrival of the bytes.
    """

    type: Kind
    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_call_delta: ToolCallDelta | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    finish_reason: str | None = None
    outcome: StreamOutcome | None = None
    choice: int = 0
    raw: bytes = b""
    processing_latency: float = 0.0
