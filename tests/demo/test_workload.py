"""The calls of the demo: trace formats, and the generator's likeness to a chat service."""

import random
import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from limiter_service.demo.workload import (
    Call,
    TraceError,
    generate,
    offered,
    read_trace,
    within,
)

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:51.2224670,879,55
"""
MOONCAKE = """\
{"timestamp": 1000, "input_length": 40160, "output_length": 6, "hash_ids": [0, 1]}
{"timestamp": 1040, "input_length": 23769, "output_length": 3, "hash_ids": []}
"""
TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"


def chance() -> random.Random:
    return random.Random(3)


def trace(folder: Path, text: str) -> Path:
    path = folder / "calls.txt"
    path.write_text(text, encoding="utf-8")
    return path


class TestFormats:
    """What a trace file may look like."""

    def test_azure(self, tmp_path: Path) -> None:
        """A CSV with seven-digit fractions becomes calls that count from the first."""
        calls = read_trace(trace(tmp_path, AZURE), chance())
        assert [(call.input_tokens, call.output_tokens) for call in calls] == [
            (374, 44),
            (396, 109),
            (879, 55),
        ]
        assert [call.at for call in calls] == pytest.approx([0, 4.314579, 64.541877])

    def test_azure_with_other_columns(self, tmp_path: Path) -> None:
        """Columns are found by name; a time zone, quotes and blank lines do no harm."""
        text = (
            "\ufeffGeneratedTokens, TIMESTAMP ,Model,ContextTokens\r\n"
            '\r\n5,"2024-05-10 00:00:00.009930+00:00",m,7\r\n'
        )
        [call] = read_trace(trace(tmp_path, text), chance())
        assert call == Call(at=0, input_tokens=7, output_tokens=5)

    def test_mooncake(self, tmp_path: Path) -> None:
        """JSON lines with milliseconds become calls that count from the first."""
        calls = read_trace(trace(tmp_path, MOONCAKE), chance())
        assert [(call.input_tokens, call.output_tokens) for call in calls] == [
            (40160, 6),
            (23769, 3),
        ]
        assert [call.at for call in calls] == pytest.approx([0, 0.04])

    def test_calls_come_in_order_of_time(self, tmp_path: Path) -> None:
        """A trace that is not sorted is sorted."""
        lines = MOONCAKE.splitlines()
        calls = read_trace(trace(tmp_path, "\n".join(reversed(lines))), chance())
        assert [call.input_tokens for call in calls] == [40160, 23769]

    def test_a_call_has_at_least_one_token_each_way(self, tmp_path: Path) -> None:
        """A recorded zero becomes one: no provider answers nothing to nothing."""
        text = '{"timestamp": 0, "input_length": 0, "output_length": 0}'
        assert read_trace(trace(tmp_path, text), chance()) == [
            Call(at=0, input_tokens=1, output_tokens=1)
        ]

    def test_coarse_timestamps_are_spread(self, tmp_path: Path) -> None:
        """Calls of one timestamp are spread over the time to the next, repeatably."""
        line = '{{"timestamp": {}, "input_length": 1, "output_length": 1}}'
        text = "\n".join(line.format(at) for at in [0] * 50 + [3000] * 50)
        path = trace(tmp_path, text)
        times = [call.at for call in read_trace(path, random.Random(1))]
        assert times == sorted(times)
        assert len(set(times)) == 100
        assert times[0] == 0
        assert times[49] < 3 == times[50]
        assert times[49] > 2.5
        assert 5.5 < times[-1] < 6
        assert times == [call.at for call in read_trace(path, random.Random(1))]
        assert times != [call.at for call in read_trace(path, random.Random(2))]

    def test_within(self, tmp_path: Path) -> None:
        """A workload can be cut to its first minutes."""
        calls = read_trace(trace(tmp_path, AZURE), chance())
        assert within(calls, 1) == calls[:2]


class TestBadTraces:
    """A trace that cannot be read is refused with its file and line."""

    @pytest.mark.parametrize(
        ("text", "line", "problem"),
        [
            ("", None, "is empty"),
            ("\n \n", None, "is empty"),
            ("hello", 1, "is neither a CSV header with TIMESTAMP,"),
            ("\n[1]", 2, "nor a JSON object"),
            ("a" * 200_000, 1, "is neither a CSV header"),
            (AZURE.splitlines()[0], None, "holds no calls"),
            (AZURE + "2023-11-16 18:15:46,374", 5, "has 2 fields, but the header has 3"),
            (AZURE + "yesterday,374,44", 5, "yesterday"),
            (AZURE + "2023-11-16 18:15:46,-1,44", 5, ">= 0 - at `$.ContextTokens`"),
            (AZURE + "2023-11-16 18:15:46,1,many", 5, "got `str` - at `$.GeneratedTokens`"),
            (AZURE + "\n" + "1" * 200_000, 6, "field larger than"),
            (MOONCAKE + "{", 3, "truncated"),
            (MOONCAKE + "[]", 3, "Expected `object`"),
            (MOONCAKE + '{"timestamp": 5}', 3, "missing required field `input_length`"),
            (MOONCAKE + '{"timestamp": -5}', 3, ">= 0.0 - at `$.timestamp`"),
        ],
    )
    def test_bad_lines(self, tmp_path: Path, text: str, line: int | None, problem: str) -> None:
        """The error has the path, the line where there is one, and the problem."""
        path = trace(tmp_path, text)
        with pytest.raises(TraceError) as caught:
            read_trace(path, chance())
        assert caught.value.line == line
        where = f"{path}:{line}: " if line else f"{path}: "
        assert str(caught.value).startswith(where)
        assert problem in str(caught.value)

    def test_no_such_file(self, tmp_path: Path) -> None:
        """A missing file is an error of the trace, like any other."""
        with pytest.raises(TraceError, match="No such file"):
            read_trace(tmp_path / "nothing", chance())

    def test_no_text(self, tmp_path: Path) -> None:
        """A file that is no text is refused as such."""
        path = tmp_path / "calls.bin"
        path.write_bytes(b"\x1f\x8b\x08\xff")
        with pytest.raises(TraceError, match="is not UTF-8 text"):
            read_trace(path, chance())


def percentile(values: list[int], share: float) -> int:
    return sorted(values)[int(share * (len(values) - 1))]


class TestGenerator:
    """The built-in workload has the figures of a recorded chat service."""

    CALLS = generate(60, random.Random(7))

    def test_rate_and_burstiness(self) -> None:
        """332 calls per minute; the variation of the gaps is that of the recording."""
        gaps = [later.at - earlier.at for earlier, later in pairwise(self.CALLS)]
        assert len(self.CALLS) / 60 == pytest.approx(332, rel=0.03)
        assert statistics.pstdev(gaps) / statistics.mean(gaps) == pytest.approx(1.09, rel=0.03)

    def test_input_sizes(self) -> None:
        """Mean, median and 95th percentile of the prompts."""
        sizes = [call.input_tokens for call in self.CALLS]
        assert statistics.mean(sizes) == pytest.approx(1155, rel=0.03)
        assert percentile(sizes, 0.5) == pytest.approx(1020, rel=0.03)
        assert percentile(sizes, 0.95) == pytest.approx(4083, rel=0.03)

    def test_output_sizes(self) -> None:
        """Mean, median and 95th percentile of the answers."""
        sizes = [call.output_tokens for call in self.CALLS]
        assert statistics.mean(sizes) == pytest.approx(211, rel=0.03)
        assert percentile(sizes, 0.5) == pytest.approx(129, rel=0.03)
        assert percentile(sizes, 0.95) == pytest.approx(451, rel=0.03)

    def test_a_seed_repeats_itself(self) -> None:
        """One seed gives one workload."""
        assert generate(2, random.Random(1)) == generate(2, random.Random(1))
        assert generate(2, random.Random(1)) != generate(2, random.Random(2))

    def test_minutes(self) -> None:
        """Every call is due within the minutes asked for, the first at once."""
        calls = generate(0.5, chance())
        assert calls[0].at == 0
        assert all(call.at < 30 for call in calls)


def test_offered_load() -> None:
    """The load is counted in the provider's own charge."""
    calls = [Call(at=second, input_tokens=500, output_tokens=9) for second in range(120)]
    load = offered(calls, lambda call: max(call.input_tokens, 1024))
    assert load.requests == pytest.approx(60)
    assert load.tokens == pytest.approx(60 * 1024)
    assert load.largest == 1024


@pytest.mark.skipif(not TRACES.is_dir(), reason="recorded traces are not on this machine")
@pytest.mark.parametrize(
    ("name", "calls", "minutes", "mean_input"),
    [
        ("AzureLLMInferenceTrace_conv.csv", 19_366, 58.4, 1155),
        ("mooncake_synthetic_trace.jsonl", 3_993, 17.0, 15_325),
    ],
)
def test_recorded_traces(name: str, calls: int, minutes: float, mean_input: float) -> None:
    """The recorded traces are read in full."""
    read = read_trace(TRACES / name, chance())
    assert len(read) == calls
    assert read[-1].at / 60 == pytest.approx(minutes, rel=0.01)
    sizes = [call.input_tokens for call in read]
    assert statistics.mean(sizes) == pytest.approx(mean_input, rel=0.01)
