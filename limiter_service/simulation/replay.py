"""Replay calls against a policy: what became of each."""

import asyncio
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from limiter_service.config import Config, catalogue_of
from limiter_service.engine.admission import Engine
from limiter_service.engine.policy import Policies
from limiter_service.engine.refusals import Refusal
from limiter_service.simulation import virtual_time
from limiter_service.simulation.charges import cost_of, settled_amounts
from limiter_service.simulation.trace import Call
from limiter_service.store.commands import Commands
from limiter_service.store.virtual import NoHints, VirtualStore
from limiter_wire import Acquire, Granted, Settle, Usage

START_US = 1_704_067_200_000_000
"""Virtual time begins with the year 2024: with every calendar window of UTC."""

PREFIX = "sim:"
_FOREVER = 1e9

Progress = Callable[[int], None]


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """How long the calls take: seconds to the first token, and tokens in a second."""

    latency: float = 0.5
    tokens_per_second: float = 80.0

    def duration(self, call: Call) -> float:
        """Seconds of one call."""
        return self.latency + call.output_tokens / self.tokens_per_second


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What is replayed, and how callers behave.

    A call that does not say how large its answer may be reserves `max_output`, or what it wrote
    where that was more. `delay` is the way to the store and back, in seconds.
    """

    calls: Sequence[Call]
    resource: str
    max_wait: float
    max_output: int
    provider: Provider = Provider()
    delay: float = 0.001

    def most_output(self, call: Call) -> int:
        """What a call reserves for its answer."""
        if call.max_output_tokens is not None:
            return call.max_output_tokens
        return max(self.max_output, call.output_tokens)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the call of that number fared: `granted`, or the code of the refusal; seconds.

    `sent` is when it went to the provider. `settled` is by limit what it was charged in the end,
    in the limit's own unit.
    """

    number: int
    outcome: str
    waited: float = 0.0
    sent: float | None = None
    over: float | None = None
    settled: dict[str, float] = {}
    cost_usd: float | None = None


def replay(
    url: str, config: Config, base: Path | None, scene: Scene, progress: Progress
) -> list[Ended]:
    """How every call of *scene* fares under *config*, in the order of the trace. The server at
    *url* is emptied: it must be the simulation's own.
    """
    store = VirtualStore(url, START_US, scene.delay / 2)
    store.empty()
    try:
        found: list[Ended] = virtual_time.run(_Replay(store, config, base, scene, progress).run())
        return found
    finally:
        store.close()


class _Replay:
    def __init__(
        self,
        store: VirtualStore,
        config: Config,
        base: Path | None,
        scene: Scene,
        progress: Progress,
    ) -> None:
        self._scene, self._progress = scene, progress
        self._store = store
        self._policies = Policies(config, PREFIX, catalogue=catalogue_of(config, base).warm())

    async def run(self) -> list[Ended]:
        """Make every call at its time, whatever becomes of the earlier ones."""
        loop = asyncio.get_running_loop()
        engine = self._engine(loop)
        tasks: list[asyncio.Task[Ended]] = []
        done = 0

        def count(_task: asyncio.Task[Ended]) -> None:
            nonlocal done
            done += 1
            self._progress(done)

        for number, call in enumerate(self._scene.calls):
            await asyncio.sleep(call.at - loop.time())
            task = asyncio.create_task(self._call(engine, number, call))
            task.add_done_callback(count)
            tasks.append(task)
        ended = await asyncio.gather(*tasks)
        await engine.passes.aclose()
        await engine.expectations.aclose()
        return list(ended)

    def _engine(self, loop: asyncio.AbstractEventLoop) -> Engine:
        clock = (resources.files(__package__) / "clock.lua").read_text(encoding="utf-8")
        return Engine(
            Commands(self._store, {"lib/clock": clock}),  # type: ignore[arg-type]  # the methods that it needs
            self._policies,
            lambda: START_US + loop.time() * 1e6,
            PREFIX,
            hints=NoHints(),  # type: ignore[arg-type]  # likewise
            observe=lambda _wait: None,
            hold_limit=_FOREVER,
        )

    async def _call(self, engine: Engine, number: int, call: Call) -> Ended:
        loop, scene = asyncio.get_running_loop(), self._scene
        asked = Acquire(
            resource=call.resource or scene.resource,
            input_tokens=call.input_tokens,
            max_output_tokens=scene.most_output(call),
            tenant=call.tenant,
            priority=call.priority,
            max_wait=scene.max_wait,
            request_id=str(number),
        )
        try:
            granted = await engine.acquire(asked)
        except Refusal as refusal:
            waited = max(0.0, loop.time() - call.at)
            return Ended(number=number, outcome=str(refusal.problem.code), waited=waited)
        assert isinstance(granted, Granted)
        sent = loop.time()
        await asyncio.sleep(scene.provider.duration(call))
        usage = Usage(input_tokens=call.input_tokens, output_tokens=call.output_tokens)
        await engine.settle(Settle(lease=granted.lease, usage=usage))
        return self._ended(number, call, asked, usage, sent)

    def _ended(self, number: int, call: Call, asked: Acquire, usage: Usage, sent: float) -> Ended:
        policy = self._policies.policy(asked.resource, asked.tenant)
        return Ended(
            number=number,
            outcome="granted",
            waited=max(0.0, sent - call.at),
            sent=sent,
            over=asyncio.get_running_loop().time(),
            settled=settled_amounts(policy, asked, usage),
            cost_usd=cost_of(policy, usage),
        )
