"""Every provider's preset against a simulator that counts as the provider does.

Virtual time: the real engine and scripts on one side, the simulator's core on the other, and
calls that take their time on the way. Nobody is refused by the provider, and waits are those
of the ideal schedule. Without the presets the same callers are refused.
"""

import asyncio
import random
from collections.abc import Sequence

import msgspec
import pytest
import redis
import yaml
from rate_errors.figures import Figures, figures, ideal_waits, misses, saturated
from rate_errors.ideal import schedule
from rate_errors.messages import Ending, Finished, Strategy
from rate_errors.providers import ALL, PROVIDERS, Limits, Provider, most_output
from tests_support.replica import Replica
from tests_support.scripts import POOL

from limiter_service.config import Config, ModelConfig, PoolConfig, QueueConfig
from limiter_service.demo.workload import Call, generate
from limiter_service.engine.admission import Engine
from limiter_service.provider_sim.limits import Admitted, Refused
from limiter_service.provider_sim.provider import Ask
from limiter_service.provider_sim.provider import Provider as Simulated
from limiter_service.simulation.virtual_time import run
from limiter_wire import Acquire, Granted, Outcome, Settle, Usage

LOAD, MINUTES, ON_THE_WAY = 1.5, 4.0, 0.1


class Replay:
    """One workload through one engine to one simulated provider."""

    def __init__(self, provider: Provider, limits: Limits, seed: int, way: float) -> None:
        self.provider, self.way = provider, way
        self.simulated = Simulated(provider.simulated(limits, speed=1, seed=seed))
        self.chance = random.Random(seed)
        self.phase = self.chance.uniform(0, 60)
        self.finished: list[Finished] = []

    def now(self) -> float:
        """The provider's time: its windows begin at other moments than the store's."""
        return asyncio.get_running_loop().time() + self.phase

    async def replay(self, calls: Sequence[Call], limiter: Engine) -> list[Finished]:
        """Every call at its time."""
        await asyncio.gather(*(self.call(n, call, limiter) for n, call in enumerate(calls)))
        return self.finished

    async def call(self, number: int, call: Call, limiter: Engine) -> None:
        """Acquire, ask, settle; once more after each refusal."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(call.at)
        attempts = 0
        while True:
            attempts += 1
            request = Acquire(
                resource=f"{POOL}/{self.provider.model}",
                input_tokens=call.input_tokens,
                max_output_tokens=most_output(call),
                max_wait=36_000,
                priority=5 if attempts == 1 else 0,
                request_id=f"{number}-{attempts}",
            )
            lease = await limiter.acquire(request)
            assert isinstance(lease, Granted)
            sent = loop.time()
            report = await self.ask(call)
            await limiter.settle(msgspec.structs.replace(report, lease=lease.lease))
            if report.outcome is Outcome.SUCCESS:
                break
            await asyncio.sleep(1.0)
        self.finished.append(
            Finished(
                number=number,
                sent=sent,
                ending=Ending.SUCCEEDED,
                attempts=attempts,
                refusals=attempts - 1,
                for_tokens=0,
                first_refused=attempts > 1,
            )
        )

    async def ask(self, call: Call) -> Settle:
        """One attempt, there and back."""
        await asyncio.sleep(self.chance.uniform(0, self.way))
        ask = Ask(
            input_tokens=call.input_tokens,
            max_output=most_output(call),
            output_tokens=call.output_tokens,
            rules=self.provider.rules,
        )
        reply = self.simulated.answer(ask, self.now())
        if isinstance(reply.decision, Refused):
            await asyncio.sleep(self.chance.uniform(0, self.way))
            return Settle(lease="", outcome=Outcome.RATE_LIMITED)
        assert isinstance(reply.decision, Admitted)
        running = self.simulated.begin(reply, ask)
        await asyncio.sleep(reply.duration)
        self.simulated.generated(running, reply.output_tokens, self.now())
        self.simulated.end(running, self.now())
        await asyncio.sleep(self.chance.uniform(0, self.way))
        usage = Usage(input_tokens=call.input_tokens, output_tokens=call.output_tokens)
        return Settle(lease="", usage=usage, outcome=Outcome.SUCCESS)


def replayed(
    client: redis.Redis,
    provider: Provider,
    *,
    calls: Sequence[Call],
    load: float = LOAD,
    native: bool = True,
    way: float = ON_THE_WAY,
) -> tuple[Figures, list[str]]:
    """The figures of a replay, and the bars that it misses."""
    client.flushall()
    limits = provider.limits(calls, load)
    if native:
        section = ModelConfig(
            **{k: v for k, v in msgspec.structs.asdict(limits).items() if v is not None}
        )
        pool = PoolConfig(provider=provider.name, models={provider.model: section})
    else:
        pool = PoolConfig(models={"*": ModelConfig(limits=provider.naive(limits))})
    pool = msgspec.structs.replace(pool, queue=QueueConfig(max_wait=36_000))

    config = yaml.safe_dump(msgspec.to_builtins(Config(pools={POOL: pool})))

    async def story() -> list[Finished]:
        limiter = Replica(client, config).engine
        return await Replay(provider, limits, 5, way).replay(calls, limiter)

    finished = run(story())
    demands = provider.demands(calls, provider.simulated(limits, speed=1, seed=5))
    starts = schedule(demands, provider.windows(limits, False))
    found = figures(
        Strategy.NATIVE if native else Strategy.NAIVE,
        demands,
        finished,
        per_minute=provider.per_minute(limits),
        span=saturated(demands, starts),
    )
    return found, misses(found, None, ideal_waits(demands, starts))


@pytest.mark.timeout(300)
# Where every single second is full, a tenth of one on the way is too much for anybody.
@pytest.mark.parametrize(("name", "way"), [*((name, 0.1) for name in ALL), ("azure-o4-mini", 0.02)])
def test_a_preset_counts_as_its_provider_does(
    valkey_db: redis.Redis, name: str, way: float
) -> None:
    """At 150 % of the limit: nobody is refused, nothing is wasted, nobody waits in vain."""
    calls = generate(MINUTES, random.Random(2))
    found, missed = replayed(valkey_db, PROVIDERS[name], calls=calls, way=way)
    assert (found.refused, missed) == (0, [])


@pytest.mark.timeout(300)
def test_without_the_preset_callers_are_refused(valkey_db: redis.Redis) -> None:
    """The same callers, whose limiter counts otherwise: the test above can fail."""
    calls = generate(1.5, random.Random(2))
    found, _ = replayed(valkey_db, PROVIDERS["azure"], calls=calls, native=False)
    assert found.refused > 0.05 * found.calls
