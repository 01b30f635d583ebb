"""Statistics of one stream and of many; usage and its provenance."""

import itertools
import statistics as exact

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support.stream_cases import END, HELLO, chat, sse, usage

from client_sdk.streaming import StatisticsCollector, StreamAccumulator, StreamOutcome
from client_sdk.streaming.statistics import FOLD_EVERY, Distribution
from limiter_wire import Provenance


def finished(*, broken: bool = False) -> StreamAccumulator:
    """Reasoning at 2, text at 3, 4 and 6, the end at 7."""
    accumulator = StreamAccumulator("openai-chat", clock=itertools.count(7, 0.001).__next__)
    accumulator.start(0.0)
    accumulator.opened(1.0)
    accumulator.feed(chat(reasoning="hm"), 2.0)
    for now, text in ((3.0, "a"), (4.0, "b"), (6.0, "c")):
        accumulator.feed(chat(text) + b": ping\n\n", now)
    if broken:
        accumulator.interrupt(7.0)
    else:
        accumulator.feed(chat(finish="stop") + sse({"choices": []} | usage(10, 9)) + END, 7.0)
    return accumulator


def test_times_run_from_the_start():
    """First byte, first token, first answer, and the gaps between pieces."""
    figures = finished().statistics
    assert figures.outcome is StreamOutcome.COMPLETED
    assert figures.time_to_first_byte == 1
    assert figures.time_to_first_token == 2
    assert figures.time_to_first_answer == 3
    assert figures.duration == 7
    gaps = figures.gaps
    assert gaps is not None
    assert (gaps.count, gaps.min, gaps.median, gaps.max, gaps.mean) == (3, 1, 1, 2, 4 / 3)
    assert figures.tokens_per_second == 8 / 4
    assert (figures.heartbeats, figures.chunks, figures.content_events) == (3, 5, 4)
    assert figures.events == 7


def test_the_names_of_opentelemetry():
    """As far as it has any."""
    assert finished().statistics.otel() == {
        "gen_ai.client.operation.duration": 7,
        "gen_ai.client.operation.time_to_first_chunk": 2,
        "gen_ai.client.operation.time_per_output_chunk": 4 / 3,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 9,
    }


def test_chunks_say_how_long_they_took():
    """From the arrival of the bytes, by the caller's clock; without a clock nothing is said."""
    accumulator = StreamAccumulator("openai-chat", clock=lambda: 5.25)
    chunks = accumulator.feed(HELLO, 5.0)
    assert [chunk.processing_latency for chunk in chunks] == [250, 250]
    spread = accumulator.statistics.processing_latency
    assert spread is not None
    assert spread.max == 250
    silent = StreamAccumulator("openai-chat")
    assert silent.feed(HELLO, 5.0)[0].processing_latency == 0
    assert silent.statistics.processing_latency is None


def test_usage_is_final_partial_estimated_or_unknown():
    """Never a zero for what nobody knows."""
    assert finished().usage.provenance is Provenance.FINAL
    broken = finished(broken=True)
    assert broken.usage.provenance is Provenance.UNKNOWN
    estimate = broken.estimated_usage(120)
    assert (estimate.input_tokens, estimate.output_tokens) == (120, 4)
    assert estimate.provenance is Provenance.ESTIMATED
    assert finished().estimated_usage(120) == finished().usage


def test_a_collector_adds_up_outcomes_times_and_tokens():
    """Cancelled streams are neither good nor bad."""
    collector = StatisticsCollector()
    for _ in range(3):
        finished().collect(collector)
    finished(broken=True).collect(collector)
    cancelled = StreamAccumulator("openai-chat")
    cancelled.feed(HELLO, 0.0)
    cancelled.cancel(1.0)
    cancelled.collect(collector)
    StreamAccumulator("anthropic").collect(collector)
    total = collector.snapshot()
    assert total.streams == 6
    assert total.outcomes == {"cancelled": 1, "completed": 3, "interrupted": 1, "running": 1}
    assert total.failure_rate == 0.25
    assert (total.input_tokens, total.output_tokens, total.unknown_usage) == (30, 27, 3)
    assert total.gaps is not None
    assert total.gaps.count == 4 * 3 + 1
    assert total.time_to_first_token is not None
    assert total.time_to_first_token.median == 2
    assert msgspec.json.encode(total)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=50))
def test_quantiles_of_few_values_are_exact(values: list[float]):
    """They are values that were given."""
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    spread = distribution.spread()
    assert spread is not None
    assert (spread.min, spread.max, spread.count) == (min(values), max(values), len(values))
    assert spread.median == exact.median_low(values)
    assert {spread.p10, spread.p90} <= set(values)


def test_quantiles_of_many_values_are_close_and_memory_is_bounded():
    """Within a few percent, merged or not."""
    whole, parts = Distribution(), [Distribution(), Distribution()]
    for n in range(1, 40_001):
        whole.add(n / 7)
        parts[n % 2].add(n / 7)
    merged = Distribution()
    for part in parts:
        merged.merge(part)
    for distribution in (whole, merged):
        spread = distribution.spread()
        assert spread is not None
        assert len(distribution.recent) < FOLD_EVERY
        assert len(distribution.buckets) < 1000
        assert (spread.count, spread.min, spread.max) == (40_000, 1 / 7, 40_000 / 7)
        for found, share in ((spread.p10, 0.1), (spread.median, 0.5), (spread.p90, 0.9)):
            assert abs(found / (share * 40_000 / 7) - 1) < 0.02


def test_zeros_count():
    """Pieces that arrive together are zero apart."""
    accumulator = StreamAccumulator("openai-chat")
    accumulator.feed(b"".join(chat(word) for word in "abcde"), 1.0)
    accumulator.feed(chat("f"), 3.0)
    gaps = accumulator.statistics.gaps
    assert gaps is not None
    assert (gaps.count, gaps.p10, gaps.median, gaps.p90, gaps.max) == (5, 0, 0, 2, 2)
    assert Distribution().spread() is None


def test_a_long_stream_keeps_bounded_figures():
    """A day of pings and tokens does not fill the memory."""
    accumulator = StreamAccumulator("openai-chat", clock=lambda: 0.0)
    frame = chat("x")
    for n in range(3 * FOLD_EVERY):
        accumulator.feed(frame, float(n))
    assert len(accumulator._gaps.recent) <= FOLD_EVERY
    assert len(accumulator._latency.recent) <= FOLD_EVERY
    gaps = accumulator.statistics.gaps
    assert gaps is not None
    assert gaps.count == 3 * FOLD_EVERY - 1
