"""Drain, log level, reload: ordered at one replica, obeyed by every one."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests_support.calls import problem
from tests_support.queue import Callers, poll
from tests_support.servers import Server
from tests_support.service import http_client, in_process
from tests_support.waiting import until

from limiter_service.engine.fleet import BEAT

POOLS = """
pools:
  p: {models: {m: {tpm: 1000, concurrency: 4}}}
"""
SLOW = "pools: {p: {models: {m: {limits: [{name: t, meter: tokens, limit: 1000, per: 366d}]}}}}"
ASK = {"resource": "p/m", "tokens": 10}

Answer = dict[str, Any]


class Replica:
    """A replica with a pools file of its own, as a pod has it."""

    def __init__(self, client: httpx.AsyncClient, file: Path) -> None:
        self.client, self.file = client, file

    async def call(self, method: str, path: str, **given: Any) -> Answer:
        """What a route answers that has to."""
        answer = await self.client.request(method, path, **given)
        assert answer.status_code == 200, answer.text
        found: Answer = answer.json()
        return found

    async def fleet(self) -> Answer:
        """Every replica as this one sees them."""
        return await self.call("GET", "/v1/replicas")

    async def events(self) -> list[Answer]:
        """What has happened to replicas."""
        headers = {"last-event-id": "0"}
        answer = await self.client.get("/v1/events?follow=false", headers=headers)
        return [event for event in _events(answer.text) if "replica" in event]


def _events(text: str) -> list[Answer]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line[:5] == "data:"]
    return [httpx.Response(200, text=line).json() for line in lines]


Fleet = list[Replica]


@pytest.fixture
async def fleet(db: redis.Redis, server: Server, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two replicas over one store."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for name in ("one", "two"):
            file = tmp_path / name / "pools.yaml"
            file.parent.mkdir()
            file.write_text(POOLS)
            app = await stack.enter_async_context(in_process(server.url, file))
            found.append(Replica(await stack.enter_async_context(http_client(app)), file))
        yield found


async def all_of(fleet: Fleet, holds: Callable[[Answer], bool], message: str) -> None:
    """Wait until something holds of every replica's card."""

    async def reached() -> bool:
        cards = (await fleet[0].fleet())["replicas"]
        return len(cards) == len(fleet) and all(map(holds, cards))

    await until(reached, message)


def test_a_look_comes_twice_within_the_second_that_is_promised():
    """Messages may be lost; looking is the guarantee."""
    assert 2 * BEAT <= 1


async def test_a_drained_fleet_grants_nothing_new_and_takes_settles(fleet: Fleet):
    """What is granted can be reported; readiness fails, so that traffic goes elsewhere."""
    one, two = fleet
    lease = (await one.call("POST", "/v1/acquire", json=ASK))["lease"]
    order = {"ttl": 60, "reason": "move"}
    view = await one.call("PUT", "/v1/drain", json=order)
    (told,) = view["orders"]
    assert (told["kind"], told["replica"], told["actor"]) == ("drain", "*", "anonymous")
    assert told["until"] - told["since"] == pytest.approx(60)
    await all_of(fleet, lambda card: card["draining"], "a replica does not drain")
    for replica in fleet:
        refused = await replica.client.post("/v1/acquire", json=ASK)
        detail = problem(refused, 503, "shutting_down")["detail"]
        assert "drained by anonymous: move" in detail
        assert refused.headers["retry-after"] == "1"
        problem(await replica.client.get("/readyz"), 503, "shutting_down")
        assert (await replica.client.get("/livez")).status_code == 200
    batch = {"ops": [{"op": "acquire", **ASK}, {"op": "settle", "lease": lease}]}
    results = (await two.call("POST", "/v1/batch", json=batch))["results"]
    assert [each["status"] for each in results] == [503, 200]
    assert (await two.call("POST", "/v1/check", json=ASK))["would_grant"]
    await two.call("DELETE", "/v1/drain", params={"reason": "moved"})
    await all_of(fleet, lambda card: not card["draining"], "a replica goes on draining")
    for replica in fleet:
        await replica.call("POST", "/v1/acquire", json=ASK)
        await replica.call("GET", "/readyz")
    events = [each for each in await one.events() if each["type"] == "drain"]
    assert [(e["from"], e["to"], e["reason"], e["replica"]) for e in events] == [
        ("none", "draining", "move", "*"),
        ("draining", "none", "moved", "*"),
    ]
    assert {event["actor"] for event in events} == {"anonymous"}


async def test_one_replica_is_drained_and_the_other_goes_on(fleet: Fleet):
    """An order to a name is that replica's alone, whoever is asked."""
    one, two = fleet
    name = (await two.call("GET", "/v1/config"))["replica"]
    await one.call("PUT", "/v1/drain", json={"ttl": None, "replica": name})

    async def drained() -> bool:
        return (await two.client.get("/readyz")).status_code == 503

    await until(drained, "the replica does not drain")
    assert (await one.client.get("/readyz")).status_code == 200
    await one.call("POST", "/v1/acquire", json=ASK)
    # It obeys, and then says so.
    alone = "not just that replica says that it drains"
    await all_of(fleet, lambda card: card["draining"] == (card["name"] == name), alone)
    await one.call("DELETE", "/v1/drain", params={"replica": name})
    await all_of(fleet, lambda card: not card["draining"], "the replica goes on draining")


async def test_an_order_to_nobody_names_who_lives(fleet: Fleet):
    """A typo must not look like a drain."""
    answer = await fleet[0].client.put("/v1/drain", json={"ttl": 5, "replica": "nobody"})
    names = sorted(card["name"] for card in (await fleet[0].fleet())["replicas"])
    detail = problem(answer, 422, "invalid")["detail"]
    assert detail == f"no replica 'nobody' lives; there are: {', '.join(names)}"


async def test_a_drain_ends_with_its_time(fleet: Fleet):
    """Whoever forgets it loses no replica."""
    await fleet[0].call("PUT", "/v1/drain", json={"ttl": 0.001})

    async def over() -> bool:
        return (await fleet[0].fleet())["orders"] == []

    await until(over, "the order does not end")
    await all_of(fleet, lambda card: not card["draining"], "a replica goes on draining")


async def test_who_waits_is_handed_over_and_keeps_the_place(fleet: Fleet):
    """A held caller asks another replica with the same id, and stands where it stood."""
    one, two = fleet
    lease = (await one.call("POST", "/v1/acquire", json=ASK | {"tokens": 1000}))["lease"]
    callers = Callers()
    await callers.stand(two.client, "r1", tokens=1000)
    name = (await two.call("GET", "/v1/config"))["replica"]
    await one.call("PUT", "/v1/drain", json={"ttl": 60, "replica": name})
    told = problem(await callers.answer("r1"), 503, "shutting_down")
    assert "the place is kept" in told["detail"]
    assert (await poll(one.client, "r1", tokens=1000))["queue"]["position"] == 0
    used = {"input_tokens": 0}
    await two.call("POST", "/v1/settle", json={"lease": lease, "usage": used})
    again = ASK | {"tokens": 1000, "max_wait": 100, "request_id": "r1"}
    lease = (await one.call("POST", "/v1/acquire", json=again))["lease"]
    await one.call("DELETE", "/v1/drain", params={"replica": name})
    await all_of(fleet, lambda card: not card["draining"], "the replica goes on draining")
    await callers.stand(two.client, "r2", tokens=1000)  # and it holds callers again
    await two.call("POST", "/v1/settle", json={"lease": lease, "usage": used})
    await callers.granted("r2")


async def test_the_log_level_changes_and_comes_back(fleet: Fleet):
    """For as long as the order holds."""
    one, _ = fleet
    order = {"level": "debug", "ttl": 60, "reason": "look closer"}
    await one.call("PUT", "/v1/log-level", json=order)
    await all_of(fleet, lambda card: card["log_level"] == "debug", "a replica logs as before")
    await one.call("PUT", "/v1/log-level", json=order | {"level": "error"})
    await all_of(fleet, lambda card: card["log_level"] == "error", "a replica logs as before")
    assert logging.getLogger().level == logging.ERROR
    await one.call("DELETE", "/v1/log-level")
    await all_of(fleet, lambda card: card["log_level"] == "info", "a replica logs as ordered")
    events = [each for each in await one.events() if each["type"] == "log_level"]
    assert [(e["from"], e["to"]) for e in events] == [
        ("none", "debug"),
        ("debug", "error"),
        ("error", "none"),
    ]


async def test_an_unknown_level_is_refused(fleet: Fleet):
    """With those that there are."""
    answer = await fleet[0].client.put("/v1/log-level", json={"level": "loud", "ttl": 5})
    assert "$.level" in problem(answer, 422, "invalid")["detail"]


async def test_a_reload_is_told_to_all_and_says_what_changes(fleet: Fleet):
    """The answer, the event and the versions agree."""
    one, two = fleet
    before = await two.call("GET", "/v1/config")
    assert (await one.call("GET", "/v1/config"))["version"] == before["version"]
    for replica in fleet:
        replica.file.write_text(POOLS.replace("tpm: 1000", "tpm: 2000"))
    told = await one.call("POST", "/v1/config/reload", json={"reason": "more"})
    path = "pools.p.models.m.limits[tpm].limit"
    if told["before"] != told["version"]:  # the watch may have come first
        assert told["before"] == before["version"]
        assert told["changes"] == [{"path": path, "before": 1000.0, "after": 2000.0}]
    await all_of(fleet, lambda card: card["config"] == told["version"], "a replica has the old one")
    assert (await one.fleet())["agreed"]
    after = await two.call("GET", "/v1/config")
    assert after["version"] == told["version"] != before["version"]
    assert after["config"]["pools"]["p"]["models"]["m"]["limits"][0]["limit"] == 2000
    view = await two.call("GET", "/v1/resources/p/m")
    assert view["limits"][0]["limit"] == 2000

    async def announced() -> bool:
        events = [e for e in await one.events() if e["type"] == "config_reload"]
        changed = {e["replica"] for e in events if e["from"] != e["to"] and path in e["detail"]}
        return len(changed) == 2 and "more" in {e["reason"] for e in events}

    await until(announced, "the events do not say what has changed")


async def test_calls_are_counted_as_the_file_named_their_tenants(fleet: Fleet):
    """Those before a reload, though they are read after it."""
    one, _ = fleet
    await one.call("POST", "/v1/acquire", json={**ASK, "tenant": "team"})
    one.file.write_text(f"{POOLS.rstrip()[:-1]}, tenants: {{team: {{weight: 2}}}}}}\n")
    await one.call("POST", "/v1/config/reload", json={})
    for _ in range(2):
        await one.call("POST", "/v1/acquire", json={**ASK, "tenant": "team"})
    lines = (await one.client.get("/metrics")).text.splitlines()
    assert 'sluicegate_tenant_decisions_total{code="granted",tenant="*"} 1.0' in lines
    assert 'sluicegate_tenant_decisions_total{code="granted",tenant="team"} 2.0' in lines


async def test_every_replica_reads_its_file_when_one_is_told_to(fleet: Fleet):
    """Also where no change of it was noticed, as on some network file systems."""
    one, two = fleet
    before = (await two.call("GET", "/v1/config"))["read_at"]
    await one.call("POST", "/v1/config/reload", json={})

    async def read() -> bool:
        return bool((await two.call("GET", "/v1/config"))["read_at"] > before)

    await until(read, "the other replica does not read its file")


async def test_drift_is_visible(fleet: Fleet):
    """A replica whose file lags behind is named with its version."""
    one, _ = fleet
    one.file.write_text(POOLS.replace("tpm: 1000", "tpm: 3000"))
    await one.call("POST", "/v1/config/reload", json={})

    async def seen() -> bool:
        view = await one.fleet()
        return not view["agreed"] and len({card["config"] for card in view["replicas"]}) == 2

    await until(seen, "the drift is not seen")


async def test_a_comment_is_no_other_configuration(fleet: Fleet):
    """The version is of what takes effect, not of the text."""
    one, _ = fleet
    before = (await one.call("GET", "/v1/config"))["version"]
    one.file.write_text("# a remark\n" + POOLS)
    assert (await one.call("POST", "/v1/config/reload", json={}))["version"] == before


async def test_a_bad_file_changes_nothing_and_every_problem_is_told(fleet: Fleet):
    """In the answer, in the configuration's view, in the replica's card, and as an event."""
    one, two = fleet
    before = (await one.call("GET", "/v1/config"))["version"]
    one.file.write_text("pools: {p: {modles: {}, models: {m: {rpm: -1}}}}")
    refused = await one.client.post("/v1/config/reload", json={"reason": "oops"})
    detail = problem(refused, 422, "invalid")["detail"]
    assert "2 problems" in detail
    assert "pools.p.modles: unknown key; did you mean models?" in detail
    assert "pools.p.models.m.rpm" in detail
    view = await one.call("GET", "/v1/config")
    assert view["version"] == before
    assert [fault["path"] for fault in view["faults"]] == ["pools.p.modles", "pools.p.models.m.rpm"]
    await one.call("POST", "/v1/acquire", json=ASK)

    async def visible() -> bool:
        cards = (await two.fleet())["replicas"]
        return any("modles" in (card["config_problem"] or "") for card in cards)

    await until(visible, "the other replica does not see it")
    events = [each for each in await two.events() if each["type"] == "config_refused"]
    assert {(e["count"], e["actor"]) for e in events} >= {(2, "anonymous")}
    assert "modles" in events[0]["detail"]


@pytest.mark.parametrize(
    ("text", "form", "path", "said"),
    [
        ("pools: {p: {rpm: many}}", "yaml", "pools.p.rpm", "expected"),
        ('{"pools": {"p": {"modles": {}}}}', "json", "pools.p.modles", "did you mean models?"),
        ("pools = 3", "toml", "pools", "is not a mapping"),
        ("a: &a [*a]", "yaml", "file", "an alias that contains itself"),
        ("price_file: /etc/passwd", "yaml", "price_file", "is not read for a check"),
        ("[" * 5000, "json", "file", "cannot be parsed"),
        ("[" * 5000, "yaml", "file", "cannot be parsed"),
    ],
)
async def test_a_bad_text_is_found_bad(fleet: Fleet, text: str, form: str, path: str, said: str):
    """Without a change, and without a file being read that is not in force already."""
    one, _ = fleet
    found = await one.call("POST", "/v1/config/validate", json={"text": text, "format": form})
    assert not found["valid"]
    (fault,) = found["faults"]
    assert fault["path"] == path
    assert said in fault["message"]
    assert (await one.call("GET", "/v1/config"))["faults"] == []


async def test_a_text_whose_aliases_multiply_is_refused_at_once(fleet: Fleet):
    """A kilobyte that stands for a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    body = {"text": "\n".join(lines)}
    found = await fleet[0].call("POST", "/v1/config/validate", json=body)
    assert "aliases make more than" in found["faults"][0]["message"]


async def test_a_good_text_says_what_it_would_change(fleet: Fleet):
    """Against what is in force; its version is what a reload would have."""
    one, _ = fleet
    text = POOLS.replace("concurrency: 4", "rpm: 5")
    found = await one.call("POST", "/v1/config/validate", json={"text": text})
    assert (found["valid"], found["faults"]) == (True, [])
    told = {change["path"]: (change["before"], change["after"]) for change in found["changes"]}
    assert told["pools.p.models.m.limits[concurrency].limit"] == (4.0, None)
    assert told["pools.p.models.m.limits[rpm].limit"] == (None, 5.0)
    one.file.write_text(text)
    assert (await one.call("POST", "/v1/config/reload", json={}))["version"] == found["version"]


async def test_a_configmap_that_is_swapped_is_read(fleet: Fleet):
    """Kubernetes swaps a link in the directory; the file itself is never written."""
    one, _ = fleet
    home = one.file.parent
    one.file.unlink()
    for name, tpm in (("..1", 4000), ("..2", 5000)):
        (home / name).mkdir()
        (home / name / "pools.yaml").write_text(POOLS.replace("1000", str(tpm)))
        link = home / "..new"
        link.symlink_to(name)
        link.rename(home / "..data")
        if not one.file.is_symlink():
            one.file.symlink_to("..data/pools.yaml")

        async def read(tpm: int = tpm) -> bool:
            config = (await one.call("GET", "/v1/config"))["config"]
            return bool(config["pools"]["p"]["models"]["m"]["limits"][0]["limit"] == tpm)

        await until(read, f"{name} is not read")


async def test_reloads_between_grants_give_nothing_away(fleet: Fleet):
    """Limits hold across reloads (conservation): a level moves with its limit, it is not made
    anew, and what was granted before is settled after.
    """
    granted, leases = 0, []
    for tpm in (1000, 1001, 1002, 1003):
        for replica in fleet:
            replica.file.write_text(SLOW.replace("1000", str(tpm)))
            await replica.call("POST", "/v1/config/reload", json={})
            answer = await replica.client.post("/v1/acquire", json=ASK | {"tokens": 300})
            granted += 300 * (answer.status_code == 200)
            leases += [answer.json()["lease"]] if answer.status_code == 200 else []
    assert granted == 900
    for lease in leases:
        settled = await fleet[1].call("POST", "/v1/settle", json={"lease": lease})
        assert settled["settled"]


async def test_the_fleet_forgets_a_replica_that_has_gone(
    fleet: Fleet, server: Server, tmp_path: Path
):
    """Who stops says so."""
    async with in_process(server.url, fleet[0].file):
        assert len((await fleet[0].fleet())["replicas"]) == 3
    assert len((await fleet[0].fleet())["replicas"]) == 2


async def test_a_store_that_is_away_is_told(tmp_path: Path):
    """Orders lie in the store."""
    file = tmp_path / "pools.yaml"
    file.write_text(POOLS)
    nowhere = f"unix://{tmp_path}/nobody"
    async with (
        in_process(nowhere, file, allow_anonymous=True) as app,
        http_client(app) as client,
    ):
        problem(await client.get("/v1/replicas"), 503, "store_unavailable")
        problem(await client.put("/v1/drain", json={"ttl": 5}), 503, "store_unavailable")
        assert (await client.get("/v1/config")).status_code == 200
    assert asyncio.all_tasks() == {asyncio.current_task()}
