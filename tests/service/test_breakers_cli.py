"""`sluicegate breakers`, against a running service."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from typer.testing import CliRunner, Result

from limiter_service.cli import app

CONFIG = """
pools:
  p: {models: {m: {}, "deep/model": {}}}
"""

# What the command line says does not depend on the store.
pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)

Run = Callable[..., Result]


@pytest.fixture
def run(db: redis.Redis, server: Server, write_config: Callable[[str], Path]) -> Iterator[Run]:
    """The command, told where the service is."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", server.url)
    with ServiceProcess(*arguments) as service:

        def invoke(verb: str, *more: str) -> Result:
            return CliRunner().invoke(app, ["breakers", verb, *more, "--url", service.url])

        yield invoke


def as_json(done: Result) -> Any:
    """What a command with `--output json` printed."""
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_circuits_are_listed_held_shown_and_let_go(run: Run):
    """The life of an order, as an operator types it."""
    assert run("ls").output.splitlines()[1].split() == ["p/deep/model", "closed", "0", "0"]
    done = run("open", "p/m", "--ttl", "10m", "--reason", "drill")
    assert done.exit_code == 0
    assert "open by anonymous, until 20" in done.output
    assert "drill" in done.output
    assert "p/m" in run("ls", "--state", "open").output
    assert "deep" not in run("ls", "--state", "open").output
    assert as_json(run("show", "p/m", "--output", "json"))["override"]["reason"] == "drill"
    view = as_json(run("observe", "p/m", "--until-cleared", "--output", "json"))
    assert (view["effective"], view["override"]["until"]) == ("closed", None)
    assert as_json(run("close", "p/m", "--ttl", "5", "--output", "json"))["effective"] == "closed"
    assert as_json(run("clear", "p/m", "--output", "json"))["override"] is None
    assert as_json(run("reset", "p/deep/model", "--output", "json"))["resource"] == "p/deep/model"
    assert [each["resource"] for each in as_json(run("ls", "--output", "json"))["breakers"]] == [
        "p/deep/model",
        "p/m",
    ]


def test_an_order_for_an_older_generation_ends_with_1(run: Run):
    """The message says what to do."""
    seen = as_json(run("show", "p/m", "--output", "json"))["generation"]
    run("open", "p/m", "--ttl", "60", "--generation", str(seen))
    late = run("close", "p/m", "--ttl", "60", "--generation", str(seen))
    assert late.exit_code == 1
    assert "generation_conflict: generation" in late.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("open", "p/m"), 2, "say for how long"),
        (("open", "p/m", "--ttl", "5", "--until-cleared"), 2, "say for how long"),
        (("open", "p/m", "--ttl", "soon"), 2, "no duration"),
        (("show", "m"), 2, "give it as pool/model"),
        (("show", "nowhere/m"), 1, "unknown_resource"),
        (("ls", "--state", "ajar"), 1, "invalid"),
    ],
)
def test_what_cannot_be_done_is_told(run: Run, arguments: tuple[str, ...], code: int, said: str):
    """2 for what was typed wrong, 1 for what the service refused."""
    done = run(*arguments)
    assert done.exit_code == code
    assert said in done.output


def test_a_service_that_is_away_ends_with_1(server: Server):
    """And says where it was looked for."""
    done = CliRunner().invoke(app, ["breakers", "ls", "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "the service at http://127.0.0.1:1 cannot be reached" in done.output
