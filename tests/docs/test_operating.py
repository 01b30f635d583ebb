"""docs/guides/operating.md: the ACL user that it gives is enough, and no more than enough."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until

from limiter_service.store import acl

ROOT = Path(__file__).parents[2]
POOLS = """
pools:
  p:
    models:
      m: {tpm: 1000, concurrency: 2}
"""


def acl_user() -> list[str]:
    """Name and rules of the user on the page."""
    page = (ROOT / "docs" / "guides" / "operating.md").read_text()
    (line,) = re.findall(r"^user (.+)$", page, re.MULTILINE)
    return str(line).split()


def test_the_page_has_the_rules_that_the_service_prints() -> None:
    """They follow from the scripts, so a new command of a script shows here."""
    assert ["user", *acl_user()] == acl.line("sluicegate", "secret", acl.rules()).split()
    page = (ROOT / "docs" / "guides" / "operating.md").read_text()
    assert " ".join(f"+{name}" for name in acl.CLUSTER) in page


@pytest.fixture
def user(server: Server, db: redis.Redis) -> Iterator[str]:
    """The store's URL for the page's user."""
    name, *rules = acl_user()
    db.execute_command("ACL", "SETUSER", name, "reset", *rules)
    (password,) = [rule[1:] for rule in rules if rule.startswith(">")]
    yield f"unix://{name}:{password}@{server.socket}"
    db.acl_deluser(name)


def test_the_user_is_enough_to_serve(user: str, tmp_path: Path) -> None:
    """Every operation is answered, with slots to hold and to give back."""
    pools = tmp_path / "pools.yaml"
    pools.write_text(POOLS)
    with (
        ServiceProcess("--config", str(pools), "--redis-url", user) as service,
        httpx.Client(base_url=service.url) as client,
    ):
        assert client.get("/readyz").status_code == 200
        lease = {}
        ask = {"resource": "p/m", "tokens": 100}
        for path, body in [
            ("/v1/check", ask),
            ("/v1/acquire", ask),
            ("/v1/renew", lease),
            ("/v1/settle", lease),
        ]:
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            lease["lease"] = answer.json().get("lease", lease.get("lease"))
        assert client.get("/v1/resources/p/m").json()["in_flight"] == 0


def test_the_user_is_enough_to_wait(user: str, db: redis.Redis, tmp_path: Path) -> None:
    """Callers stand in the queue, are told, leave it, and nothing that it takes is denied."""
    pools = tmp_path / "pools.yaml"
    pools.write_text(POOLS.replace("concurrency: 2", "concurrency: 1"))
    db.execute_command("ACL", "LOG", "RESET")
    with (
        ServiceProcess("--config", str(pools), "--redis-url", user) as service,
        httpx.Client(base_url=service.url, timeout=30) as client,
        ThreadPoolExecutor() as threads,
    ):
        ask = {"resource": "p/m", "tokens": 100}
        lease = client.post("/v1/acquire", json=ask).json()["lease"]
        waiting = {**ask, "max_wait": 50, "request_id": "r1"}
        answer = threads.submit(client.post, "/v1/acquire", json=waiting)
        wait_until(lambda: client.get("/v1/queue/p").json()["depth"] == 1, "nobody waits")
        wait_until(lambda: b"sg:{p}:q:hints" in db.pubsub_channels(), "nobody listens")
        leaving = {**ask, "request_id": "r2"}
        for max_wait, status in ((50, 202), (0, 429)):
            body = {**leaving, "max_wait": max_wait, "hold": 0}
            assert client.post("/v1/acquire", json=body).status_code == status
        assert client.post("/v1/settle", json={"lease": lease}).status_code == 200
        assert answer.result().status_code == 200
        assert client.get("/v1/queue/p").json()["depth"] == 0
    assert [entry["object"] for entry in db.acl_log()] == []
