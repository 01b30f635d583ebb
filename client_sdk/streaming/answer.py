"""The answer as far as it is known: what dialects write and the accumulator reads."""

from collections.abc import Callable

from client_sdk.streaming.chunks import Kind, StreamChunk, Thought, ToolCall, ToolCallDelta
from client_sdk.streaming.faults import ProviderFault
from client_sdk.streaming.terminal import StreamOutcome
from client_sdk.streaming.tools import ToolCallAssembler
from limiter_wire import MAX_AMOUNT, Provenance, Usage

Clock = Callable[[], float]
_COMPONENTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


class Choice:
    """One of the answers; most streams have one."""

    __slots__ = (
        "finish_reason",
        "index",
        "reasoning_pieces",
        "refusal_pieces",
        "text_pieces",
        "thoughts",
        "tools",
        "verdict",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.tools = ToolCallAssembler()
        self.finish_reason: str | None = None
        self.verdict: StreamOutcome | None = None
        self.text_pieces: list[str] = []
        self.reasoning_pieces: list[str] = []
        self.refusal_pieces: list[str] = []
        self.thoughts: list[Thought] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.text_pieces)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self.reasoning_pieces)

    @property
    def refusal(self) -> str:
        """The refusal so far."""
        return "".join(self.refusal_pieces)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls as they stand; execute them only when the stream has ended well."""
        return self.tools.calls()


class Answer:
    """Collects what a dialect reads, and makes the chunks to show.

    `over` says that nothing which follows can count: after the provider's own end, its
    error, or a frame that cannot be understood.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.choices: dict[int, Choice] = {}
        self.chunks: list[StreamChunk] = []
        self.arrived = 0.0
        self.content_events = 0
        self.answer_events = 0
        self.over = False
        self.ended = False
        self.fault: ProviderFault | None = None
        self.problem: str | None = None
        self.flags: dict[str, None] = {}
        self.invalid_utf8 = self.ignored_frames = self.unknown_events = self.heartbeats = 0
        self.response_id: str | None = None
        self.position: int | None = None
        self._clock = clock
        self._usage: dict[str, int] = {}
        self._usage_final = False

    def end(self) -> None:
        """The provider's own end of the stream."""
        self.ended = self.over = True

    def fail(self, fault: ProviderFault | None) -> None:
        """The provider's error, if it is one."""
        if fault is not None:
            self.fault, self.over = fault, True

    def break_off(self, problem: str) -> None:
        """A frame cannot be understood."""
        self.problem, self.over = problem, True

    def choice(self, index: int) -> Choice:
        """The choice at *index*, which may be any number."""
        found = self.choices.get(index)
        if found is None:
            found = self.choices[index] = Choice(index)
        return found

    def main(self) -> Choice | None:
        """The choice with the lowest index."""
        if 0 in self.choices or not self.choices:
            return self.choices.get(0)
        return self.choices[min(self.choices)]

    # What the hot path calls: everything stands here once more instead of in a helper.

    def text(self, text: str, index: int = 0) -> None:
        """A piece of the text."""
        choice = self.choices.get(index) or self.choice(index)
        if choice.finish_reason is not None:
            self.flags["content_after_finish"] = None
        choice.text_pieces.append(text)
        self.content_events += 1
        self.answer_events += 1
        clock = self._clock
        took = 0.0 if clock is None else (clock() - self.arrived) * 1e3
        self.chunks.append(
            StreamChunk(type="content", content=text, choice=index, processing_latency=took)
        )

    def reasoning(self, text: str, index: int = 0) -> None:
        """A piece of the reasoning."""
        choice = self.choices.get(index) or self.choice(index)
        choice.reasoning_pieces.append(text)
        self.content_events += 1
        clock = self._clock
        took = 0.0 if clock is None else (clock() - self.arrived) * 1e3
        self.chunks.append(
            StreamChunk(type="reasoning", reasoning=text, choice=index, processing_latency=took)
        )

    def seal(
        self, *, text: str = "", signature: str = "", redacted: str = "", index: int = 0
    ) -> None:
        """Reasoning that the provider wants back; its text was shown when it came."""
        choice = self.choice(index)
        thought = Thought(
            text=text, signature=signature, redacted=redacted, before=len(choice.tools)
        )
        choice.thoughts.append(thought)

    def refusal(self, text: str, index: int = 0) -> None:
        """A piece of a refusal."""
        self.choice(index).refusal_pieces.append(text)
        self.content_events += 1
        self.answer_events += 1
        self._show("refusal", refusal=text, choice=index)

    def tool(self, delta: ToolCallDelta | None, index: int = 0) -> None:
        """A piece of a tool call, None when there is nothing to show of it yet."""
        self.content_events += 1
        self.answer_events += 1
        if delta is not None:
            self.chunks.append(
                StreamChunk(
                    type="tool_call",
                    tool_call_delta=delta,
                    choice=index,
                    processing_latency=self.latency(),
                )
            )

    def audio(self, raw: bytes, index: int = 0) -> None:
        """A piece of other media; the payload is handed on as it is."""
        self.choice(index)
        self.content_events += 1
        self.answer_events += 1
        self._show("audio", raw=raw, choice=index)

    def other(self, raw: bytes, *, progress: bool = False) -> None:
        """Nothing of the above, handed on; *progress* makes it count as content."""
        if progress:
            self.content_events += 1
        self._show("other", raw=raw)

    def unknown(self, raw: bytes) -> None:
        """An event that the dialect does not know: handed on."""
        self.unknown_events += 1
        self._show("other", raw=raw)

    def usage(self, *, final: bool = True, **tokens: object) -> None:
        """What the provider reports: cumulative, so the largest figure of each counts."""
        changed = False
        for name, value in tokens.items():
            count = _count(value)
            if count and count > self._usage.get(name, 0):
                self._usage[name] = count
                changed = True
        if changed:
            self._usage_final = self._usage_final or final
            self._show("usage", usage=self.usage_now())

    def usage_now(self) -> Usage:
        """The usage so far, unknown until something but zero was reported."""
        if not self._usage:
            return Usage(provenance=Provenance.UNKNOWN)
        given = {name: self._usage.get(name, 0) for name in _COMPONENTS}
        return Usage(**given, provenance=Provenance.PARTIAL)

    @property
    def usage_is_final(self) -> bool:
        """Whether the figures are those of the whole answer, if it is whole."""
        return self._usage_final

    def finish(self, reason: str, verdict: StreamOutcome, index: int = 0) -> None:
        """The provider says why a choice is over."""
        choice = self.choice(index)
        if choice.finish_reason is not None and choice.finish_reason != reason:
            self.flags["repeated_finish"] = None
        elif choice.finish_reason == reason:
            return
        choice.finish_reason, choice.verdict = reason, verdict
        self._show("finish", finish_reason=reason, choice=index)

    def latency(self) -> float:
        """Milliseconds since the bytes arrived."""
        return (self._clock() - self.arrived) * 1e3 if self._clock is not None else 0.0

    def _show(self, kind: Kind, **fields: object) -> None:
        self.chunks.append(StreamChunk(type=kind, processing_latency=self.latency(), **fields))  # type: ignore[arg-type]  # names and types of StreamChunk


def _count(value: object) -> int:
    """A figure of tokens, 0 for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 <= value <= MAX_AMOUNT else 0
