"""CPU of client, service and store while many callers of one process wait.

    python benchmarks/queue_idle.py [--callers 1000] [--seconds 30]

A real service process, one SDK client in this process, and a budget that is used up: everybody
waits, nobody is served. Measured once all of them stand in line. Each way to wait is a row:

channel              the service holds the questions
channel, with news   the same with `on_wait`, which is told where a caller stands
http                 the SDK asks again over /v1/batch, many callers in one request
http, with news      the same with `on_wait`

Bar for a channel: under 5 % of a core for 1,000 callers, in their process and in the service.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

from harness import Process, Report, Store, Value, cpu_of, ended, options, own_cpu, say, services
from harness import store as a_store

from client_sdk import Limiter, LimiterOptions, Progress, SluicegateError

CONFIG = """
pools:
  bench:
    models:
      m:
        limits: [{meter: tokens, limit: 1800, per: hour}]
    queue: {max_waiters: 100000, max_wait: 1d}
"""
EACH = 40  # tokens: the first of them comes up after 80 s
LONGEST = 86_400.0


async def measure(
    where: Store, service: Process, callers: int, seconds: float, *, channel: bool, news: bool
) -> dict[str, Value]:
    """Let everybody stand in line, then watch; percent of a core."""
    where.redis.flushall()
    heard = 0

    def note(_progress: Progress) -> None:
        nonlocal heard
        heard += 1

    way = "only" if channel else "off"
    options_ = LimiterOptions(timeout=20.0, connect_timeout=10.0, channel=way)
    async with Limiter(service.url, options=options_) as limiter:
        await limiter.acquire("bench/m", tokens=1800)

        async def wait() -> None:
            with contextlib.suppress(SluicegateError):
                await limiter.acquire(
                    "bench/m", tokens=EACH, max_wait=LONGEST, on_wait=note if news else None
                )

        tasks = [asyncio.create_task(wait()) for _ in range(callers)]
        await asyncio.sleep(5.0)
        assert not any(task.done() for task in tasks)
        before = usage(where, service)
        calls, told = commands(where), heard
        await asyncio.sleep(seconds)
        spent = [b - a for a, b in zip(before, usage(where, service), strict=True)]
        calls, told = commands(where) - calls, heard - told
        assert not any(task.done() for task in tasks)
        await ended(tasks)
    client, serving, store = (part / seconds * 100 for part in spent)
    return {
        "": name(channel=channel, news=news),
        "callers": callers,
        "news / s": told / seconds,
        "client % of a core": client,
        "service %": serving,
        "store %": store,
        "scripts / s": calls / seconds,
    }


def name(*, channel: bool, news: bool) -> str:
    """A way to wait."""
    return ("channel" if channel else "http") + (", with news" if news else "")


def usage(where: Store, service: Process) -> Sequence[float]:
    """CPU seconds of client, service and store so far."""
    return own_cpu(), cpu_of(service.pid), where.cpu()


def commands(where: Store) -> int:
    """Script calls that the store has run."""
    stats = where.redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


def main() -> None:
    """Start a store and a service, and measure."""
    parser = options(__doc__)
    parser.add_argument("--callers", type=int, default=1000, help="at most 1000")
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    report = Report(given.json)
    rows = []
    with a_store(given.server) as where:
        for channel, news in itertools.product((True, False), (False, True)):
            with services(where.url, CONFIG, 1) as (service,):
                say(f"{given.callers:,} callers: {name(channel=channel, news=news)}")
                work = measure(
                    where, service, given.callers, given.seconds, channel=channel, news=news
                )
                rows.append(asyncio.run(work))
    report.table("CPU while everybody waits", rows)
    report.close()


if __name__ == "__main__":
    main()
