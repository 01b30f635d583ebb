"""What operators type, against running services: in pipes, and in a terminal."""

import contextlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until
from typer.testing import CliRunner, Result

from limiter_service.cli import app

CONFIG = """
pools:
  p:
    models:
      m:
        limits:
          - {name: budget, meter: tokens, limit: 1000, per: 366d}
          - {name: trial, meter: tokens, limit: 100, per: 366d, mode: shadow}
      one: {limits: [{name: slot, meter: concurrency, limit: 1}]}
    tenants:
      shop: {limits: [{name: own, meter: tokens, limit: 50, per: 366d}]}
"""


class Operator:
    """Somebody at a command line, and the service that it is about."""

    def __init__(self, url: str, file: Path) -> None:
        self.url, self.file = url, file

    def types(self, *words: str, url: str | None = None) -> Result:
        """A command, told where the service is by the environment."""
        runner = CliRunner(env={"SLUICEGATE_URL": url or self.url})
        return runner.invoke(app, list(words))

    def reads(self, *words: str) -> str:
        """What a command prints that has to go well."""
        done = self.types(*words)
        assert done.exit_code == 0, done.output
        return done.output

    def json(self, *words: str) -> Any:
        """The same as data."""
        return json.loads(self.reads(*words, "--output", "json"))

    def take(self, tokens: int, resource: str = "p/m", **fields: object) -> httpx.Response:
        """An acquire."""
        body = {"resource": resource, "tokens": tokens} | fields
        return httpx.post(f"{self.url}/v1/acquire", json=body, timeout=20)


@pytest.fixture(scope="module")
def service(own_store: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One service for all tests, since it starts slowly."""
    file = tmp_path_factory.mktemp("operators") / "pools.yaml"
    file.write_text(CONFIG)
    with ServiceProcess("--config", str(file), "--redis-url", own_store.url) as running:
        yield Operator(running.url, file)


@pytest.fixture
def operator(service: Operator, own_store: Server) -> Iterator[Operator]:
    """The service with an empty store and its first file."""
    httpx.get(f"{service.url}/v1/stats", timeout=20)  # what was counted before is told now
    with redis.Redis(unix_socket_path=str(own_store.socket)) as store:
        store.flushall()

    def ready() -> bool:
        """It has seen that nothing is ordered any more, and has given a sign of life since."""
        cards = httpx.get(f"{service.url}/v1/replicas").json()["replicas"]
        return {(c["draining"], c["log_level"]) for c in cards} == {(False, "info")}

    wait_until(ready, "the service does not come to itself")
    yield service
    service.file.write_text(CONFIG)
    httpx.post(f"{service.url}/v1/config/reload", json={}, timeout=20).raise_for_status()


def test_limits_are_listed_held_and_let_go(operator: Operator):
    """The life of an override, as an operator types it."""
    operator.take(400)
    row = next(line for line in operator.reads("limits", "ls").splitlines() if "m.budget" in line)
    assert row.split()[:5] == ["p/m", "m.budget", "tokens", "600", "1,000"]
    said = operator.reads("limits", "set", "p/m", "budget", "500", "--ttl", "1h", "--reason", "dry")
    assert said.startswith("p/m m.budget: 500 of 500 left; in force: held by anonymous until 20")
    assert ": dry" in said
    (view,) = [each for each in operator.json("limits", "ls", "p/m")["limits"] if each["override"]]
    assert (view["limit"], view["configured"]) == (500, 1000)
    assert "in force: the file" in operator.reads("limits", "clear", "p/m", "m.budget")
    listed = operator.reads("limits", "ls", "p/m", "--tenant", "shop")
    assert "shop.own" in listed
    assert "shadow: never refuses" in listed


def test_the_file_is_tried_reloaded_and_shown(operator: Operator):
    """First the answer of a dry run, then the same from the reload."""
    other = operator.file.with_name("other.yaml")
    other.write_text(CONFIG.replace("limit: 1000", "limit: 2000"))
    told = operator.json("config", "validate", str(other))
    assert told["valid"]
    assert "pools.p.models.m.limits[budget].limit" in operator.reads(
        "config", "validate", str(other)
    )
    other.rename(operator.file)
    assert operator.json("config", "reload")["version"] == told["version"]
    assert "version " + told["version"] in operator.reads("config", "show")
    assert "as before" in operator.reads("config", "reload", "--reason", "again")


def test_a_bad_file_is_found_and_refused_with_every_problem(operator: Operator):
    """3 where it was looked for, 1 where it was refused; what runs goes on."""
    operator.file.write_text("pools: {p: {modles: {}, rpm: -1}}")
    tried = operator.types("config", "validate", str(operator.file))
    assert tried.exit_code == 3
    refused = operator.types("config", "reload")
    assert refused.exit_code == 1
    shown = operator.types("config", "show")
    assert shown.exit_code == 3
    for done in (tried, refused, shown):
        assert "pools.p.modles: unknown key; did you mean models?" in done.output
        assert "pools.p.rpm: -1" in done.output
    listed = operator.types("replicas")
    assert listed.exit_code == 3
    assert "refuses its file" in listed.output
    assert operator.take(1).status_code == 200


def test_a_fleet_is_drained_and_taken_up_again(operator: Operator):
    """The command returns when the order is obeyed, so the next line of a script may rely on it."""
    said = operator.reads("drain", "--ttl", "10m", "--reason", "move")
    assert "draining" in said
    assert "drain draining for all, by anonymous until 20" in said
    assert operator.take(1).status_code == 503
    status = operator.types("status")
    assert status.exit_code == 3
    assert "not ready: shutting_down: this replica is drained by anonymous: move" in status.output
    assert "serving" in operator.reads("undrain", "--reason", "moved")
    assert operator.take(1).status_code == 200


def test_one_replica_is_drained_by_its_name(operator: Operator):
    """And an undrain of all says that its order still holds."""
    (card,) = operator.json("replicas")["replicas"]
    operator.reads("drain", "--replica", card["name"], "--until-cleared")
    done = operator.types("undrain")
    assert f"note: orders to {card['name']} still hold" in done.output
    assert operator.json("undrain", "--replica", card["name"])["orders"] == []


def test_the_log_level_is_changed_for_a_while(operator: Operator):
    """And comes back."""
    said = operator.reads("log-level", "debug", "--ttl", "5m")
    assert "log level debug for all" in said
    (card,) = operator.json("replicas")["replicas"]
    assert card["log_level"] == "debug"
    assert operator.json("log-level", "--clear")["orders"] == []


def test_a_queue_is_shown(operator: Operator):
    """Who waits, for what, and the forecast."""
    assert operator.reads("queue") == "p: nobody waits\n"
    operator.take(1, "p/one")
    waiting = operator.take(1, "p/one", max_wait=100, hold=0, request_id="r", tenant="shop")
    assert waiting.status_code == 202
    shown = operator.reads("queue", "p")
    assert "p: 1 of 10000 wait" in shown
    assert shown.splitlines()[2].split()[:4] == ["p/one", "shop", "5", "1"]
    assert operator.json("queue")["pools"][0]["depth"] == 1
    assert "p: 1 of 10000 wait" in operator.reads("status")


@pytest.mark.parametrize(
    ("taken", "words", "said"),
    [
        (0, ("p/m", "--tokens", "10"), "would be granted now"),
        (1000, ("p/m", "--tokens", "10"), "would be refused now: m.budget has 0 left"),
        (990, ("p/m", "--tokens", "20"), "a call of at most 10 tokens fits now"),
        (0, ("p/m", "--tokens", "2000"), "refused for ever: it needs more than m.budget has"),
        (0, ("p/m", "--tokens", "60", "--tenant", "shop"), "more than shop.own has (50)"),
        (60, ("p/m", "--tokens", "50"), "with its shadow limits enforced it would be refused"),
        (0, ("p/m", "--input-tokens", "5", "--max-output-tokens", "5"), "at most 5 written"),
    ],
)
def test_an_answer_is_explained(operator: Operator, taken: int, words: tuple[str, ...], said: str):
    """What would happen, which limit decides, what is left; and nothing is charged."""
    if taken:
        operator.take(taken)
    shown = operator.reads("explain", *words)
    assert said in shown
    assert "m.budget  all calls of the model" in shown
    left = httpx.get(f"{operator.url}/v1/resources/p/m").json()["limits"][0]["remaining"]
    assert left == 1000 - taken
    assert operator.json("explain", *words)["check"]["limits"]


def test_an_open_breaker_is_explained(operator: Operator):
    """With the command that shows more."""
    operator.reads("breakers", "open", "p/m", "--ttl", "60", "--reason", "drill")
    shown = operator.reads("explain", "p/m", "--tokens", "1")
    assert "would be refused: the breaker is open (forced_open) for" in shown
    assert "see `sluicegate breakers show p/m`" in shown


def test_who_waits_is_part_of_the_explanation(operator: Operator):
    """There is room, and it is for somebody else."""
    operator.take(1, "p/one")
    operator.take(1, "p/one", max_wait=100, hold=0, request_id="r")
    shown = operator.reads("explain", "p/one", "--tokens", "1")
    assert "would be refused now: one.slot has 0 left" in shown
    assert "1 wait in this pool, the oldest for" in shown
    assert "fits now, and 1 wait in this pool" in operator.reads("explain", "p/m", "--tokens", "1")


def test_statistics_are_shown(operator: Operator):
    """What was used, in columns."""
    lease = operator.take(10).json()["lease"]
    usage = {"input_tokens": 7, "output_tokens": 2}
    httpx.post(f"{operator.url}/v1/settle", json={"lease": lease, "usage": usage})
    shown = operator.reads("stats")
    assert "Usage and cost" in shown
    assert "INPUT TOKENS" in shown
    assert operator.json("stats")["costs"][0]["input_tokens"] == 7
    steps = operator.reads("stats", "--series", "--since", "1m")
    rows = [line.split() for line in steps.splitlines() if line[:2] == "20"]
    assert len(rows) == 13
    assert sum(int(row[5]) for row in rows) == 7
    assert len(operator.json("stats", "--series")["series"]) == 1


def test_events_are_told_and_can_be_gone_on_from(operator: Operator):
    """All there are, of some types, or after one of them."""
    operator.reads("breakers", "open", "p/m", "--ttl", "60", "--reason", "drill")
    operator.reads("log-level", "info", "--ttl", "60", "--no-wait")
    shown = operator.reads("events")
    assert "override  p/m  none -> open  by anonymous" in shown
    assert "log_level  *  none -> info  for 1 min 0 s  by anonymous" in shown
    lines = operator.reads("events", "--output", "json").splitlines()
    told = [json.loads(line) for line in lines]
    assert {event["type"] for event in told} == {"override", "log_level"}
    after = operator.reads("events", "--after", told[0]["id"], "--output", "json").splitlines()
    assert after == lines[1:]
    assert "override" not in operator.reads("events", "--type", "log_level")


def heeds_interrupts() -> None:
    """A shell lets what it runs in the background ignore Ctrl-C, and so would we."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def at_a_terminal() -> None:
    """Ctrl-C is a signal there."""
    heeds_interrupts()
    ioctl(0, termios.TIOCSCTTY, 0)


class Command:
    """A command as a process: in a pipe, or in a terminal of some width."""

    def __init__(self, url: str, *words: str, columns: int | None = None) -> None:
        command = [sys.executable, "-m", "limiter_service", *words]
        env = {**os.environ, "SLUICEGATE_URL": url, "TERM": "xterm"}
        env.pop("COLUMNS", None)
        self.shown = ""
        if columns is None:
            self.process = subprocess.Popen(
                command,
                env=env,
                stdout=subprocess.PIPE,
                preexec_fn=heeds_interrupts,  # noqa: PLW1509  # one call of the system
            )
            assert self.process.stdout is not None
            self.keyboard, self._screen = -1, self.process.stdout.fileno()
        else:
            self.keyboard, terminal = pty.openpty()
            ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
            self.process = subprocess.Popen(
                command,
                env=env,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
                preexec_fn=at_a_terminal,  # noqa: PLW1509  # two calls of the system
            )
            os.close(terminal)
            self._screen = self.keyboard

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.keyboard >= 0:
            os.close(self.keyboard)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def says(self, text: str) -> None:
        """Wait until *text* has been shown."""

        def seen() -> bool:
            ready, _, _ = select.select([self._screen], [], [], 0.05)
            if ready:
                with contextlib.suppress(OSError):  # a terminal whose last user has gone
                    self.shown += os.read(self._screen, 65536).decode(errors="replace")
            return text in self.shown

        wait_until(seen, f"{text!r} is not shown: {self.shown[-2000:]!r}", 30)

    def ends(self) -> int:
        """The exit code."""
        return self.process.wait(50)


@pytest.mark.parametrize("leave", ["q", "ctrl-c"])
def test_top_is_live_in_a_terminal_and_ends_when_asked(operator: Operator, leave: str):
    """It shows what changes; the terminal is as it was afterwards."""
    with Command(operator.url, "top", "--interval", "0.2", columns=120) as top:
        before = termios.tcgetattr(top.keyboard)
        top.says("p/m")
        top.says("1,000")
        operator.take(250)
        top.says("750")
        os.write(top.keyboard, b"q" if leave == "q" else b"\x03")
        assert top.ends() == 0
        assert termios.tcgetattr(top.keyboard) == before


def test_top_fits_a_narrow_terminal(operator: Operator):
    """Fewer columns, none of them wrapped."""
    with Command(operator.url, "top", columns=40) as top:
        top.says("m.budget")
        os.write(top.keyboard, b"q")
        assert top.ends() == 0
    assert "FULL IN" not in top.shown
    assert "USED" in top.shown


def test_top_goes_on_when_the_service_is_away(valkey: Server, write_config: Callable[[str], Path]):
    """The last look stays, with what is wrong."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", valkey.url)
    with (
        ServiceProcess(*arguments) as service,
        Command(service.url, "top", "--interval", "0.2", columns=120) as top,
    ):
        top.says("m.budget")
        service.stop()
        top.says("cannot be reached")
        os.write(top.keyboard, b"q")
        assert top.ends() == 0


def test_top_in_a_pipe_is_one_look(operator: Operator):
    """Whole names, no codes for a terminal."""
    operator.take(250)
    shown = operator.reads("top")
    assert "\x1b" not in shown
    row = next(line for line in shown.splitlines() if "m.budget" in line)
    assert row.split()[1:5] == ["#####...............", "25%", "750", "1,000"]
    assert operator.json("top")["fleet"]["agreed"]


def test_events_are_followed_over_a_restart(valkey: Server, write_config: Callable[[str], Path]):
    """Whoever follows misses nothing, and hears nothing twice."""
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", valkey.url)
    order = {"mode": "open", "ttl": 60}
    with ServiceProcess(*arguments) as service:
        port = service.url.rpartition(":")[2]
        with Command(service.url, "events", "--follow", "--output", "json") as events:
            stop = threading.Event()

            def orders() -> None:
                """Until one of them is heard: when it listens nobody knows."""
                while not stop.is_set():
                    httpx.put(f"{service.url}/v1/breakers/p/m/override", json=order, timeout=20)
                    stop.wait(0.05)

            thread = threading.Thread(target=orders)
            thread.start()
            try:
                events.says('"override"')
            finally:
                stop.set()
                thread.join()
            service.stop()
            with ServiceProcess(*arguments, "--port", port) as again:
                change = order | {"mode": "closed", "reason": "meanwhile"}
                answer = httpx.put(f"{again.url}/v1/breakers/p/m/override", json=change, timeout=20)
                assert answer.status_code == 200
                events.says('"meanwhile"')
                events.process.send_signal(signal.SIGINT)
                assert events.ends() == 0
    told = [json.loads(line) for line in events.shown.splitlines()]
    assert len({event["id"] for event in told}) == len(told)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("limits", "set", "p/m", "budget", "5"), 2, "say for how long: --ttl 10m"),
        (("limits", "set", "m", "budget", "5", "--ttl", "1"), 2, "give it as pool/model"),
        (("limits", "set", "p/m", "nope", "5", "--ttl", "1"), 1, "p/m has: m.budget, m.trial"),
        (("limits", "ls", "p/nope"), 1, "configured models: m, one"),
        (("limits", "ls", "nope/m"), 1, "configured pools: p"),
        (("drain", "--ttl", "5", "--replica", "nobody"), 1, "no replica 'nobody' lives; there are"),
        (("drain",), 2, "say for how long"),
        (("log-level", "loud", "--ttl", "5"), 2, "there are: debug, info, warning, error"),
        (("log-level",), 2, "say one of: a level"),
        (("explain", "p/m"), 2, "say how large the call is"),
        (("explain", "p/m", "--tokens", "5", "--max-output-tokens", "5"), 2, "goes with"),
        (("explain", "p/nope", "--tokens", "5"), 1, "configured models: m, one"),
        (("queue", "nope"), 1, "configured pools: p"),
        (("config", "validate", "/nowhere.yaml"), 2, "/nowhere.yaml cannot be read"),
        (("config", "validate", "pools.ini"), 2, "allowed: .yaml, .yml, .toml, .json"),
        (("stats", "--since", "soon"), 2, "'soon' is no duration"),
    ],
)
def test_what_cannot_be_done_names_the_thing_and_what_is_allowed(
    operator: Operator, words: tuple[str, ...], code: int, said: str
):
    """2 for what was typed wrong, 1 for what the service refused."""
    done = operator.types(*words)
    assert done.exit_code == code, done.output
    assert said in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("top",),
        ("queue",),
        ("limits", "ls"),
        ("stats",),
        ("events",),
        ("events", "--follow"),
        ("explain", "p/m", "--tokens", "1"),
        ("replicas",),
        ("config", "show"),
    ],
)
def test_a_service_that_is_away_is_told_with_what_to_do(words: tuple[str, ...]):
    """1, where it was looked for, and how to say another place."""
    done = CliRunner().invoke(app, [*words, "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "the service at http://127.0.0.1:1 cannot be reached" in done.output
    assert "--url, SLUICEGATE_URL" in done.output


def test_an_address_without_a_scheme_is_told():
    """The commonest way to type it wrong."""
    done = CliRunner().invoke(app, ["status", "--url", "127.0.0.1:8080"])
    assert done.exit_code == 2
    assert "give it as http://host:port" in done.output


def test_every_command_of_operators_has_an_example():
    """What to type is the first thing that people look for."""
    groups = {"limits": ("ls", "set", "clear"), "config": ("show", "validate", "reload")}
    verbs = [(group, verb) for group, inner in groups.items() for verb in inner]
    alone = ["status", "top", "explain", "queue", "stats", "events", "replicas", "drain", "undrain"]
    for words in [*verbs, *((verb,) for verb in alone)]:
        done = CliRunner().invoke(app, [*words, "--help"])
        assert "Example: sluicegate" in " ".join(done.output.split()), words
