"""One stream from its first byte to its outcome: framing, dialect, clocks and figures together.

    accumulator = StreamAccumulator("openai-chat", timeouts=timeouts, clock=time.monotonic)
    accumulator.start(now)              # the request is sent
    chunks = accumulator.feed(data, now)  # until `done`
    accumulator.finish(now)             # at the end of the body, or `interrupt`, `cancel`
    chunks = accumulator.drain()        # what the end completed

Before it waits, the caller arms one timer for `deadline()` and asks `stall(now)` when it
fires. While its consumer holds a chunk, the stream is paused (`pause`, `resume`).
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from client_sdk.errors import (
    CallFailed,
    EmptyStream,
    NotAnEventStream,
    ProtocolError,
    ProviderError,
    StreamInterrupted,
    StreamStalled,
)
from client_sdk.streaming.answer import Answer, Choice, Clock
from client_sdk.streaming.chunks import StreamChunk, Thought, ToolCall
from client_sdk.streaming.dialects import DIALECTS, Dialect
from client_sdk.streaming.faults import Classify, ProviderFault, category_of, fault_of
from client_sdk.streaming.liveness import Liveness, Stall, StreamTimeouts
from client_sdk.streaming.payload import BadPayload, loads
from client_sdk.streaming.sse import Event, Heartbeat
from client_sdk.streaming.statistics import (
    FOLD_EVERY,
    Distribution,
    StatisticsCollector,
    StreamStatistics,
    tokens_per_second,
)
from client_sdk.streaming.terminal import StreamOutcome, reported
from limiter_wire import Outcome, Provenance, Usage

if TYPE_CHECKING:
    from limiter_wire.providers import Failure

_BOM = b"\xef\xbb\xbf"
_LARGEST_BODY = 1 << 20
_LONGEST_OPENING = 4096
_EXCERPT = 200
_SECRET = re.compile(r"[A-Za-z0-9_\-+/=.]{20,}")
_TRY_AGAIN = frozenset(
    {
        Outcome.RATE_LIMITED,
        Outcome.OVERLOADED,
        Outcome.SERVER_ERROR,
        Outcome.TIMEOUT,
        Outcome.CONNECTION,
        Outcome.STREAM_INTERRUPTED,
        Outcome.MALFORMED_STREAM,
    }
)


class StreamAccumulator:
    """Takes the bytes of one streamed answer, and says what they mean.

    `dialect` is a name, or a Dialect that is not among the named ones. `clock` is what `now` is
    read from; with it, chunks carry their processing latency.
    `classify` decides the category of a provider's error. A frame that is no JSON ends the
    stream as a protocol error, unless `skip_bad_frames`.
    """

    def __init__(
        self,
        dialect: str | type[Dialect],
        *,
        max_event_bytes: int | None = None,
        timeouts: StreamTimeouts = StreamTimeouts(),  # noqa: B008  # frozen
        clock: Clock | None = None,
        classify: Classify = category_of,
        skip_bad_frames: bool = False,
    ) -> None:
        if isinstance(dialect, str):
            if dialect not in DIALECTS:
                raise ValueError(f"dialect {dialect!r}: allowed are {', '.join(sorted(DIALECTS))}")
            kind, self.dialect = DIALECTS[dialect], dialect
        else:
            kind, self.dialect = dialect, dialect.__name__
        self._answer = Answer(clock)
        self._dialect = kind(self._answer)
        self._read = self._dialect.read
        self._max_event_bytes = max_event_bytes
        self._decoder = self._dialect.framing(max_event_bytes)
        self._live = Liveness(timeouts)
        self._clock, self._classify, self._skip = clock, classify, skip_bad_frames
        self._outcome: StreamOutcome | None = None
        self._stall: Stall | None = None
        self._ended: float | None = None
        self._first_answer: float | None = None
        self._bytes = self._reads = self._events = self._beats = 0
        self._gaps, self._latency = Distribution(), Distribution()
        self._gap, self._took = self._gaps.recent.append, self._latency.recent.append
        # The first bytes until they show a stream, or all of a body that is none.
        self._begins = True
        self._head = b""
        self._body: list[bytes] | None = None
        self._foreign = False

    # What the caller tells.

    def start(self, now: float) -> None:
        """The request begins; without this, it begins with the first bytes."""
        self._live.start(now)

    def opened(self, now: float) -> None:
        """The head of the answer arrived."""
        self._live.byte(now)

    def feed(self, data: bytes, now: float) -> list[StreamChunk]:
        """Take the next bytes of the body; return what they complete. Never raises."""
        if self._outcome is not None or not data:
            return []
        answer, live = self._answer, self._live
        if live.paused is not None:
            live.resume(now)
        if live.first_byte is None:
            live.byte(now)
        live.last_byte = now
        self._reads += 1
        self._bytes += len(data)
        if self._begins:
            data = self._opening(data, now)
            if not data:
                return self.drain()
        decoder = self._decoder
        events = decoder.feed(data)
        if events:
            answer.arrived = now
            self._take(events, now)
        elif decoder.broken is None:
            return []
        if decoder.broken is not None and not answer.over:
            answer.break_off(decoder.broken)
        if answer.over:
            self._conclude(self._judge(), now)
        chunks = answer.chunks
        if chunks:
            answer.chunks = []
            if self._clock is not None:
                self._took(chunks[-1].processing_latency)
        if self._reads % FOLD_EVERY == 0:
            self._gaps.fold()
            self._latency.fold()
        return chunks

    def skip(self, pieces: int) -> None:
        """So many pieces of content went by unread, between two frames."""
        if self._outcome is None:
            self._answer.content_events += pieces

    def pause(self, now: float) -> None:
        """The consumer holds a chunk: from now only `total` runs."""
        self._live.pause(now)

    def resume(self, now: float) -> None:
        """The consumer asks for more."""
        self._live.resume(now)

    def finish(self, now: float) -> StreamOutcome:
        """The body ended; `drain` has what only its end completed."""
        if self._outcome is None:
            self._flush(now)
            self._conclude(self._at_eof(), now)
        return self._ending

    def interrupt(self, now: float) -> StreamOutcome:
        """The transport failed."""
        return self._abandon(StreamOutcome.INTERRUPTED, now)

    def fail(self, fault: ProviderFault, now: float) -> StreamOutcome:
        """The provider answered with an error in place of a stream."""
        if self._outcome is None:
            self._answer.fail(fault)
            self._conclude(StreamOutcome.PROVIDER_ERROR, now)
        return self._ending

    def reopen(self, now: float) -> None:
        """What was lost will come over another connection: the stream that was cut goes on."""
        if self._outcome is None or self._outcome.whole or self._answer.fault is not None:
            raise ValueError("only a stream that was cut can go on")
        answer = self._answer
        self._outcome = self._stall = self._ended = None
        self._decoder = self._dialect.framing(self._max_event_bytes)
        self._begins, self._head, self._body, self._foreign = True, b"", None, False
        answer.over, answer.problem = False, None
        answer.flags["reopened"] = None
        self._live.reopen(now)

    def cancel(self, now: float) -> StreamOutcome:
        """The caller wants no more."""
        return self._abandon(StreamOutcome.CANCELLED, now)

    def deadline(self) -> float | None:
        """When to ask `stall` next, None when there is nothing to wait for."""
        return None if self._outcome is not None else self._live.deadline()

    def stall(self, now: float) -> StreamOutcome | None:
        """End the stream if a limit is over at *now*."""
        if self._outcome is not None:
            return None
        self._stall = self._live.expired(now)
        return None if self._stall is None else self._abandon(self._stall.outcome, now)

    def drain(self) -> list[StreamChunk]:
        """Chunks that were not returned yet."""
        chunks = self._answer.chunks
        if chunks:
            self._answer.chunks = []
        return chunks

    # What is known.

    @property
    def done(self) -> bool:
        """Whether the stream is over, so that nothing more needs to be read."""
        return self._outcome is not None

    @property
    def committed(self) -> bool:
        """Whether content was delivered: from here on a retry would repeat it."""
        return self._answer.content_events > 0

    @property
    def outcome(self) -> StreamOutcome | None:
        """How the stream ended, None while it runs."""
        return self._outcome

    @property
    def category(self) -> Outcome | None:
        """What to settle the lease with, None while the stream runs."""
        if self._outcome is None:
            return None
        fault = self._answer.fault
        return reported(self._outcome, self._classify(fault) if fault is not None else None)

    @property
    def fault(self) -> ProviderFault | None:
        """The error that the provider reported."""
        return self._answer.fault

    @property
    def response_id(self) -> str | None:
        """The provider's id of this answer."""
        return self._answer.response_id or None

    @property
    def position(self) -> int | None:
        """The number of the last event, where the provider numbers them."""
        return self._answer.position

    @property
    def choices(self) -> Mapping[int, Choice]:
        """The answers by index; `text` and the like are those of the first."""
        return self._answer.choices

    @property
    def text(self) -> str:
        """The text so far."""
        main = self._answer.main()
        return main.text if main else ""

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        main = self._answer.main()
        return main.reasoning if main else ""

    @property
    def thoughts(self) -> tuple[Thought, ...]:
        """Reasoning that the provider wants back with the next question, in its order."""
        main = self._answer.main()
        return tuple(main.thoughts) if main else ()

    @property
    def refusal(self) -> str:
        """The refusal so far."""
        main = self._answer.main()
        return main.refusal if main else ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The complete calls: none before the stream has ended with a whole answer."""
        whole = self._outcome is not None and self._outcome.whole
        return self.partial_tool_calls if whole else ()

    @property
    def partial_tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls as they stand, to show or to log; never to execute."""
        main = self._answer.main()
        return main.tool_calls if main else ()

    def partial_arguments(self, index: int, choice: int = 0) -> object:
        """What can be read already of the arguments of a call under way."""
        return self._answer.choices[choice].tools.partial(index)

    @property
    def finish_reason(self) -> str | None:
        """The provider's own word; None when it gave none."""
        main = self._answer.main()
        return main.finish_reason if main else None

    @property
    def usage(self) -> Usage:
        """The tokens, with their provenance; `unknown` instead of zeros."""
        usage = self._answer.usage_now()
        if usage.provenance is Provenance.UNKNOWN:
            return usage
        if self._outcome is not None and self._outcome.whole and self._answer.usage_is_final:
            return msgspec.structs.replace(usage, provenance=Provenance.FINAL)
        # A piece of content is a token or more, and the report may be older.
        output = max(usage.output_tokens, self._answer.content_events)
        return msgspec.structs.replace(usage, output_tokens=output)

    def estimated_usage(self, input_tokens: int) -> Usage:
        """The usage, or what can be said without a report: each piece is at least a token."""
        usage = self.usage
        if usage.provenance is not Provenance.UNKNOWN:
            return usage
        return Usage(
            input_tokens=input_tokens,
            output_tokens=self._answer.content_events,
            provenance=Provenance.ESTIMATED,
        )

    @property
    def statistics(self) -> StreamStatistics:
        """The figures up to now, or of the whole stream."""
        answer, live = self._answer, self._live
        started = live.started
        ended = self._ended
        if ended is None:
            ended = max(live.last_byte, live.last_content)

        def since(moment: float | None) -> float | None:
            return None if moment is None or started is None else max(0.0, moment - started)

        return StreamStatistics(
            outcome=self._outcome,
            duration=since(ended) or 0.0,
            held=live.held,
            time_to_first_byte=since(live.first_byte),
            time_to_first_token=since(live.first_content),
            time_to_first_answer=since(self._first_answer),
            gaps=self._gaps.spread(),
            tokens_per_second=tokens_per_second(self.usage, self._gaps.total()),
            usage=self.usage,
            heartbeats=self._beats + answer.heartbeats,
            bytes=self._bytes,
            chunks=self._reads,
            events=self._events,
            content_events=answer.content_events,
            processing_latency=self._latency.spread(),
            invalid_utf8=answer.invalid_utf8,
            ignored_frames=answer.ignored_frames,
            unknown_events=answer.unknown_events,
            flags=tuple(answer.flags),
        )

    def collect(self, collector: StatisticsCollector) -> None:
        """Add this stream to the figures of many."""
        collector.add(self.statistics, gaps=self._gaps, processing_latency=self._latency)

    def error(
        self,
        *,
        resource: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        provider_request_id: str | None = None,
        failure: "Failure | None" = None,
    ) -> CallFailed | None:
        """The exception for how the stream ended, None when the answer is whole or goes on.

        *failure* is what the end means, from who knows more than the stream does.
        """
        outcome, fault = self._outcome, self._answer.fault
        if outcome is None or outcome.whole:
            return None
        category = self.category if failure is None else failure.outcome
        again = category in _TRY_AGAIN if failure is None else failure.retryable
        if failure is not None and failure.retry_after is not None:
            retry_after = failure.retry_after
        kind, message = self._described(outcome)
        fault = fault or ProviderFault()
        return kind(
            message,
            outcome=outcome,
            category=category,
            retryable=again and not self.committed,
            partial=self.text,
            status=fault.status,
            provider_code=fault.code,
            provider_type=fault.type,
            provider_message=fault.message,
            excerpt=self._excerpt(),
            resource=resource,
            request_id=request_id or self.response_id,
            retry_after=retry_after if fault.retry_after is None else fault.retry_after,
            phase="mid_content" if self.committed else "pre_content",
            usage=self.usage,
            failure=failure,
            provider_request_id=provider_request_id,
            chunks=self._answer.content_events,
            bytes=self._bytes,
        )

    # How it works.

    @property
    def _ending(self) -> StreamOutcome:
        assert self._outcome is not None
        return self._outcome

    def _opening(self, data: bytes, now: float) -> bytes:
        """Look at the first bytes: a page or one JSON body is kept apart from a stream."""
        if self._body is not None:
            self._body.append(data)
            if self._bytes > _LARGEST_BODY:
                self._conclude(self._of_body(), now)
            return b""
        head = self._head + data
        text = head.removeprefix(_BOM).lstrip(b" \t\r\n")
        if not text and len(head) <= _LONGEST_OPENING:
            self._head = head
            return b""
        self._head = b""
        if text[:1] in self._dialect.first_bytes and text:
            self._body = [head]
            return b""
        self._begins = False
        return head

    def _take(self, events: list[Event | Heartbeat], now: float) -> None:
        """Read events, and tell the clocks what they brought."""
        answer, read = self._answer, self._read
        before = answer.content_events
        for event in events:
            if type(event) is Event:
                self._events += 1
                try:
                    read(event)
                except BadPayload:
                    self._bad(event)
                if answer.over:
                    break
            else:
                self._beats += 1
        if answer.content_events != before:
            self._content(answer.content_events - before, now)

    def _content(self, pieces: int, now: float) -> None:
        live = self._live
        if live.first_content is None:
            live.first_content = now
        else:
            self._gap(now - live.last_content)
        if pieces > 1:
            self._gaps.add_zeros(pieces - 1)
        live.last_content = now
        if self._first_answer is None and self._answer.answer_events:
            self._first_answer = now

    def _bad(self, event: Event) -> None:
        """A frame that is no JSON: cut by the end, garbage, or not of a stream at all."""
        answer = self._answer
        if not event.terminated:
            answer.flags["cut_frame"] = None
        elif self._skip:
            answer.ignored_frames += 1
            answer.flags["bad_frame"] = None
        else:
            answer.break_off("a frame is no JSON")
        if self._dialect.bare_frames and self._events == 1 and event.data[:1] != b"{":
            self._foreign = True
            self._body = [event.data]

    def _flush(self, now: float) -> None:
        """Take what only lacks its end."""
        answer, decoder = self._answer, self._decoder
        if self._body is not None:
            return
        if self._head:
            self._take(decoder.feed(self._head), now)
        before = (answer.content_events, answer.over, len(answer.chunks))
        if decoder.broken is None:
            self._take(decoder.flush(), now)
        if decoder.broken is not None and not answer.over:
            answer.break_off(decoder.broken)
        if (answer.content_events, answer.over, len(answer.chunks)) != before:
            answer.flags["eof_flush"] = None
        pieces = answer.content_events
        self._dialect.close()
        if answer.content_events != pieces:
            self._content(answer.content_events - pieces, now)

    def _at_eof(self) -> StreamOutcome:
        answer = self._answer
        if self._body is not None:
            return self._of_body()
        if not answer.over:
            self._look_at_stray()
        if answer.over:
            return self._judge()
        if self._dialect.complete_at_eof():
            return self._verdict()
        if self._events - answer.heartbeats - answer.ignored_frames > 0:
            return StreamOutcome.TRUNCATED
        silent = self._events + self._beats == 0
        return (
            StreamOutcome.NOT_AN_EVENT_STREAM if silent and self._strange else StreamOutcome.EMPTY
        )

    @property
    def _strange(self) -> bool:
        """Whether bytes came that are no frames."""
        return self._bytes > 0 and bool(self._decoder.stray)

    def _abandon(self, outcome: StreamOutcome, now: float) -> StreamOutcome:
        """End from outside, unless the provider has already said all."""
        if self._outcome is None:
            answer = self._answer
            self._flush(now)
            if self._body is not None:
                found = self._of_body()
                outcome = found if answer.fault is not None else outcome
            elif answer.over:
                outcome = self._judge()
            elif self._dialect.finished():
                answer.flags["ended_by_transport"] = None
                outcome = self._verdict()
            self._conclude(outcome, now)
        return self._ending

    def _judge(self) -> StreamOutcome:
        """The outcome of a stream that is over by what it said."""
        if self._answer.fault is not None:
            return StreamOutcome.PROVIDER_ERROR
        if self._foreign:
            return StreamOutcome.NOT_AN_EVENT_STREAM
        if self._answer.problem is not None:
            return StreamOutcome.PROTOCOL_ERROR
        return self._verdict()

    def _verdict(self) -> StreamOutcome:
        """The outcome of a stream that ended well."""
        answer = self._answer
        if self._dialect.has_terminator and not answer.ended:
            answer.flags["missing_terminator"] = None
        main = answer.main()
        if main is not None and main.verdict is not None:
            return main.verdict
        if not answer.content_events:
            return StreamOutcome.EMPTY
        answer.flags["missing_finish"] = None
        return StreamOutcome.COMPLETED

    def _of_body(self) -> StreamOutcome:
        """The outcome of an answer that is no stream: its error, if it says one."""
        with suppress(BadPayload):
            self._answer.fail(fault_of(loads(b"".join(self._body or ()), self._answer)))
        return (
            StreamOutcome.NOT_AN_EVENT_STREAM
            if self._answer.fault is None
            else StreamOutcome.PROVIDER_ERROR
        )

    def _look_at_stray(self) -> None:
        """Gateways put an error behind the frames, without the form of one."""
        if self._decoder.stray.startswith(b"{"):
            with suppress(BadPayload):
                self._answer.fail(fault_of(loads(self._decoder.stray, self._answer)))

    def _conclude(self, outcome: StreamOutcome, now: float) -> None:
        answer = self._answer
        self._outcome, self._ended = outcome, now
        for choice in answer.choices.values():
            for call in choice.tool_calls:
                if call.problem is not None:
                    answer.flags[call.problem] = None
        if outcome.whole:
            answer.chunks.append(
                StreamChunk(
                    type="end",
                    tool_calls=self.tool_calls,
                    usage=self.usage,
                    finish_reason=self.finish_reason,
                    outcome=outcome,
                    processing_latency=answer.latency(),
                )
            )

    def _described(self, outcome: StreamOutcome) -> tuple[type[CallFailed], str]:
        """The class of the exception, and its text, which quotes no payload."""
        if outcome is StreamOutcome.PROVIDER_ERROR:
            fault = self._answer.fault or ProviderFault()
            known = [fault.code or fault.type, fault.status and f"status {fault.status}"]
            said = ", ".join(str(word) for word in known if word)
            return ProviderError, f"the provider reported an error{said and f' ({said})'}"
        if self._stall is not None:
            return StreamStalled, f"the limit {self._stall.limit} is over"
        if outcome is StreamOutcome.PROTOCOL_ERROR:
            return ProtocolError, self._answer.problem or "a frame cannot be understood"
        return _DESCRIPTIONS[outcome]

    def _excerpt(self) -> str:
        """The begin of what is no stream, long words masked: they may be keys."""
        if self._outcome is not StreamOutcome.NOT_AN_EVENT_STREAM:
            return ""
        raw = b"".join(self._body) if self._body else self._decoder.stray
        text = raw[: 4 * _EXCERPT].decode("utf-8", "replace")
        return _SECRET.sub("***", text)[:_EXCERPT]


_DESCRIPTIONS: dict[StreamOutcome, tuple[type[CallFailed], str]] = {
    StreamOutcome.CANCELLED: (StreamInterrupted, "the caller cancelled the stream"),
    StreamOutcome.TRUNCATED: (StreamInterrupted, "the stream stopped without its end"),
    StreamOutcome.INTERRUPTED: (StreamInterrupted, "the connection broke"),
    StreamOutcome.NOT_AN_EVENT_STREAM: (NotAnEventStream, "the answer is no event stream"),
    StreamOutcome.EMPTY: (EmptyStream, "the stream ended without a word"),
}
