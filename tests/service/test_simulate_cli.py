"""`sluicegate simulate`: recorded calls under a pools file, in virtual time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from limiter_service.cli import app
from limiter_service.demo.workload import TraceError
from limiter_service.simulation.figures import waits
from limiter_service.simulation.trace import Call, read

# Ten calls at once, each a token in and a second of answer.
CROWD = "at,input_tokens,output_tokens\n" + "0,1,80\n" * 10
ONE_A_SECOND = """
pools:
  p:
    models:
      m: {limits: [{name: calls, meter: requests, limit: 1, per: second, burst: 1}]}
    prices: {"*": {input: 1000000, output: 0}}
"""

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.5,3,2
2023-11-16 18:15:47.5,4,1
"""
MOONCAKE = """{"timestamp": 0, "input_length": 3, "output_length": 2}
{"timestamp": 1000, "input_length": 4, "output_length": 1}
"""
OWN = """{"at": 0, "input_tokens": 3, "output_tokens": 2}

{"at": 1, "input_tokens": 4, "output_tokens": 1}
"""

Write = Callable[..., Path]


def run(*words: str | Path) -> Result:
    """The command."""
    return CliRunner().invoke(app, ["simulate", *map(str, words)])


def figures(*words: str | Path) -> list[dict[str, Any]]:
    """Its figures, one for each policy."""
    done = run(*words, "--output", "json")
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.output)
    return found


@pytest.fixture
def crowd(write_config: Write) -> Path:
    """A trace of ten calls at once."""
    return write_config(CROWD, "calls.csv")


def test_a_queue_takes_the_time_that_its_limit_says(write_config: Write, crowd: Path):
    """One a second: the tenth waits for nine, to the store's way; and nothing else is said
    by a second run.
    """
    policy = write_config(ONE_A_SECOND)
    (found,) = figures(policy, "--trace", crowd)
    assert (found["granted"], found["too_many"], found["in_flight"]) == (10, 0, 2)
    assert found["waits"]["longest"] == pytest.approx(9, abs=0.05)
    assert found["waits"]["mean"] == pytest.approx(4.5, abs=0.05)
    assert found["cost_usd"] == pytest.approx(10)
    assert figures(policy, "--trace", crowd) == [found]


def test_callers_that_do_not_wait_are_refused(write_config: Write, crowd: Path):
    """With the codes of a service: one is granted, the others are not."""
    (found,) = figures(write_config(ONE_A_SECOND), "--trace", crowd, "--max-wait", "0")
    assert (found["granted"], found["refused"], found["too_many"]) == (1, {"rate_limited": 9}, 9)


def test_callers_wait_as_long_as_they_say(write_config: Write, crowd: Path):
    """Who could not be served in time is told at once."""
    (found,) = figures(write_config(ONE_A_SECOND), "--trace", crowd, "--max-wait", "4.5s")
    assert found["granted"] == 5
    assert found["refused"] == {"wait_too_long": 5}


def test_two_policies_stand_side_by_side(write_config: Write, crowd: Path):
    """A column each, and the difference is to be seen."""
    one = write_config(ONE_A_SECOND)
    two = write_config(ONE_A_SECOND.replace("limit: 1,", "limit: 3,"), "other.yaml")
    done = run(one, "--trace", crowd, "--against", two)
    assert done.exit_code == 0, done.output
    rows = {line[:18].strip(): line[18:].split() for line in done.output.splitlines()[1:]}
    assert rows[""] == ["pools.yaml", "other.yaml"]
    assert [float(cell) for cell in rows["wait longest"][::2]] == pytest.approx([9, 3], abs=0.05)


def test_use_is_told_of_what_a_limit_allows(write_config: Write):
    """Tokens that were settled, over the time in which calls came; and the busiest minute."""
    lines = [f"{second},10,{10 if second < 60 else 90}" for second in range(0, 121, 2)]
    trace = write_config("at,input_tokens,output_tokens\n" + "\n".join(lines), "calls.csv")
    policy = write_config("pools: {p: {models: {m: {tpm: 6000}}}}")
    (found,) = figures(policy, "--trace", trace, "--max-output", "90")
    (use,) = found["limits"]
    assert use["limit"] == "m.tpm"
    assert use["amount"] == 30 * 20 + 30 * 100  # without the last, which ends the time
    assert use["share"] == pytest.approx(use["amount"] / 12_000)
    assert use["busiest_minute"] == pytest.approx(0.5)


def test_every_call_may_have_its_own_resource_tenant_and_size(write_config: Write):
    """JSON lines with what is known; a tenant's own limit holds for it alone."""
    rows = [{"at": 0, "input_tokens": 5, "output_tokens": 1, "max_output_tokens": 5}] * 4
    named = [row | {"resource": "p/n", "tenant": "shop"} for row in rows]
    text = "\n".join(json.dumps(row) for row in [*rows, *named])
    trace = write_config(text, "calls.jsonl")
    policy = write_config("""
pools:
  p:
    models: {m: {}, n: {}}
    tenants: {shop: {limits: [{name: own, meter: tokens, limit: 20, per: 366d}]}}
""")
    words = (policy, "--trace", trace, "--resource", "p/m", "--max-wait", "0")
    (found,) = figures(*words)
    assert found["granted"] == 6
    told = {group["tenant"]: group["granted"] for group in found["tenants"]}
    assert told == {"default": 4, "shop": 2}
    assert "tenant shop" in run(*words).output


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (AZURE, "recorded.csv"),
        (MOONCAKE, "recorded.jsonl"),
        ("output_tokens,input_tokens,at\n1,4,1\n2,3,0\n", "own.csv"),
        (OWN, "own.jsonl"),
    ],
)
def test_recorded_traces_and_ones_own_are_read(write_config: Write, text: str, name: str):
    """Told apart by their content, and in the order of time."""
    assert read(write_config(text, name), 0) == [
        Call(at=0, input_tokens=3, output_tokens=2),
        Call(at=1, input_tokens=4, output_tokens=1),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at,input_tokens,output_tokens\n0,1,1\n0,x,1\n", "3: Expected `int`"),
        ("at,input_tokens,output_tokens\n0,1\n", "2: has 2 fields, but the head has 3"),
        ("at,input_tokens\n0,1\n", "1: lacks the column output_tokens"),
        ("at,input_tokens,output_tokens,cost\n", "1: has the column 'cost'; there are: at,"),
        ("at,input_tokens,output_tokens\n", "holds no calls"),
        ('{"at": 0, "input_tokens": 0, "output_tokens": 1}', "1: Expected `int` >= 1"),
        ('{"at": 0, "input": 1}', "1: Object"),
        ("", "is empty"),
        ("nonsense", "1: is neither a CSV header"),
    ],
)
def test_a_bad_trace_names_the_line(write_config: Write, text: str, said: str):
    """And what is allowed there."""
    with pytest.raises(TraceError) as caught:
        read(write_config(text, "calls.csv"), 0)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "words", "said"),
    [
        ("pools: {p: {modles: {}}}", (), "did you mean models?"),
        ("pools: {p: {models: {m: {}, n: {}}}}", (), "say which with --resource; it has p/m, p/n"),
        ("pools: {p: {models: {'*': {}}}}", (), "it has none by name"),
        ("pools: {p: {models: {m: {}}}}", ("--resource", "p/x"), "configured models: m"),
        ("pools: {p: {models: {m: {}}}}", ("--max-wait", "soon"), "--max-wait: 'soon'"),
    ],
)
def test_what_cannot_be_replayed_is_told(
    write_config: Write, crowd: Path, policy: str, words: tuple[str, ...], said: str
):
    """2, before anything is started."""
    done = run(write_config(policy), "--trace", crowd, *words)
    assert done.exit_code == 2
    assert said in done.output


def test_quantiles_are_those_of_the_calls():
    """The smallest value that so many are not above."""
    found = waits([float(n) for n in range(1, 101)])
    assert (found.mean, found.p50, found.p95, found.p99, found.longest) == (50.5, 50, 95, 99, 100)
    assert waits([]).longest == 0
