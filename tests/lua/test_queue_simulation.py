"""Several replicas in virtual time: the real engine and the real scripts, a network that loses.

Each replica is an Engine over one store whose clock is the loop's. Every message is lost, replies
come late or not at all, replicas stop for ever in the middle of whatever they do, callers hang
up. What must hold: nobody is granted beyond the limits, everybody who stays is granted or told,
in the order of its line, and when all is over every unit of budget is back.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from tests_support.scripts import CLOCK, POOL, START, scripts

from limiter_service.config import parse
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.simulation.virtual_time import run
from limiter_service.store.commands import Commands
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import Script
from limiter_wire import Acquire, ErrorCode, Granted, Settle, Usage

CONFIG = f"""
pools:
  {POOL}:
    models:
      m: {{limits: [{{meter: tokens, limit: 600, per: minute, burst: 60}}], concurrency: 8}}
    tenants:
      big: {{weight: 4}}
    queue: {{max_wait: 600s}}
"""
RATE, BURST = 10.0, 60
CALLERS, REPLICAS = 120, 3


class Network:
    """The way to the store, for one replica: late, lossy, and one day cut."""

    sharded = False

    def __init__(self, client: redis.Redis, luck: random.Random, loss: float) -> None:
        self._client, self._luck, self._loss = client, luck, loss
        self.death = asyncio.Event()

    @property
    def dead(self) -> bool:
        """Whether nothing goes through any more."""
        return self.death.is_set()

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script; the reply, and with it the knowledge that it ran, may be lost."""
        await asyncio.sleep(self._luck.uniform(0.0002, 0.02))
        if self.dead:
            await asyncio.sleep(1e9)
        now = START + int(asyncio.get_running_loop().time() * 1e6)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(CLOCK, now, ex=3600)
        pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        try:
            reply = pipeline.execute()[1]
        except redis.exceptions.NoScriptError:
            reply = self._client.eval(script.text, len(keys), *keys, *arguments)
        await asyncio.sleep(self._luck.uniform(0.0002, 0.02))
        if self.dead:
            await asyncio.sleep(1e9)
        if self._luck.random() < self._loss:
            raise StoreUnavailable("the reply was lost")
        return reply


class NoHints:
    """Every message is lost."""

    def listen(self, channel: str, listener: Any) -> None:
        """Nothing arrives: every grant is found by asking again."""

    def ignore(self, channel: str) -> None:
        """Nothing to stop."""

    async def aclose(self) -> None:
        """Nothing to close."""


class Fleet:
    """Replicas over one store, and callers that go to another one when theirs dies."""

    def __init__(self, client: redis.Redis, seed: int, loss: float) -> None:
        self.luck = random.Random(seed)
        self.networks = [Network(client, self.luck, loss) for _ in range(REPLICAS)]
        self.engines = [self._engine(network) for network in self.networks]
        self.granted: list[tuple[float, int, str, int]] = []
        self.refused: dict[str, int] = {}
        self.hung_up = 0

    def _engine(self, network: Network) -> Engine:
        commands = Commands(network)  # type: ignore[arg-type]  # the methods that it needs
        commands._scripts = scripts()
        loop = asyncio.get_running_loop()
        policies = Policies(parse(CONFIG, ".yaml"), "sg:")
        return Engine(
            commands,
            policies,
            lambda: START + loop.time() * 1e6,
            "sg:",
            hints=NoHints(),  # type: ignore[arg-type]  # likewise
            observe=lambda _: None,
        )

    def _alive(self) -> Engine:
        return self.luck.choice(
            [e for e, n in zip(self.engines, self.networks, strict=True) if not n.dead]
        )

    async def call(self, number: int) -> None:
        """One caller: it comes, waits, perhaps through several replicas, and settles."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(number * 0.05)
        tokens = self.luck.randint(1, 40)
        request = Acquire(
            resource=f"{POOL}/m", tokens=tokens, tenant=self.luck.choice(["a", "b", "big"]),
            max_wait=500, request_id=f"r{number}",
        )  # fmt: skip
        stays = self.luck.random() < 0.9
        while True:
            engine = self._alive()
            asking = asyncio.ensure_future(engine.acquire(request))
            dies = asyncio.ensure_future(self._death_of(engine))
            patience = None if stays else self.luck.uniform(0.1, 3.0)
            await asyncio.wait({asking, dies}, timeout=patience, return_when="FIRST_COMPLETED")
            dies.cancel()
            if asking.done():
                try:
                    answer = asking.result()
                except Refusal as refusal:
                    if refusal.problem.code is ErrorCode.STORE_UNAVAILABLE:
                        await asyncio.sleep(0.1)
                        continue
                    self.refused[refusal.problem.code] = (
                        self.refused.get(refusal.problem.code, 0) + 1
                    )
                    return
                if isinstance(answer, Granted):
                    self.granted.append((loop.time(), tokens, request.tenant, number))
                    await self._use(answer, tokens)
                    return
                continue
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, Refusal):
                await asyncio.wait({asking}, timeout=0.01)
            if not stays:
                self.hung_up += 1
                return

    async def _death_of(self, engine: Engine) -> None:
        network = self.networks[self.engines.index(engine)]
        await network.death.wait()

    async def _use(self, lease: Granted, tokens: int) -> None:
        await asyncio.sleep(self.luck.uniform(0.05, 1.0))
        report = Settle(lease=lease.lease, usage=Usage(input_tokens=self.luck.randint(0, tokens)))
        for _ in range(50):
            try:
                await self._alive().settle(report)
            except Refusal as refusal:
                if refusal.problem.code is not ErrorCode.STORE_UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)
            else:
                return


async def simulate(client: redis.Redis, seed: int, loss: float, deaths: int) -> Fleet:
    """One story."""
    fleet = Fleet(client, seed, loss)
    calls = [asyncio.ensure_future(fleet.call(n)) for n in range(CALLERS)]
    for n in range(deaths):
        await asyncio.sleep(fleet.luck.uniform(3, 20))
        fleet.networks[n].death.set()
    done, stuck = await asyncio.wait(calls, timeout=900)
    assert not stuck, f"{len(stuck)} callers have no answer"
    for call in done:
        call.result()
    engine = fleet._alive()
    await asyncio.sleep(30)
    for _ in range(20):  # passes that take back what nobody fetched
        engine.passes.kick(engine.passes.pool(POOL))
        await asyncio.sleep(1)
    view = None
    while view is None:
        with contextlib.suppress(Refusal):
            view = await engine.view(f"{POOL}/m", "a")
    levels = {limit.name: limit.remaining for limit in view.limits}
    assert levels == {"m.tokens-per-minute": BURST, "m.concurrency": 8}, "budget is lost"
    assert [k for k in client.scan_iter() if b":q" in k] == [], "the queue is not empty"
    everyone = asyncio.all_tasks() - {asyncio.current_task()}
    for task in everyone:
        task.cancel()
    await asyncio.gather(*everyone, return_exceptions=True)
    return fleet


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("loss", "deaths"),
    [(0.0, 0), (0.02, 0), (0.0, 2), (0.05, 2)],
    ids=["calm", "loss", "deaths", "both"],
)
def test_nothing_is_lost_and_nobody_is_forgotten(
    valkey_db: redis.Redis, loss: float, deaths: int
) -> None:
    """Three stories of 120 callers each; more with QUEUE_SEEDS in the environment."""
    for seed in range(int(os.environ.get("QUEUE_SEEDS", "3"))):
        valkey_db.flushall()
        fleet = run(simulate(valkey_db, seed, loss, deaths))
        assert len(fleet.granted) + fleet.hung_up == CALLERS, f"seed {seed}: {fleet.refused}"


def test_the_same_seed_tells_the_same_story(valkey_db: redis.Redis) -> None:
    """Found seeds can be followed."""
    stories = []
    for _ in range(2):
        valkey_db.flushall()
        stories.append(run(simulate(valkey_db, 7, 0.05, 2)).granted)
    assert stories[0] == stories[1]
