"""A service under fire answers no request with a failure, and logs none."""

import itertools
from pathlib import Path

import httpx
import pytest
from bad_requests import Generator, Sender
from tests_support.keys import ADMIN, bearer
from tests_support.servers import Server
from tests_support.service import ServiceProcess

CONFIG = """
pools:
  good: {models: {m: {rpm: 10000000}}}
  bad:
    models: {m: {rpm: 10000000, tpm: 10000000}, "*": {rpm: 100000}}
    tenants: {"*": {tpm: 100000}}
"""
GOOD = {"resource": "good/m", "tokens": 1}
COUNT = 400


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])
async def test_bad_requests_are_refused_and_harm_nobody(valkey: Server, tmp_path: Path, keys: bool):
    """Drawn from a seed; `benchmarks/abuse.py` sends more of them."""
    config, log = tmp_path / "pools.yaml", tmp_path / "log"
    config.write_text(CONFIG)
    env = {"SLUICEGATE_BODY_TIMEOUT": "1"}
    env |= {"SLUICEGATE_ADMIN_KEY": ADMIN} if keys else {}
    sent = (ADMIN, None, "nonsense") if keys else (None,)
    headers = bearer(ADMIN) if keys else {}
    arguments = ("--config", str(config), "--redis-url", valkey.url)
    with log.open("w") as errors, ServiceProcess(*arguments, env=env, stderr=errors) as running:
        sender = Sender(running.url)
        async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=20) as client:
            for number, bad in enumerate(itertools.islice(Generator(7, sent), COUNT)):
                answer = await sender.send(bad)
                assert not answer.is_failure, (bad, answer)
                if number % 20 == 0:
                    good = await client.post("/v1/acquire", json=GOOD)
                    assert good.status_code == 200, good.text
        sender.close()
    assert "Traceback" not in log.read_text()


def test_the_same_seed_draws_the_same_requests():
    """What was found can be sent again; and every kind is drawn."""
    first, second = (list(itertools.islice(Generator(1, ("k", None)), 300)) for _ in range(2))
    assert first == second
    assert len({each.kind for each in first}) == 10
