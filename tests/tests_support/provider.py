"""The simulated provider in a thread of its own, for callers of either kind."""

import asyncio
import threading
from typing import Any

import httpx

from limiter_service.provider_sim import SimOptions, create_sim_app, running
from tests_support.waiting import wait_until

WORDS = "The water rises behind the gate until it opens; then every channel takes its share"
"""How the simulator's text begins: a word and its space are a token."""

GENEROUS = SimOptions(
    latency=0.001,
    tokens_per_second=50_000,
    rpm=10_000_000,
    tpm=1_000_000_000,
    itpm=1_000_000_000,
    otpm=1_000_000_000,
    smoothing=0,
)


class ProviderThread:
    """A simulator; a context manager."""

    def __init__(self, options: SimOptions = GENEROUS) -> None:
        self._options = options
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._control = httpx.Client(verify=False)
        self.url = ""

    def __enter__(self) -> "ProviderThread":
        self._thread.start()
        assert self._ready.wait(20), "the simulator did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with running(create_sim_app(self._options)) as self.url:
            self._ready.set()
            await self._stop.wait()

    def reset(self) -> None:
        """Begin afresh."""
        self._control.post(f"{self.url}/sim/reset").raise_for_status()

    def hit(self, *faults: str, count: int = 1) -> None:
        """Let the next requests meet these faults, one after the other, *count* times each."""
        outages = [{"fault": fault, "count": count} for fault in faults]
        self._control.post(f"{self.url}/sim/faults", json={"outages": outages}).raise_for_status()

    def counts(self) -> dict[str, Any]:
        """What it has counted."""
        total: dict[str, Any] = self._control.get(f"{self.url}/sim/counters").json()["total"]
        return total

    def wait_until_quiet(self) -> None:
        """Wait until no call runs any more."""
        wait_until(lambda: self.counts()["running"] == 0, f"calls still run: {self.counts()}")
