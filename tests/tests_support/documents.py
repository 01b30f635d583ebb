"""Execute the code blocks of the documents, as a reader would who copies them one by one.

python   runs alone, against a real service with the configuration shown above it, and against
         a simulated provider
yaml     is a pools file, and good (toml likewise); below `# values.yaml`, values of the chart
bash     `curl` runs against the service; other commands and their options exist
json     has the shape of the answer to the `curl` above it
text     is for people
"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import typer
import yaml
from sybil import Example
from typer.testing import CliRunner

from limiter_service.cli import app
from limiter_service.config import parse
from limiter_service.settings import unknown
from tests_support import chart
from tests_support.provider import ProviderThread
from tests_support.service import ServiceProcess

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8080"
"""Where the documents say that the service listens; here it is on a free port."""
PROVIDER = "http://127.0.0.1:9090"
"""Where they say that the simulated provider listens."""
STATE = "~/.local/state/sluicegate"
"""Where the documents say that the embedded store lives; here it is a temporary directory."""

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block of a document."""

    language: str
    source: str
    end: int


class Running(NamedTuple):
    """A service that was started for a configuration."""

    url: str
    state: Path


class Services:
    """`sluicegate serve` as a process, for each document and configuration that it shows."""

    def __init__(self, home: Path) -> None:
        self._home, self._stack = home, ExitStack()
        self._running: dict[tuple[str, str], Running] = {}
        self._provider: ProviderThread | None = None

    def serving(self, document: str, configuration: str) -> Running:
        """The service with this pools file, started when it is first asked for."""
        key = document, configuration
        if key not in self._running:
            directory = self._home / str(len(self._running))
            directory.mkdir()
            pools = directory / "pools.yaml"
            pools.write_text(configuration)
            arguments = ("--config", str(pools), "--state-dir", str(directory))
            process = self._stack.enter_context(ServiceProcess(*arguments))
            self._running[key] = Running(process.url, directory)
        return self._running[key]

    def provider(self) -> str:
        """The URL of a simulated provider, started when it is first asked for."""
        if self._provider is None:
            self._provider = self._stack.enter_context(ProviderThread())
        return self._provider.url

    def close(self) -> None:
        """Stop every service."""
        self._stack.close()


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    return [Block(m[2], _dedented(m[3], len(m[1])), m.end()) for m in _FENCE.finditer(text)]


def _dedented(source: str, width: int) -> str:
    return "".join(line[width:] for line in source.splitlines(keepends=True))


def is_pools_file(block: Block) -> bool:
    """Whether a block is a configuration as a whole."""
    return block.language == "yaml" and block.source.startswith("pools:")


def configuration(example: Example) -> str:
    """The pools file that a reader has in mind: the last one above, else the README's."""
    above = [b for b in blocks(example.document.text[: example.start]) if is_pools_file(b)]
    if above:
        return above[-1].source
    return next(b.source for b in blocks((ROOT / "README.md").read_text()) if is_pools_file(b))


def run_python(example: Example) -> None:
    """Execute the block alone: it may be copied without the ones above it."""
    source = str(example.parsed)
    assert "Limiter()" not in source, f"say where the service is: {ADDRESS}"
    if PROVIDER in source:
        services: Services = example.namespace["services"]
        source = source.replace(PROVIDER, services.provider())
    if ADDRESS in source or STATE in source:
        source = _here(source, _service(example))
    code = compile("\n" * example.line + source, example.path, "exec")
    exec(code, {"__name__": "__main__"})


def check_yaml(example: Example) -> None:
    """Parse a pools file, or have the chart take values."""
    if str(example.parsed).startswith("# values.yaml"):
        if chart.helm():
            chart.text(yaml.safe_load(str(example.parsed)))
        return
    parse(str(example.parsed), ".yaml", f"{example.path}:{example.line}")


def check_toml(example: Example) -> None:
    """Parse a pools file."""
    parse(str(example.parsed), ".toml", f"{example.path}:{example.line}")


def check_json(example: Example) -> None:
    """Send the `curl` above again and compare the shape of its answer."""
    above = [b for b in blocks(example.document.text[: example.start]) if "curl " in b.source]
    assert above, "a json block shows the answer to the curl command above it"
    _compare(json.loads(example.parsed), _curl(above[-1].source, example), "$")


def _compare(shown: Any, real: Any, path: str) -> None:
    # 200 may be answered as 200.0; true is no number.
    numbers = {type(shown), type(real)} <= {int, float}
    assert numbers or type(shown) is type(real), f"{path}: {shown!r} is shown, {real!r} answered"
    if isinstance(shown, dict):
        for key, value in shown.items():
            assert key in real, f"{path}.{key} is shown and not answered: {real}"
            _compare(value, real[key], f"{path}.{key}")
    elif isinstance(shown, list):
        for i, (one, other) in enumerate(zip(shown, real, strict=False)):
            _compare(one, other, f"{path}[{i}]")


def run_bash(example: Example) -> None:
    """Run a block with `curl`; look up the commands of any other."""
    source = str(example.parsed)
    if "curl " in source:
        answer = _curl(source, example)
        assert answer.get("status") not in {400, 404, 405, 415}, answer
        return
    for line in source.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            _check_command(words, example)


def _curl(source: str, example: Example) -> Any:
    command = ["bash", "-euo", "pipefail", "-c", _here(source, _service(example))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _check_command(words: list[str], example: Example) -> None:
    assignments = [word.partition("=")[0] for word in words if re.match(r"[A-Z_]+=", word)]
    assert unknown(dict.fromkeys(assignments, "")) == []
    words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    match words:
        case ["sluicegate", verb, *rest]:
            _check_verb(verb, rest)
            if verb == "check-config":
                _check_config(configuration(example))
        case ["make", target]:
            makefile = (ROOT / "Makefile").read_text()
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"
        case ["pip", "install", what]:
            _check_extra(what)
        case ["helm", "install" | "upgrade" | "test" | "lint" | "template", *rest]:
            _check_chart(rest)
        case ["kubectl", "create" | "get" | "rollout" | "port-forward" | "logs", *_]:
            pass
        case ["docker", "build" | "compose" | "run" | "tag" | "push", *_]:
            pass
        case _:
            raise AssertionError(f"nothing here can check {shlex.join(words)!r}")


def _check_verb(verb: str, words: list[str]) -> None:
    command = typer.main.get_command(app)
    verbs, rest = [verb], list(words)
    while True:
        assert verbs[-1] in command.commands, f"sluicegate has no {' '.join(verbs)}"  # type: ignore[attr-defined]  # a group
        command = command.commands[verbs[-1]]  # type: ignore[attr-defined]  # a group
        if not hasattr(command, "commands"):
            break
        verbs.append(rest.pop(0))
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    options = {word.partition("=")[0] for word in rest if word.startswith("-")}
    assert options <= known | {"--help", "-h"}, f"sluicegate {verb} has no {options - known}"
    assert CliRunner().invoke(app, [*verbs, "--help"]).exit_code == 0


def _check_config(text: str) -> None:
    with TemporaryDirectory() as directory:
        pools = Path(directory) / "pools.yaml"
        pools.write_text(text)
        done = CliRunner().invoke(app, ["check-config", str(pools)])
    assert done.exit_code == 0, done.output


def _check_extra(what: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, _, extras = what.rstrip("]").partition("[")
    assert name == project["name"]
    assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


def _check_chart(words: list[str]) -> None:
    """The chart that is named is there, and takes the values that are set."""
    for word in words:
        if word.startswith("helm/"):
            assert (ROOT / word / "Chart.yaml").is_file(), f"there is no chart {word}"
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    if chart.helm():
        chart.run("template", str(chart.CHART), *(w for g in given for w in ("--set", g)))


def _service(example: Example) -> Running:
    services: Services = example.namespace["services"]
    return services.serving(str(example.path), configuration(example))


def _here(source: str, service: Running) -> str:
    found = source.replace(ADDRESS, service.url).replace(STATE, str(service.state))
    return found.replace("python3 ", f"{shlex.quote(sys.executable)} ")
