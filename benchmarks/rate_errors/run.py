"""One run: a strategy's workers against a simulated provider that has forgotten the last."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import msgspec

from limiter_service.demo.processes import Process, python
from limiter_service.demo.workload import Call
from limiter_service.provider_sim import SimOptions
from rate_errors.messages import Due, Finished, Job, Message, Ready, Start, Strategy

# Between the last worker's readiness and the first call, in real seconds.
_LEAD = 0.3
_SAY_EVERY = 15.0

_encode = msgspec.json.Encoder().encode
_message: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_MAIN = Path(__file__).parent.parent / "rate_limit_errors.py"
WORKER = "--as-worker"


def simulator_words(options: SimOptions) -> list[str]:
    """*options* as the command line has them."""
    values = msgspec.structs.asdict(options)
    defaults = msgspec.structs.asdict(SimOptions())
    return [
        word
        for name, value in values.items()
        if value != defaults[name]
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


class Say:
    """Says how far a run is, now and then."""

    def __init__(self, title: str, say: Callable[[str], None]) -> None:
        self._title, self._say = title, say
        self._next = time.monotonic() + _SAY_EVERY

    def __call__(self, finished: Sequence[Finished], calls: int) -> None:
        """*finished* of *calls* are over."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SAY_EVERY
            refused = sum(each.refusals for each in finished)
            self._say(f"{self._title}: {len(finished)} of {calls} calls, {refused} 429s")


async def run(
    calls: Sequence[Call],
    *,
    provider: str,
    strategy: Strategy,
    workers: int,
    simulator: str,
    services: Sequence[str],
    store: str,
    allowed: dict[str, int],
    speed: float,
    seed: int,
    say: Say,
) -> list[Finished]:
    """Replay *calls*, dealt out in turn to *workers*; how each ended. Raises ProcessError."""
    async with contextlib.AsyncExitStack() as stack:
        them = [
            await stack.enter_async_context(python(f"worker {n}", str(_MAIN), WORKER))
            for n in range(workers)
        ]
        for number, worker in enumerate(them):
            share = [Due(n, calls[n]) for n in range(number, len(calls), workers)]
            job = Job(
                worker=number,
                calls=share,
                provider=provider,
                simulator=simulator,
                strategy=strategy,
                speed=speed,
                seed=seed,
                service=services[number % len(services)] if services else "",
                store=store,
                allowed=allowed,
            )
            await _tell(worker, job)
        for worker in them:
            assert isinstance(await _next(worker), Ready)
        async with httpx.AsyncClient(base_url=simulator, trust_env=False) as http:
            (await http.post("/sim/reset")).raise_for_status()
        start = Start(at=time.monotonic() + _LEAD)
        for worker in them:
            await _tell(worker, start)
        finished = await _collect(them, len(calls), say)
        for worker in them:
            await worker.ended()
    return finished


async def _collect(workers: Sequence[Process], calls: int, say: Say) -> list[Finished]:
    finished: list[Finished] = []

    async def read(number: int, worker: Process) -> None:
        for _ in range(number, calls, len(workers)):
            message = await _next(worker)
            assert isinstance(message, Finished)
            finished.append(message)
            say(finished, calls)

    try:
        async with asyncio.TaskGroup() as tasks:
            for number, worker in enumerate(workers):
                tasks.create_task(read(number, worker))
    except ExceptionGroup as group:
        raise group.exceptions[0] from group  # the first dead worker says why
    return finished


async def _tell(worker: Process, value: msgspec.Struct) -> None:
    worker.input.write(_encode(value) + b"\n")
    await worker.input.drain()


async def _next(worker: Process) -> Message:
    line = await worker.output.readline()
    if not line:
        raise await worker.failure()
    message: Message = _message.decode(line)
    return message
