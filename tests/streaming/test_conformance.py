"""Every stream of the table means the same however it is cut, and ends in one outcome."""

from collections import Counter

import pytest
from tests_support.chunking import chunkings
from tests_support.stream_cases import CASES, Case

from client_sdk.streaming import StreamAccumulator, StreamChunk, StreamOutcome, dialect_names


def run(case: Case, chunks: list[bytes]) -> tuple[StreamAccumulator, list[StreamChunk]]:
    """Read the chunks to their end."""
    accumulator = StreamAccumulator(case.dialect)
    shown: list[StreamChunk] = []
    for n, chunk in enumerate(chunks):
        shown += accumulator.feed(chunk, float(n))
    end = accumulator.interrupt if case.broken else accumulator.finish
    assert end(float(len(chunks))) is accumulator.outcome
    shown += accumulator.drain()
    return accumulator, shown


def meaning(accumulator: StreamAccumulator, shown: list[StreamChunk]) -> tuple[object, ...]:
    """Everything that must not depend on the cuts."""
    figures = accumulator.statistics
    return (
        accumulator.outcome,
        accumulator.category,
        accumulator.fault,
        {i: (c.text, c.reasoning, c.refusal, c.tool_calls) for i, c in accumulator.choices.items()},
        accumulator.finish_reason,
        accumulator.usage,
        accumulator.response_id,
        (figures.heartbeats, figures.events, figures.content_events, figures.invalid_utf8),
        (figures.ignored_frames, figures.unknown_events, sorted(figures.flags)),
        [chunk for chunk in shown if chunk.type != "other"],
        b"".join(chunk.raw for chunk in shown),
    )


def check(case: Case, accumulator: StreamAccumulator, shown: list[StreamChunk]) -> None:
    """Compare with what the table says."""
    figures = accumulator.statistics
    assert accumulator.outcome is case.outcome
    found = {
        "text": accumulator.text,
        "reasoning": accumulator.reasoning,
        "refusal": accumulator.refusal,
        "finish_reason": accumulator.finish_reason or "",
        "calls": tuple((c.id, c.name, c.arguments) for c in accumulator.tool_calls),
        "problems": tuple(call.problem for call in accumulator.tool_calls),
        "tokens": (accumulator.usage.input_tokens, accumulator.usage.output_tokens),
        "cached": accumulator.usage.cache_read_tokens,
        "provenance": accumulator.usage.provenance,
        "category": accumulator.category,
        "status": accumulator.fault.status if accumulator.fault else None,
        "heartbeats": figures.heartbeats,
        "ignored": figures.ignored_frames,
        "invalid_utf8": figures.invalid_utf8,
        "choices": {index: choice.text for index, choice in accumulator.choices.items()},
    }
    expected = {name: getattr(case, name) for name in found if getattr(case, name) is not None}
    assert {name: found[name] for name in expected} == expected
    assert set(case.flags) <= set(figures.flags)
    if case.outcome is StreamOutcome.TRUNCATED and len(accumulator.choices) == 1:
        assert accumulator.finish_reason is None
    # What was shown piece by piece is what was accumulated.
    main = min(accumulator.choices, default=0)
    for name in ("content", "reasoning", "refusal"):
        pieces = [getattr(chunk, name) for chunk in shown if chunk.choice == main]
        whole = accumulator.text if name == "content" else getattr(accumulator, name)
        assert "".join(pieces) == whole
    ends = [chunk for chunk in shown if chunk.type == "end"]
    assert len(ends) == case.outcome.whole
    assert all(chunk is shown[-1] and chunk.tool_calls == accumulator.tool_calls for chunk in ends)
    assert (accumulator.error() is None) is case.outcome.whole


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stream_means_the_same_however_it_is_cut(case: Case):
    """Whole, byte by byte, in 17 bytes, and cut once at each place."""
    whole = run(case, [case.body] if case.body else [])
    check(case, *whole)
    if case.dialect == "unknown":
        return  # its chunks are those of the transport
    expected = meaning(*whole)
    for chunks in chunkings(case.body, most=100_000):
        assert meaning(*run(case, chunks)) == expected


def test_the_table_is_complete():
    """Names are unique, and every dialect and every outcome of bytes is in it."""
    assert Counter(case.name for case in CASES).most_common(1)[0][1] == 1
    assert {case.dialect for case in CASES} == set(dialect_names())
    by_time = {o for o in StreamOutcome if o.startswith("stalled")} | {StreamOutcome.CANCELLED}
    assert {case.outcome for case in CASES} == set(StreamOutcome) - by_time


def test_bad_frames_can_be_skipped():
    """On request one damaged frame does not cost the stream."""
    case = next(case for case in CASES if case.name.endswith(": a frame that is no JSON"))
    accumulator = StreamAccumulator("openai-chat", skip_bad_frames=True)
    accumulator.feed(case.body, 0.0)
    assert accumulator.finish(1.0) is StreamOutcome.TRUNCATED
    assert (accumulator.text, accumulator.statistics.flags) == ("Hello!", ("bad_frame",))
