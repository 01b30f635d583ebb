"""What tests of races share: the pools, the provider, and one circuit with its workers."""

import asyncio
import itertools
import json
import os
from typing import Any
from zlib import crc32

import httpx
import msgspec
import pytest

from tests_support.crowd import Member, Task
from tests_support.crowd_member import Call, Take
from tests_support.waiting import until

CROWD = int(os.environ.get("RACES_CROWD", "60"))
"""Workers of a stampede. RACES_CROWD=200 has more, and every kind of store there is."""

HEAVY = CROWD > 60

PATIENT = pytest.mark.timeout(180)
"""A busy machine may take its time over a crowd."""

STORES = ["valkey", "redis"] if HEAVY else ["valkey"]
"""The scripts are compared on both kinds of store elsewhere; here it is who comes first."""

_BREAKER: dict[str, object] = {
    "window": "60s",
    "min_calls": 4,
    "consecutive": 0,
    "jitter": 0,
    "open": "300ms",
    "max_open": "300ms",
    "ramp": None,
    "retry_ratio": None,
    "probes": 1,
    "successes": 2,
    "probe_ttl": "60s",
}
_BUDGET = {"name": "budget", "meter": "tokens", "limit": 100, "per": "366d"}


def _pool(limits: object = (), **breaker: object) -> dict[str, object]:
    return {"models": {"*": {"limits": limits}}, "breaker": _BREAKER | breaker}


POOLS = {
    "one": _pool(),
    "three": _pool(probes=3, successes=3),
    "long": _pool(open="60s", max_open="60s"),
    "lease": _pool(probe_ttl="500ms"),
    "patient": _pool(probe_ttl="500ms", max_lost=100),
    "tight": _pool([_BUDGET]),
    # One failure opens: every call after it is a probe.
    "fragile": _pool(min_calls=1, failure_rate=1, workers=1, open="50ms", max_open="50ms"),
    # Counts, and never opens.
    "firm": _pool(min_calls=1000, slow_ttft=1000),
    "latches": _pool(min_calls=1000, credential_failures=2),
}
"""Short times, so that tests need not wait for long; nothing depends on how fast they run."""


def pools_file() -> bytes:
    """The configuration of the replicas, as JSON."""
    return msgspec.json.encode({"pools": POOLS})


class Provider:
    """The simulator, as tests steer it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def outage(self, model: str, fault: str) -> None:
        """From now on every call of a model has this fault."""
        body = {"outages": [{"fault": fault, "model": model}]}
        (await self._http.post("/sim/faults", json=body)).raise_for_status()

    async def well(self) -> None:
        """No outage."""
        (await self._http.delete("/sim/faults")).raise_for_status()

    async def calls(self, model: str) -> int:
        """How many calls of a model have arrived."""
        answer = await self._http.get("/sim/counters")
        return int(answer.json()["by_model"].get(model, {}).get("requests", 0))


class Fleet:
    """What one test sees: its own circuit, its own workers, everybody's servers."""

    def __init__(
        self, resource: str, replicas: list[httpx.AsyncClient], provider: Provider
    ) -> None:
        self.resource, self.replicas, self.provider = resource, replicas, provider
        self.members: list[Member] = []

    @property
    def model(self) -> str:
        """The model of the circuit."""
        return self.resource.partition("/")[2]

    async def view(self) -> dict[str, Any]:
        """The circuit, as an operator sees it."""
        answer = await self.replicas[0].get(f"/v1/breakers/{self.resource}")
        view: dict[str, Any] = answer.json()
        return view

    async def state(self) -> str:
        """The state of the circuit."""
        return str((await self.view())["state"])

    async def told(self, *types: str) -> list[dict[str, Any]]:
        """What has happened to the circuit, by type; every replica tells the same."""
        streams = []
        for replica in self.replicas:
            answer = await replica.get("/v1/events?follow=false", headers={"last-event-id": "0"})
            data = [json.loads(x[6:]) for x in answer.text.splitlines() if x.startswith("data: ")]
            streams.append([each for each in data if each["resource"] == self.resource])
        longest = max(streams, key=len)  # more may have happened between two questions
        for stream in streams:
            assert stream == longest[: len(stream)], "each thing once, everywhere"
        return [each for each in longest if not types or each["type"] in types]

    async def transitions(self) -> list[tuple[str, str, str]]:
        """Every change of the circuit's state: from, to, why."""
        told = await self.told("breaker")
        return [(each["from"], each["to"], each["reason"]) for each in told]

    async def trip(self, *members: Member) -> None:
        """Open the circuit by real calls that fail, one after the other until it does."""
        someone = itertools.cycle(members or self.members[:4])
        call = Call(resource=self.resource, fault="server-error")
        while await self.state() == "closed":
            await next(someone).do(call)
        assert len(await self.transitions()) == 1

    async def all_call(self, members: list[Member] | None = None, **how: Any) -> list[Task]:
        """Let workers call again and again."""
        call = Call(resource=self.resource, again=True, **how)
        return [member.begin(call) for member in members or self.members]

    async def stop(self, tasks: list[Task]) -> None:
        """Let them end what is under way."""
        await asyncio.gather(*(task.stop() for task in tasks))

    async def take(self, member: Member, **how: Any) -> str:
        """The lease of a worker that asks until it gets one."""
        found: list[str] = []

        async def granted() -> bool:
            said = await member.do(Take(resource=self.resource, **how))
            found.append(said.lease)
            return said.what == "granted"

        await until(granted, "nobody is let in")
        return found[-1]

    async def all_refused(self, tasks: list[Task]) -> None:
        """Return when every one of the workers has been refused once more."""
        before = [task.count("refused") for task in tasks]

        async def again() -> bool:
            return all(
                task.count("refused") > count for task, count in zip(tasks, before, strict=True)
            )

        await until(again, "a worker does not ask", 30)


def distinct(count: int) -> list[str]:
    """Names of workers that a circuit tells apart (it has 32 bits for them)."""
    names: dict[int, str] = {}
    for number in itertools.count():
        name = f"w{number}"
        names.setdefault(crc32(name.encode()) % 32, name)
        if len(names) == count:
            return list(names.values())
    raise AssertionError
