"""The demo's workload against a running service, from a thread, until it is told to stop."""

import contextlib
import random
import threading
from collections.abc import Iterator

from client_sdk import SluicegateError, SyncLimiter
from limiter_service.demo.workload import Call, generate

_TENANTS = ("checkout", "search", "batch")
_AT_ONCE = 6


def _pace(stop: threading.Event, limiter: SyncLimiter, resources: list[str], seed: int) -> None:
    chance = random.Random(seed)
    calls: Iterator[Call] = iter(generate(60, chance))
    for call in calls:
        if stop.wait(chance.uniform(0.02, 0.2)):
            return
        resource, tenant = chance.choice(resources), chance.choice(_TENANTS)
        sizes = {"input_tokens": call.input_tokens, "max_output_tokens": 1024}
        with (
            contextlib.suppress(SluicegateError),
            limiter.acquire(resource, tenant=tenant, max_wait=4, **sizes) as lease,
        ):
            stop.wait(chance.uniform(0.02, 0.3))
            lease.used(input_tokens=call.input_tokens, output_tokens=call.output_tokens)


@contextlib.contextmanager
def traffic(url: str, *resources: str, at_once: int = _AT_ONCE) -> Iterator[None]:
    """Calls of three tenants for *resources*, while the block runs."""
    stop = threading.Event()
    with SyncLimiter(url) as limiter:
        threads = [
            threading.Thread(target=_pace, args=(stop, limiter, [*resources], seed), daemon=True)
            for seed in range(at_once)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
