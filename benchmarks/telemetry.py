"""What metrics, statistics and traces cost of the service's CPU per call.

    python benchmarks/telemetry.py [--calls 4000] [--rounds 7]

The application in this process with a store of its own, called as its server calls it, without
the work of HTTP: so shares are larger than those of a whole service. Each round takes the same
calls (acquire and settle, with usage, latency and cost) with everything off, with metrics and
statistics, and with traces on top, whose spans go nowhere; CPU is that of this process, and the
median of the rounds counts.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from limiter_service.app import create_app
from limiter_service.embedded import EmbeddedValkey
from limiter_service.front import Front
from limiter_service.pools import Pools
from limiter_service.settings import Settings

CONFIG = """
pools:
  bench:
    models: {"*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}}
    tenants: {team: {weight: 2}}
    prices: {"*": {input: 1, output: 2}}
"""
WIDTH = 32
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
Calls = Callable[[int], Awaitable[None]]


class Silent:
    """Counts nothing, and has books that count nothing."""

    def __getattr__(self, name: str) -> "Silent":
        return self

    def __call__(self, *_: object, **__: object) -> None:
        """Hear it, and forget it."""


async def post(app: Front, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request as a server hands it over."""
    sent = _encode(body)
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": [(b"content-type", b"application/msgpack")],
    }  # fmt: skip
    answers: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": sent}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            answers.append(message["body"])

    await app(scope, receive, send)
    answer: dict[str, Any] = _decode(answers[0])
    return answer


async def calls(app: Front, count: int) -> None:
    """So many calls from acquire to settle, WIDTH side by side."""

    async def some(nth: int) -> None:
        usage = {"input_tokens": 70, "output_tokens": 20}
        for i in range(count // WIDTH):
            asked = {"resource": f"bench/m{i % 10}", "tokens": 100, "tenant": f"t{nth % 8}"}
            lease = (await post(app, "/v1/acquire", asked))["lease"]
            report = {"lease": lease, "usage": usage, "latency": 1.5, "ttft": 0.2}
            await post(app, "/v1/settle", report)

    await asyncio.gather(*map(some, range(WIDTH)))


async def cpu(app: Front, count: int) -> float:
    """Microseconds of CPU per call."""
    began = time.process_time()
    await calls(app, count)
    return (time.process_time() - began) / count * 1e6


async def measure(url: str, config: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """CPU per call of each variant, round by round."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter  # noqa: PLC0415

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> Any:
            """Takes everything."""

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    settings = Settings(config=config, connect_timeout=20, command_timeout=20)
    variants = {
        "off": create_app(settings, url, Pools(config)),
        "metrics": create_app(settings, url, Pools(config)),
        "metrics and traces": create_app(settings, url, Pools(config), provider),
    }
    state = variants["off"]._inner.state  # type: ignore[attr-defined]  # noqa: SLF001  # FastAPI
    state.engine.books = state.engine._lessons._books = Silent()  # noqa: SLF001  # no other way
    state.client.watch = None
    found: dict[str, list[float]] = {name: [] for name in variants}
    async with contextlib.AsyncExitStack() as stack:
        for app in variants.values():
            inner: Any = app._inner  # noqa: SLF001  # its lifespan
            await stack.enter_async_context(inner.router.lifespan_context(inner))
            await calls(app, count)
        for _ in range(rounds):
            for name, app in variants.items():
                found[name].append(await cpu(app, count))
    return found


def main() -> None:
    """Measure and print one row per variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        config = Path(home, "pools.yaml")
        config.write_text(CONFIG)
        with EmbeddedValkey(Path(home, "state")) as store:
            found = asyncio.run(measure(store.url, config, options.calls, options.rounds))
    base = found["off"]
    print(f"{'':22}{'CPU µs per call':>16}{'least':>8}{'share of it':>13}")
    for name, values in found.items():
        ratios = [1 - off / on for off, on in zip(base, values, strict=True)]
        shares = f"{statistics.median(ratios):12.1%}" if name != "off" else ""
        print(f"{name:22}{statistics.median(values):16.1f}{min(values):8.1f} {shares}")


if __name__ == "__main__":
    main()
