"""`sluicegate bench`: how fast a service answers from here."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from limiter_service.bench.connection import Broken
from limiter_service.bench.measuring import Measured, Plan, measure
from limiter_service.cli.asking import Output, table, unreachable
from limiter_service.cli.ending import REFUSED, fail
from limiter_service.cli.options import HERE, Key, Shown, Url
from limiter_service.cli.words import parts
from limiter_service.demo.processes import ProcessError, python
from limiter_service.settings import api_key_here

_INTERRUPTED = 130
_TIMEOUT = 10.0
_OWN = "bench/m"
_POOLS = """
pools:
  bench: {models: {m: {rpm: 1000000000, tpm: 1000000000, concurrency: 1000000}}}
"""


def bench(
    resource: Annotated[
        str | None,
        typer.Argument(
            help="pool/model of the service at --url. Default: a service of the command's own."
        ),
    ] = None,
    *,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to measure.")] = 5.0,
    connections: Annotated[
        int, typer.Option(min=1, max=1000, help="Callers, each with a connection of its own.")
    ] = 16,
    tokens: Annotated[int, typer.Option(min=1, help="What each call reserves.")] = 100,
    url: Url = HERE,
    api_key: Key = None,
    output: Shown = Output.TABLE,
) -> None:
    """Measure pairs of acquire and settle over HTTP, from this process.

    Callers ask in closed loops: with many of them the times are mostly queueing, with one they
    are the way there and back. This process takes a share of the machine, too; where it is the
    bottleneck, run it from several hosts. Without RESOURCE a service with an embedded store is
    started for it. With one, real budget is taken: tokens come back, requests are spent.

    Exit codes: 0 done, 1 the service cannot be reached or refused every call, 2 wrong options,
    130 interrupted.

    Example: sluicegate bench --connections 1
    """
    if resource is not None:
        parts(resource)
    plan = Plan(
        url=url,
        key=api_key or api_key_here(),
        resource=resource or _OWN,
        tokens=tokens,
        seconds=seconds,
        connections=connections,
        timeout=_TIMEOUT,
    )
    try:
        found = asyncio.run(measure(plan) if resource else _on_its_own(plan))
    except Broken as error:
        fail(str(unreachable(plan.url, error)), REFUSED)
    except ProcessError as error:
        fail(str(error), REFUSED)
    except KeyboardInterrupt:
        fail("interrupted; everything that was started is stopped", _INTERRUPTED)
    if output is Output.JSON:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        _show(found)
    if not found.granted:
        fail(f"no call was granted: {', '.join(found.refused) or 'none ended in time'}", REFUSED)


async def _on_its_own(plan: Plan) -> Measured:
    async with _service() as url:
        return await measure(msgspec.structs.replace(plan, url=url, key=None))


@contextlib.asynccontextmanager
async def _service() -> AsyncIterator[str]:
    """A service with limits that nobody reaches, and a store of its own; its URL."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as name:
        folder = Path(name)
        (folder / "pools.yaml").write_text(_POOLS, encoding="utf-8")
        words = ["--port", "0", "--config", str(folder / "pools.yaml")]
        words += ["--state-dir", str(folder / "state"), "--log-level", "warning"]
        async with python("the service", "-m", "limiter_service", "serve", *words) as process:
            yield await process.address()


def _show(found: Measured) -> None:
    typer.echo(
        f"{found.connections} connections, {found.seconds:g} s: {found.granted:,} pairs, "
        f"{found.pairs_per_second:,.0f} a second"
    )
    rows = [
        [name, *(f"{getattr(times, q) * 1000:.2f} ms" for q in ("p50", "p95", "p99", "max"))]
        for name, times in (("acquire", found.acquire), ("settle", found.settle))
    ]
    typer.echo(table(["", "P50", "P95", "P99", "LONGEST"], rows))
    for code, count in sorted(found.refused.items()):
        typer.echo(f"refused with {code}: {count:,}")
