"""Logs: JSON with ids, no secrets, and few lines when the store is away."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import structlog
from tests_support.servers import Server
from tests_support.service import PATIENT

from limiter_service.storewatch import APART, StoreWatch

CONFIG = """
pools:
  p:
    models: {m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}}
"""
SECRETS = {
    "password": "hunter2-of-the-store",
    "key": "sg_test_0123456789abcdef",
    "prompt": "Tell me the secret recipe",
    "provider key": "sk-proj-verysecret",
}


class Logged:
    """A service whose log is kept: JSON lines on stderr."""

    def __init__(self, config: Path, store: str, log: Path, level: str = "debug") -> None:
        command = [sys.executable, "-m", "limiter_service", "serve", "--port", "0"]
        command += ["--config", str(config), "--redis-url", store, "--log-level", level]
        self._log = log
        self._to = log.open("w")
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._to, text=True
        )
        self.said: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            if line.startswith("listening"):
                self.url = line.split()[-1]
                break

    def stop(self) -> list[dict[str, Any]]:
        """Every line that was logged."""
        self._process.terminate()
        assert self._process.stdout is not None
        self.said += self._process.stdout.readlines()
        self._process.stdout.close()
        assert self._process.wait(PATIENT) == 0
        self._to.close()
        return [json.loads(line) for line in self._log.read_text().splitlines()]


@pytest.fixture
def config(write_config: Callable[[str], Path]) -> Path:
    """The pools above."""
    return write_config(CONFIG)


def dead_store() -> str:
    """The URL of a store that refuses connections, with a password in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"redis://user:{SECRETS['password']}@127.0.0.1:{port}/0"


def use(url: str, count: int) -> None:
    """Calls of every kind, good and bad, with secrets wherever a caller may put some."""
    headers = {
        "authorization": f"Bearer {SECRETS['key']}",
        "x-api-key": SECRETS["provider key"],
        "cookie": f"session={SECRETS['key']}",
    }
    body = {"resource": "p/m", "tokens": 10, "messages": [{"content": SECRETS["prompt"]}]}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        for i in range(count):
            answer = client.post("/v1/acquire", json=body | {"max_wait": 0.2 * (i % 2)})
            lease = answer.json().get("lease", "x")
            report = {"lease": lease, "error": SECRETS["prompt"], "headers": {"set-cookie": "k"}}
            client.post("/v1/settle", json=report)
        broken = f'{{"resource": "p/m", "prompt": "{SECRETS["prompt"]}'
        client.post("/v1/acquire", content=broken, headers={"content-type": "application/json"})
        client.post(
            "/v1/batch", json={"ops": [{"op": "acquire", **body}, {"op": SECRETS["prompt"]}]}
        )
        client.post("/v1/acquire", json=body | {"tokens": SECRETS["prompt"]})
        client.get(f"/v1/resources/p/{SECRETS['provider key']}", params={"key": SECRETS["key"]})
        client.get("/metrics")
        client.get("/v1/stats", params={"since": SECRETS["provider key"]})


def test_no_log_has_a_secret(server: Server, db: redis.Redis, config: Path, tmp_path: Path):
    """Neither of callers nor of the store, at the level that says most."""
    for store in (server.url, dead_store()):
        service = Logged(config, store, tmp_path / "log")
        use(service.url, 5)
        lines = service.stop()
        text = "".join(service.said) + json.dumps(lines)
        assert {name: secret in text for name, secret in SECRETS.items()} == dict.fromkeys(
            SECRETS, False
        )


def test_a_store_that_is_away_is_not_told_of_with_every_call(config: Path, tmp_path: Path):
    """A hundred calls that fail are a handful of lines."""
    service = Logged(config, dead_store(), tmp_path / "log", "info")
    use(service.url, 50)  # each acquires and settles
    lines = service.stop()
    told = [line["event"] for line in lines]
    assert told.count("the store does not answer") == 1
    assert len(lines) <= 6, told


async def test_a_failure_of_ours_is_logged_with_the_id_of_its_request(
    serve: Any, monkeypatch: pytest.MonkeyPatch
):
    """Which the caller has, too; also within a batch."""
    from limiter_service.telemetry import _with_request  # noqa: PLC0415

    seen: list[Any] = []

    def keep(_logger: object, _method: str, event: Any) -> Any:
        seen.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[_with_request, keep])
    client = await serve(CONFIG)
    engine = client._transport.app._inner.state.engine

    def fails(*_: object) -> Any:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(engine, "begin", fails)
    body = {"resource": "p/m", "tokens": 1}
    headers = {"x-request-id": "asked-1"}
    answer = await client.post("/v1/acquire", json=body, headers=headers)
    assert (answer.status_code, answer.json()["request_id"]) == (500, "asked-1")
    ops = {"ops": [{"op": "acquire", **body}]}
    await client.post("/v1/batch", json=ops, headers={"x-request-id": "asked-2"})
    assert [event["request_id"] for event in seen if event["event"].endswith("failed")] == [
        "asked-1",
        "asked-2",
    ]


def test_a_store_that_comes_and_goes_is_told_of_now_and_then():
    """Each loss and its end, but no more than one in ten seconds."""
    lines: list[str] = []
    structlog.configure(processors=[lambda _l, _m, event: lines.append(event["event"]) or ""])
    now = [0.0]
    watch = StoreWatch(clock=lambda: now[0])
    for _ in range(100):
        for good in (False, False, True):
            watch.called("acquire", 0.1, good)
        now[0] += APART / 20
    gone, back = "the store does not answer", "the store answers again"
    assert lines == [gone, back] * 5
