"""`sluicegate keys`, at a running service and in its store."""

import json
import re

import pytest
from tests_support.keys import ADMIN, Fleet, id_of
from typer.testing import CliRunner, Result

from limiter_service.cli import app
from limiter_service.engine import credentials


def run(*arguments: str) -> Result:
    """The command."""
    patient = {"SLUICEGATE_CONNECT_TIMEOUT": "20", "SLUICEGATE_COMMAND_TIMEOUT": "20"}
    return CliRunner(env=patient).invoke(app, ["keys", *arguments])


@pytest.fixture(params=["service", "store"])
def where(request: pytest.FixtureRequest, fleet: Fleet) -> tuple[str, ...]:
    """The options that lead to the keys."""
    if request.param == "store":
        return ("--redis-url", fleet.store)
    return ("--url", fleet.urls[0], "--api-key", ADMIN)


def test_a_key_is_made_listed_and_revoked(where: tuple[str, ...]):
    """What is printed to stdout is the key alone, so a script can keep it."""
    made = run(
        *("create", "nightly", "--role", "acquire", "--role", "read"),
        *("--pool", "p", "--tenant", "own", "--ttl", "90d", *where),
    )
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert credentials.read(key) is not None
    assert "acquire, read on pools p for tenants own; until 20" in made.stderr
    assert "shown this once" in made.stderr

    listed = run("list", *where)
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(id_of(key))]
    assert re.split(r" {2,}", line)[1:6] == ["nightly", "valid", "acquire,read", "p", "own"]
    assert key.split("_")[2] not in listed.output

    gone = run("revoke", id_of(key), "--reason", "left", *where)
    assert (gone.exit_code, gone.stdout) == (0, f"nightly ({id_of(key)}) is revoked\n")
    keys = json.loads(run("list", "--output", "json", *where).stdout)["keys"]
    assert next(each for each in keys if each["id"] == id_of(key))["state"] == "revoked"


def test_the_answer_is_json_where_that_is_asked(where: tuple[str, ...]):
    """Everything that the service says, the key too."""
    made = json.loads(run("create", "x", "--role", "read", "--output", "json", *where).stdout)
    assert credentials.read(made["key"]) is not None
    assert (made["state"], made["expires"]) == ("valid", None)
    gone = json.loads(run("revoke", made["id"], "--output", "json", *where).stdout)
    assert gone["state"] == "revoked"


def test_who_has_the_store_is_named(fleet: Fleet):
    """There is no key that could be."""
    made = run("create", "first", "--role", "admin", "--redis-url", fleet.store)
    keys = json.loads(run("list", "--output", "json", "--redis-url", fleet.store).stdout)["keys"]
    (view,) = [each for each in keys if each["id"] == id_of(made.stdout.strip())]
    assert view["created_by"].endswith(" at the store")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "x"), 2, "Missing option '--role'"),
        (("create", "x", "--role", "root"), 2, "'root' is not one of"),
        (("create", "two words", "--role", "read"), 2, "$.name"),
        (("create", "x", "--role", "read", "--ttl", "soon"), 2, "--ttl:"),
        (("create", "x", "--role", "read", "--pool", "*"), 2, "$.pools"),
        (("create", "x", "--role", "admin", "--tenant", "t"), 1, "cannot be admin"),
        (("revoke", "ffff"), 1, "not_found: there is no key 'ffff'"),
    ],
)
def test_what_cannot_be_done_is_said(
    where: tuple[str, ...], arguments: tuple[str, ...], code: int, said: str
):
    """In one line, with an exit code that tells a mistake from a refusal."""
    done = run(*arguments, *where)
    assert done.exit_code == code
    assert said in re.sub(r"[\s│]+", " ", done.output)


def test_a_key_that_is_missing_or_not_enough_is_said(fleet: Fleet, monkeypatch: pytest.MonkeyPatch):
    """Commands take the key of the environment where none is given."""
    url = ("--url", fleet.urls[0])
    monkeypatch.delenv("SLUICEGATE_API_KEY", raising=False)
    assert "unauthenticated: send an API key" in run("list", *url).output
    monkeypatch.setenv("SLUICEGATE_API_KEY", ADMIN)
    reader = run("create", "reader", "--role", "read", *url).stdout.strip()
    monkeypatch.setenv("SLUICEGATE_API_KEY", reader)
    done = run("list", *url)
    assert done.exit_code == 1
    assert "forbidden: this takes the role admin; the key has read" in done.output


def test_a_generated_key_is_stored_nowhere(fleet: Fleet):
    """It is what services are given, in a Secret."""
    key = run("generate").stdout.strip()
    assert credentials.read(key) is not None
    assert id_of(key) not in run("list", "--redis-url", fleet.store).stdout
