"""The pools file: three formats, every problem at once, and a reload that cannot hurt."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests_support.calls import EXACT, view
from tests_support.waiting import until

from limiter_service.config import (
    ConfigError,
    LimitConfig,
    limits_of,
    load,
    match,
    parse,
    period,
    priorities,
    seconds,
)
from limiter_wire import Meter

YAML = """
pools:
  p:
    provider: generic
    limits:
      - {name: daily, meter: cost_usd, limit: 200, per: day, window: calendar, timezone: Asia/Tokyo}
    models:
      m: {rpm: 500, tpm: 30000, rpd: 10000, concurrency: 64}
      "*":
        limits: [{meter: tokens, limit: 200000, per: minute, burst: 20000, weights: {output: 5}}]
    tenants:
      team: {weight: 4, tpm: 10000, models: {m: {tpd: 5}}}
    prices:
      "*": {input: 2.5, output: 10}
    queue: {max_waiters: 100, max_wait: 2m}
    breaker: {window: 30s, probes: 2}
    lease_ttl: 90s
    on_store_loss: closed
    cold_start: 0.5
"""
TOML = """
[pools.p]
provider = "generic"
lease_ttl = "90s"
on_store_loss = "closed"
cold_start = 0.5
[[pools.p.limits]]
name = "daily"
meter = "cost_usd"
limit = 200
per = "day"
window = "calendar"
timezone = "Asia/Tokyo"
[pools.p.models.m]
rpm = 500
tpm = 30000
rpd = 10000
concurrency = 64
[[pools.p.models."*".limits]]
meter = "tokens"
limit = 200000
per = "minute"
burst = 20000
weights = {output = 5}
[pools.p.tenants.team]
weight = 4
tpm = 10000
models.m.tpd = 5
[pools.p.prices."*"]
input = 2.5
output = 10
[pools.p.queue]
max_waiters = 100
max_wait = "2m"
[pools.p.breaker]
window = "30s"
probes = 2
"""
JSON = json.dumps(
    {
        "pools": {
            "p": {
                "provider": "generic",
                "limits": [
                    {
                        "name": "daily",
                        "meter": "cost_usd",
                        "limit": 200,
                        "per": "day",
                        "window": "calendar",
                        "timezone": "Asia/Tokyo",
                    }
                ],
                "models": {
                    "m": {"rpm": 500, "tpm": 30000, "rpd": 10000, "concurrency": 64},
                    "*": {
                        "limits": [
                            {
                                "meter": "tokens",
                                "limit": 200000,
                                "per": "minute",
                                "burst": 20000,
                                "weights": {"output": 5},
                            }
                        ]
                    },
                },
                "tenants": {"team": {"weight": 4, "tpm": 10000, "models": {"m": {"tpd": 5}}}},
                "prices": {"*": {"input": 2.5, "output": 10}},
                "queue": {"max_waiters": 100, "max_wait": "2m"},
                "breaker": {"window": "30s", "probes": 2},
                "lease_ttl": "90s",
                "on_store_loss": "closed",
                "cold_start": 0.5,
            }
        }
    }
)


def problems(text: str, suffix: str = ".yaml") -> list[str]:
    """What is wrong with a file, one line each."""
    with pytest.raises(ConfigError) as caught:
        parse(text, suffix)
    return [str(each) for each in caught.value.problems]


def test_the_three_formats_say_the_same():
    """YAML, TOML and JSON of one content are equal configurations."""
    config = parse(YAML, ".yaml")
    assert config == parse(YAML, ".yml") == parse(TOML, ".toml") == parse(JSON, ".json")
    pool = config.pools["p"]
    assert pool.models["m"].concurrency == 64
    assert pool.tenants["team"].models["m"].tpd == 5
    assert (pool.cold_start, seconds(pool.lease_ttl)) == (0.5, 90)


def test_a_short_form_is_a_long_one():
    """Each short form stands for a limit that could be written out."""
    section = parse(
        """
pools:
  p:
    models:
      m: {rpm: 1, rpd: 2, tpm: 3, tpd: 4, input_tpm: 5, output_tpm: 6, concurrency: 7}
""",
        ".yaml",
    )
    assert [
        (limit.name, limit.meter, limit.per, limit.limit, limit.window)
        for limit in limits_of(section.pools["p"].models["m"])
    ] == [
        ("rpm", Meter.REQUESTS, "minute", 1, "bucket"),
        ("rpd", Meter.REQUESTS, "day", 2, "bucket"),
        ("tpm", Meter.TOKENS, "minute", 3, "bucket"),
        ("tpd", Meter.TOKENS, "day", 4, "bucket"),
        ("input_tpm", Meter.INPUT_TOKENS, "minute", 5, "bucket"),
        ("output_tpm", Meter.OUTPUT_TOKENS, "minute", 6, "bucket"),
        ("concurrency", Meter.CONCURRENCY, None, 7, "bucket"),
    ]


def test_a_limit_without_a_name_is_named_after_what_it_counts():
    """Meter and period make the name."""
    config = parse(
        "pools: {p: {limits: [{meter: tokens, limit: 1, per: 90s},"
        " {meter: concurrency, limit: 1}]}}",
        ".yaml",
    )
    names = [limit.name for limit in limits_of(config.pools["p"])]
    assert names == ["tokens-per-90s", "concurrency"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gpt-4o", "exact"),
        ("gpt-4o-mini", "long"),
        ("gpt-4o*", "long"),
        ("gpt-4", "short"),
        ("o1", "any"),
        ("", "any"),
    ],
)
def test_the_most_specific_entry_wins(name: str, found: str):
    """An exact name beats the longest prefix, which beats the star."""
    patterns = {
        "*": "any",
        "gpt-*": "short",
        "gpt-4o-*": "long",
        "gpt-4o": "exact",
        "gpt-4o*": "long",
    }
    assert match(patterns, name) == found


def test_without_a_fitting_pattern_there_is_no_entry():
    """Patterns do not match by accident."""
    assert match({"gpt-*": 1, "o1": 2}, "claude") is None
    assert match({}, "claude") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172_800),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (" 7s ", 7),
        ("12", 12),
        (12, 12),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_a_number_or_has_a_unit(text: str | float, expected: float):
    """Seconds are the unit of bare numbers."""
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "s", "0s", 0, -1, "-5s", "5x", "five", "1 2s", "367d", float("nan"), float("inf")]
)
def test_what_is_no_duration_is_refused(text: str | float):
    """The message shows what was given and what is allowed."""
    with pytest.raises(ValueError, match=r"is no duration; allowed: seconds, or"):
        seconds(text)


@pytest.mark.parametrize(("key", "expected"), [("0-2", [0, 1, 2]), ("5", [5]), ("3-3", [3])])
def test_priorities_are_one_or_a_range(key: str, expected: list[int]):
    """Both ends count."""
    assert list(priorities(key)) == expected


def test_shares_may_be_all_there_is():
    """Ten tenths are one, however floats add up."""
    shares = ", ".join(f'"{priority}": 0.1' for priority in range(10))
    queue = parse(SHARES.format(shares), ".yaml").pools["p"].queue
    assert len(queue.priority_shares) == 10


def test_periods_have_the_length_that_their_name_says():
    """A calendar month has no fixed length."""
    lengths = {
        per: period(LimitConfig(meter=Meter.TOKENS, limit=1, per=per))
        for per in ("second", "minute", "hour", "day", "month", "90s", 7)
    }
    assert lengths == {
        "second": 1,
        "minute": 60,
        "hour": 3600,
        "day": 86_400,
        "month": None,
        "90s": 90,
        7: 7,
    }


LIMIT = "pools: {{p: {{limits: [{{{}}}]}}}}"
SHARES = "pools: {{p: {{queue: {{priority_shares: {{{}}}}}}}}}"


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("pools: 7", "pools", "not a mapping"),
        ("7", "file", "not a mapping"),
        ("[]", "file", "not a mapping"),
        ("pool: {}", "pool", "did you mean pools?"),
        ("pools: {p: 7}", "pools.p", "not a mapping"),
        ("pools: {p: {limit: []}}", "pools.p.limit", "did you mean limits?"),
        ("pools: {p: {zzz: 1}}", "pools.p.zzz", "allowed: rpm, rpd, tpm"),
        ("pools: {p: {limits: {}}}", "pools.p.limits", "not a list"),
        ("pools: {p: {limits: [7]}}", "pools.p.limits[0]", "not a mapping"),
        ("pools: {p: {rpm: 0}}", "pools.p.rpm", ">= 1"),
        ("pools: {p: {rpm: -5}}", "pools.p.rpm", ">= 1"),
        ("pools: {p: {rpm: 1.5}}", "pools.p.rpm", "int"),
        ("pools: {p: {rpm: many}}", "pools.p.rpm", "int"),
        ("pools: {p: {rpm: true}}", "pools.p.rpm", "int"),
        ("pools: {p: {tpm: 10000000000000}}", "pools.p.tpm", "<= 1000000000000"),
        ("pools: {p: {models: {m: {concurrency: 0}}}}", "pools.p.models.m.concurrency", ">= 1"),
        ("pools: {p: {lease_ttl: 0}}", "pools.p.lease_ttl", "is no duration"),
        ("pools: {p: {lease_ttl: soon}}", "pools.p.lease_ttl", "is no duration"),
        ("pools: {p: {lease_ttl: .nan}}", "pools.p.lease_ttl", "is no duration"),
        ("pools: {p: {cold_start: 2}}", "pools.p.cold_start", "<= 1"),
        ("pools: {p: {cold_start: .nan}}", "pools.p.cold_start", ">= 0"),
        ("pools: {p: {on_store_loss: panic}}", "pools.p.on_store_loss", "degrade, open, closed"),
        ("pools: {p: {durability: slow}}", "pools.p.durability", "allowed: fast, replicated"),
        ("pools: {p: {tenants: {t: {weight: 0}}}}", "pools.p.tenants.t.weight", "> 0"),
        ("pools: {p: {tenants: {t: {weight: .inf}}}}", "pools.p.tenants.t.weight", "<= 1000"),
        ("pools: {p: {prices: {m: {input: 1}}}}", "pools.p.prices.m.output", "is required"),
        ("pools: {p: {prices: {m: {input: -1, output: 1}}}}", "pools.p.prices.m.input", ">= 0"),
        ("pools: {p: {queue: {max_waiters: -1}}}", "pools.p.queue.max_waiters", ">= 0"),
        (SHARES.format('"0-2": 1.5'), "pools.p.queue.priority_shares", "<= 1"),
        (SHARES.format('"0-2": 0'), "pools.p.queue.priority_shares", "> 0"),
        (SHARES.format('"2-0": 0.1'), "pools.p.queue.priority_shares", "no range of priorities"),
        (SHARES.format('"0-10": 0.1'), "pools.p.queue.priority_shares", "no range of priorities"),
        (SHARES.format('"urgent": 0.1'), "pools.p.queue.priority_shares", 'allowed: "0" to "9"'),
        (
            "pools: {p: {queue: {priority_shares: [0.1]}}}",
            "pools.p.queue.priority_shares",
            "object",
        ),
        (
            SHARES.format('"0-2": 0.1, "2": 0.1'),
            "pools.p.queue.priority_shares.2",
            "priority 2 is in '0-2' already",
        ),
        (
            SHARES.format('"0-2": 0.6, "3": 0.5'),
            "pools.p.queue.priority_shares",
            "the shares add up to 1.1",
        ),
        ("pools: {p: {breaker: {failure_rate: 2}}}", "pools.p.breaker.failure_rate", "<= 1"),
        ("pools: {p: {breaker: {opne: 5s}}}", "pools.p.breaker.opne", "did you mean open?"),
        ('pools: {"a b": {}}', "pools.a b", "1 to 64 of"),
        ('pools: {"": {}}', "pools.", "1 to 64 of"),
        ('pools: {"{a}": {}}', "pools.{a}", "1 to 64 of"),
        ('pools: {p: {models: {"a*b": {}}}}', "pools.p.models.a*b", "only at the end"),
        ('pools: {p: {models: {"a b": {}}}}', "pools.p.models.a b", "visible ASCII"),
        ('pools: {p: {tenants: {"\\u00e9": {}}}}', "pools.p.tenants.\u00e9", "visible ASCII"),
        (LIMIT.format("limit: 1, per: day"), "pools.p.limits[0].meter", "is required"),
        (LIMIT.format("meter: tokens, per: day"), "pools.p.limits[0].limit", "is required"),
        (LIMIT.format("meter: tokens, limit: 1"), "pools.p.limits[0].per", "is required: second"),
        (
            LIMIT.format("meter: words, limit: 1, per: day"),
            "pools.p.limits[0].meter",
            "allowed: requests, tokens, input_tokens, output_tokens, cost_usd, concurrency",
        ),
        (LIMIT.format("meter: tokens, limit: 0, per: day"), "pools.p.limits[0].limit", "> 0"),
        (LIMIT.format("meter: tokens, limit: .inf, per: day"), "pools.p.limits[0].limit", "<="),
        (LIMIT.format("meter: tokens, limit: .nan, per: day"), "pools.p.limits[0].limit", "> 0"),
        (LIMIT.format("meter: tokens, limit: 1, per: soon"), "pools.p.limits[0].per", "duration"),
        (LIMIT.format("meter: tokens, limit: 1, per: month"), "pools.p.limits[0].per", "calendar"),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, window: round"),
            "pools.p.limits[0].window",
            "allowed: bucket, sliding, calendar",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: 90s, window: calendar"),
            "pools.p.limits[0].per",
            "one of minute, hour, day, month",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, window: calendar, timezone: Mars/X"),
            "pools.p.limits[0].timezone",
            "not a known time zone",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, window: calendar, timezone: ../x"),
            "pools.p.limits[0].timezone",
            "not a known time zone",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, window: sliding, aimd: true"),
            "pools.p.limits[0].aimd",
            "is for buckets",
        ),
        (
            LIMIT.format("meter: tokens, limit: 9, per: day, ramp: {start: 1, facter: 2}"),
            "pools.p.limits[0].ramp.facter",
            "did you mean factor?",
        ),
        (
            LIMIT.format("meter: tokens, limit: 9, per: day, ramp: {factor: 2}"),
            "pools.p.limits[0].ramp.start",
            "is required",
        ),
        (
            LIMIT.format("meter: tokens, limit: 9, per: day, ramp: {start: 1, factor: 1}"),
            "pools.p.limits[0].ramp.factor",
            "> 1",
        ),
        (
            LIMIT.format("meter: tokens, limit: 9, per: day, ramp: {start: 1, period: soon}"),
            "pools.p.limits[0].ramp.period",
            "is no duration",
        ),
        (LIMIT.format("meter: tokens, limit: 9, per: day, ramp: 2"), "ramp", "is not a mapping"),
        (
            LIMIT.format("meter: concurrency, limit: 9, ramp: {start: 1}"),
            "pools.p.limits[0].ramp",
            "no such thing",
        ),
        (
            LIMIT.format(
                "{name: a, meter: tokens, limit: 9, per: day, ramp: {start: 1}}, "
                "{name: a.ramp, meter: tokens, limit: 9, per: hour}"
            )
            .replace("{{", "{")
            .replace("}}]", "}]"),
            "pools.p.limits[1].name",
            "'a.ramp' is taken by limits[0]",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, window: sliding, burst: 5"),
            "pools.p.limits[0].burst",
            "only a bucket has a burst",
        ),
        (
            LIMIT.format("meter: concurrency, limit: 1, per: day"),
            "pools.p.limits[0].per",
            "no such thing",
        ),
        (LIMIT.format("meter: concurrency, limit: 1.5"), "pools.p.limits[0].limit", "whole"),
        (
            LIMIT.format("meter: requests, limit: 1, per: day, reserve: input"),
            "pools.p.limits[0].reserve",
            "does not apply",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, reserve: all"),
            "pools.p.limits[0].reserve",
            "allowed: tokens, input, sum(input, max_output)",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, weights: {outptu: 1}"),
            "pools.p.limits[0].weights",
            "allowed: input, cache_read, cache_write, output, reasoning",
        ),
        (
            LIMIT.format("meter: tokens, limit: 1, per: day, weights: {output: -1}"),
            "pools.p.limits[0].weights",
            ">= 0",
        ),
        (LIMIT.format('name: "a b", meter: tokens, limit: 1, per: day'), "limits[0].name", "match"),
        (
            LIMIT.format('name: "a\\n", meter: tokens, limit: 1, per: day'),
            "limits[0].name",
            "match",
        ),
        (
            "pools: {p: {tpm: 1, limits: [{name: tpm, meter: tokens, limit: 1, per: day}]}}",
            "pools.p.limits[0].name",
            "is taken by tpm",
        ),
        (
            (
                "pools: {p: {limits: [{meter: tokens, limit: 1, per: day},"
                " {meter: tokens, limit: 2, per: day}]}}"
            ),
            "pools.p.limits[1].name",
            "is taken by limits[0]",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(text: str, path: str, said: str):
    """One problem, at its path, and nothing else is complained about."""
    found = problems(text)
    assert len(found) == 1, found
    assert path in found[0].partition(": ")[0]
    assert said in found[0]


def test_every_problem_is_listed_at_once():
    """Whoever mends a file should not have to run it five times."""
    found = problems("""
pools:
  p:
    rpm: 0
    modles: {}
    models:
      m: {tpm: -1, limits: [{meter: words, limit: 0}]}
    lease_ttl: soon
  "q q": {cold_start: 7}
""")
    assert sorted(line.partition(": ")[0] for line in found) == [
        "pools.p.lease_ttl",
        "pools.p.models.m.limits[0].limit",
        "pools.p.models.m.limits[0].meter",
        "pools.p.models.m.tpm",
        "pools.p.modles",
        "pools.p.rpm",
        "pools.q q",
        "pools.q q.cold_start",
    ]


@pytest.mark.parametrize(
    ("text", "suffix", "said"),
    [
        ("pools: {p: {}, p: {}}", ".yaml", "the key 'p' stands twice"),
        ('{"pools": {"p": {}, "p": {}}}', ".json", "the key 'p' stands twice"),
        ("[pools.p]\n[pools.p]\n", ".toml", "cannot be parsed"),
        ("pools: {", ".yaml", "cannot be parsed"),
        ("{", ".json", "cannot be parsed"),
        ("= 1", ".toml", "cannot be parsed"),
        ("pools: !!python/object/apply:os.getcwd []", ".yaml", "cannot be parsed"),
        ("{[a]: 1}", ".yaml", "cannot be parsed"),
        ("", ".ini", "'.ini' is not known; allowed: .yaml, .yml, .toml, .json"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem(text: str, suffix: str, said: str):
    """Syntax, duplicate keys and unknown suffixes are told in one line."""
    (found,) = problems(text, suffix)
    assert found.startswith("file: ")
    assert said in found


def test_an_empty_file_has_no_pools():
    """Nothing is configured, and that is not an error."""
    assert parse("", ".yaml").pools == parse("{}", ".json").pools == {}


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path):
    """The message names the file."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: 1 problem"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "binary.yaml")


async def budget(client: httpx.AsyncClient) -> float:
    """The limit in force."""
    limit: float = (await view(client))["m.budget"]["limit"]
    return limit


async def test_a_running_service_takes_the_next_good_file(
    serve: Any, write_config: Callable[[str], Path], tmp_path: Path
):
    """A bad file changes nothing; a good one takes effect, also when it is renamed into place."""
    client = await serve()
    assert await budget(client) == 1000
    write_config("pools: {p: {modles: {}}}")

    async def refused() -> bool:
        text = (await client.get("/readyz?verbose=true")).json()["checks"]["config"]
        return "the file is refused" in text

    async def takes(limit: int) -> bool:
        return await budget(client) == limit

    await until(refused, "the bad file is not noticed")
    assert await budget(client) == 1000
    write_config(EXACT.replace("limit: 1000", "limit: 2000"))
    await until(lambda: takes(2000), "the good file is not taken")
    assert not await refused()
    write_config(EXACT.replace("limit: 1000", "limit: 3000"), "next.yaml").rename(
        tmp_path / "pools.yaml"
    )
    await until(lambda: takes(3000), "a file that is renamed into place is not taken")
    (tmp_path / "pools.yaml").unlink()
    write_config(EXACT.replace("limit: 1000", "limit: 4000"))
    await until(lambda: takes(4000), "a file that was away for a moment is not taken")


def check(path: Path) -> subprocess.CompletedProcess[str]:
    """`sluicegate check-config` as a process."""
    return subprocess.run(
        [sys.executable, "-m", "limiter_service", "check-config", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_check_config_says_that_a_file_is_good(write_config: Callable[[str], Path]):
    """Exit code 0, a summary, and notes on what may not be meant."""
    path = write_config(YAML)
    done = check(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: good; 1 pools, 2 models\n")


def test_check_config_notes_what_is_probably_not_meant(write_config: Callable[[str], Path]):
    """A pool without models."""
    done = check(
        write_config("""
pools:
  empty: {}
  p: {on_store_loss: open, models: {m: {}}}
""")
    )
    assert done.returncode == 0
    assert "note: pools.empty: no models" in done.stdout
    assert "note: pools.p" not in done.stdout


def test_check_config_lists_what_is_wrong(write_config: Callable[[str], Path]):
    """Exit code 2, every problem on a line of its own, no traceback."""
    path = write_config("pools: {p: {rpm: 0, tpm: x}}")
    done = check(path)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0] == f"sluicegate: {path}: 2 problems"
    assert [line.split(":")[0] for line in lines[1:]] == ["  pools.p.rpm", "  pools.p.tpm"]
