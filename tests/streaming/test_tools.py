"""Tool calls from pieces: the rules that the table of streams does not show."""

import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_support.stream_cases import gemini, sse

from client_sdk.streaming import StreamAccumulator, ToolCall, ToolCallAssembler, ToolCallDelta
from client_sdk.streaming.tools import _Documents


def test_deltas_wait_for_the_name_and_then_show_all():
    """What is shown adds up to the call."""
    tools = ToolCallAssembler()
    assert tools.add(index=0, id="a", arguments='{"x"') is None
    assert tools.add(index=0, name="f", arguments=":1") == ToolCallDelta(
        index=0, id="a", name="f", arguments='{"x":1'
    )
    assert tools.add(index=0, arguments="}") == ToolCallDelta(index=0, id="a", arguments="}")
    (call,) = tools.calls()
    assert (call.executable, call.input) == (True, {"x": 1})


def test_no_call_is_executable_before_the_stream_has_ended_well():
    """Arguments that parse prove nothing; a view of them is there on request."""
    accumulator = StreamAccumulator("openai-chat")
    frame = (
        '{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":'
        '{"name":"f","arguments":"{\\"path\\":\\"a.t"}}]}}]}'
    )
    accumulator.feed(f"data: {frame}\n\n".encode(), 0.0)
    assert accumulator.tool_calls == ()
    assert accumulator.partial_arguments(0) == {"path": "a.t"}
    assert [call.problem for call in accumulator.partial_tool_calls] == ["invalid_json"]
    accumulator.finish(1.0)
    assert accumulator.tool_calls == ()


def test_a_call_path_by_path_that_is_cut_can_be_looked_at():
    """What had come of it is in the view, and not among the calls."""
    accumulator = StreamAccumulator("gemini")
    argument = {"jsonPath": "$.city", "stringValue": "Ro", "willContinue": True}
    call = {"name": "weather", "partialArgs": [argument], "willContinue": True}
    accumulator.feed(sse(gemini({"functionCall": call})), 0.0)
    accumulator.finish(1.0)
    assert accumulator.tool_calls == ()
    assert [call.input for call in accumulator.partial_tool_calls] == [{"city": "Ro"}]


def test_a_custom_call_keeps_its_text():
    """Its arguments are not JSON."""
    tools = ToolCallAssembler()
    tools.open(index=0, id="a", name="sql", type="custom")
    tools.add(index=0, arguments="SELECT ")
    tools.replace(index=0, arguments="SELECT 1")
    assert tools.calls() == (
        ToolCall(id="a", name="sql", arguments="SELECT 1", index=0, type="custom"),
    )
    assert tools.calls()[0].input == "SELECT 1"


def test_whole_calls_do_not_merge():
    """Not even with the same name and no id; a repeated id is the same call."""
    tools = ToolCallAssembler()
    tools.add_whole(name="f", arguments={"a": 1})
    tools.add_whole(name="f", arguments={"a": 2})
    tools.add_whole(name="f", arguments={"a": 3}, id="x")
    tools.add_whole(name="f", arguments={"a": 3}, id="x")
    assert [call.arguments for call in tools.calls()] == ['{"a":1}', '{"a":2}', '{"a":3}']


def test_nothing_is_no_call():
    """A piece without name and arguments leaves no phantom."""
    tools = ToolCallAssembler()
    tools.add(index=3)
    assert tools.calls() == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\{}[]é\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_documents_are_counted_in_any_pieces(documents: list[object], cuts: list[int]):
    """Quotes and escapes are understood across pieces."""
    text = "".join(json.dumps(document) for document in documents)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    parts = [text[a:b] for a, b in itertools.pairwise(places)]
    counter = _Documents()
    for end in range(len(parts) + 1):
        counter.read(parts[:end])
    assert (counter.count, counter.whole) == (len(documents), True)
    counter.read([*parts, '{"open'])
    assert not counter.whole


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abc"), st.integers(), min_size=1, max_size=3),
            st.integers(1, 9),
        ),
        min_size=1,
        max_size=4,
    ),
    st.randoms(),
)
def test_parallel_calls_are_kept_apart(calls: list[tuple[dict[str, int], int]], random):
    """By id or by index, whichever a piece carries, in any order between the calls."""
    left = []
    for index, (arguments, size) in enumerate(calls):
        text = json.dumps(arguments)
        parts = [text[at : at + size] for at in range(0, len(text), size)]
        left.append((index, parts))
    tools = ToolCallAssembler()
    for index, parts in left:
        tools.add(index=index, id=f"id{index}", name="f", arguments=parts.pop(0))
    while any(parts for _, parts in left):
        index, parts = random.choice([(i, p) for i, p in left if p])
        place = {"id": f"id{index}"} if random.random() < 0.5 else {"index": index}
        tools.add(**place, arguments=parts.pop(0))
    assert [call.input for call in tools.calls()] == [arguments for arguments, _ in calls]


def seconds(deltas: int, feed) -> float:
    """The best of a few runs."""
    best = float("inf")
    for _ in range(3):
        tools = ToolCallAssembler()
        before = time.process_time()
        for n in range(deltas):
            feed(tools, n)
        tools.calls()
        best = min(best, time.process_time() - before)
    return best


@pytest.mark.parametrize(
    "feed",
    [
        lambda tools, n: tools.add(index=0, id="a", name="f", arguments='"x", ' if n else "["),
        lambda tools, n: tools.add(id=f"r{n}", name="f", arguments='"}",' if n else "["),
        lambda tools, n: (
            tools.add(index=0, id="a", name="f", arguments='"x", ' if n else "["),
            tools.partial(0),
        ),
    ],
    ids=["pieces", "a new id and the name each", "with a view after each"],
)
def test_many_pieces_cost_linear_work(feed):
    """Sixteen times the pieces take nowhere near 256 times as long."""
    assert seconds(16_000, feed) < 80 * max(seconds(1_000, feed), 1e-4)
