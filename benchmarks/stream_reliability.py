"""What becomes of streams that meet faults: ours, and those of the provider SDKs.

    python benchmarks/stream_reliability.py [--streams 10000] [--seed 1] [--peers PYTHON]

The real client, a limiter service and the fault-injecting simulator, each in a process of its
own, six dialects.

classify  Retries and recovery are off; each stream meets a known fault, or none. It has to end
          byte-exact and complete, or as the typed error that the fault stands for, with the
          text that arrived in it. Afterwards no lease is open and no connection in use.
recover   Faults hit a share of all requests, retries as well. Retries are on, and recovery is
          `restart`; for the responses dialect `resume`, else `restart`. A stream counts as
          complete when its text is that of the answer, byte by byte.
peers     The openai and anthropic SDKs with their own retries, on the same faults; they are
          asked in the interpreter that --peers names, or this one.

Exit code 1 when a bar is missed: 100 % of `classify`; 99.99 % of calls that only met faults
before content, and 99.9 % of all, in `recover`.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from harness import Report, options, say, sluicegate
from stream_faults import (
    ASKED,
    CHAT,
    MIXES,
    PATIENT,
    RESPONSES,
    SHAPES,
    STUCK_FIRST,
    STUCK_LATER,
    Case,
    cases,
)

from client_sdk import (
    CallFailed,
    Limiter,
    LimiterOptions,
    LLMClient,
    Outcome,
    Provenance,
    Restarted,
    RetryPolicy,
    StreamOutcome,
    StreamTimeouts,
)

CONFIG = """
pools:
  bench:
    breaker: {enabled: false}
    models:
      "*": {tpm: 1000000000000, concurrency: 100000}
"""
SIM = [
    "--rpm",
    "100000000",
    "--tpm",
    "1000000000000",
    "--itpm",
    "1000000000000",
    "--smoothing",
    "0",
]
SIM += ["--otpm", "1000000000000", "--latency", "0.001", "--tokens-per-second", "20000"]
AT_ONCE = 48
PATIENCE = 60.0
"""Seconds for what has to end: a busy machine is no leak."""
SLOW = LimiterOptions(timeout=20.0, connect_timeout=20.0)
NO_RETRY = RetryPolicy(attempts=1, budget=None)
PERSISTENT = RetryPolicy(
    attempts=10, doubtful=9, recoveries=12, backoff=0.005, max_backoff=0.1, budget=None
)


class Ground(NamedTuple):
    """Where everything runs."""

    provider: str
    limiter: Limiter

    def clients(
        self, retry: RetryPolicy, *, recover: bool, timeouts: StreamTimeouts = PATIENT
    ) -> dict[str, LLMClient]:
        """A client for each dialect."""
        found = {}
        for shape, given in SHAPES.items():
            words = dict(given)
            base_url = self.provider + words.pop("path")
            ways = ("resume", "restart") if shape == RESPONSES else ("restart",)
            found[shape] = LLMClient(
                base_url=base_url,
                api_key="k",
                limiter=self.limiter,
                resource=f"bench/{shape}",
                timeouts=timeouts,
                retry=retry,
                recovery=ways if recover else "none",
                **words,
            )
        return found


async def judged(client: LLMClient, case: Case) -> str:
    """How a stream without retries ended: `complete`, `typed`, or what was wrong with it."""
    text, stream = "", client.get_streaming_response_with_tools(ASKED, extra_headers=case.headers)
    try:
        async with stream:
            async for chunk in stream:
                text += chunk.content
    except CallFailed as error:
        return _typed(error, case, text)
    except Exception as error:  # noqa: BLE001  # counted
        return f"untyped {type(error).__name__}"
    if StreamOutcome.COMPLETED not in case.ends:
        return f"complete in spite of {case.fault}"
    if text != case.text or stream.result.text != text:
        return "not byte-exact"
    return "complete"


def _typed(error: CallFailed, case: Case, text: str) -> str:
    said = f"{case.shape}: {case.fault}"
    if error.outcome not in case.ends:
        kind = error.failure.kind if error.failure else "?"
        return f"{said} ended as {error.outcome} ({kind})"
    category = case.ends[StreamOutcome(error.outcome)]
    if category is not None and error.category is not category:
        return f"{said} is {error.category}"
    if error.partial != text or not case.text.startswith(text):
        return f"{said}: the partial text is wrong"
    usage = error.usage
    if usage is not None and usage.provenance is not Provenance.UNKNOWN and not usage.input_tokens:
        return f"{said}: unknown tokens are zero"
    return "typed"


async def recovered(client: LLMClient, case: Case) -> tuple[str, int]:
    """How a stream with recovery ended, and how many requests it took."""
    text, stream = "", client.get_streaming_response_with_tools(ASKED, extra_headers=case.headers)
    try:
        async with stream:
            async for chunk in stream:
                text = chunk.content if isinstance(chunk, Restarted) else text + chunk.content
    except CallFailed as error:
        return f"{case.shape} failed: {error.outcome}, {error.category}", error.attempts
    except Exception as error:  # noqa: BLE001  # counted
        return f"untyped {type(error).__name__}", 1
    exact = text == case.text == stream.result.text
    return ("complete" if exact else "not byte-exact"), stream.result.attempts


async def each(work: Sequence[Any], do: Any) -> list[Any]:
    """*do* for all of *work*, so many at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> Any:
        async with gate:
            return await do(item)

    return await asyncio.gather(*map(one, work))


async def leftovers(ground: Ground, clients: Sequence[LLMClient], service: str) -> str:
    """What is still open some time after the last stream: nothing, if all is well."""
    deadline = time.monotonic() + PATIENCE
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        while True:
            counted = (await http.get(f"{ground.provider}/sim/counters")).json()["total"]
            running = counted["running"]
            leases = 0
            for shape in SHAPES:
                found = (await http.get(f"{service}/v1/resources/bench/{shape}")).json()
                leases += found["in_flight"] or 0
            if not running and not leases:
                break
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
    busy = sum(in_use(client) for client in clients)
    tasks = len(asyncio.all_tasks()) - 1 - _own_tasks()
    return f"{running} calls, {leases} leases, {busy} connections, {max(0, tasks)} tasks"


def in_use(client: LLMClient) -> int:
    """Connections of a client's pool that somebody holds."""
    shared = client._shared  # noqa: SLF001  # nothing public tells
    if shared is None:
        return 0
    connections = shared.http._transport._pool.connections  # noqa: SLF001
    return sum(not (each.is_idle() or each.is_closed()) for each in connections)


def _own_tasks() -> int:
    """Tasks of the limiter's channel, which stay."""
    names = ("Channel", "Connection", "keepalive")
    return sum(any(n in str(task.get_coro()) for n in names) for task in asyncio.all_tasks())


async def classify(ground: Ground, service: str, count: int, seed: int, report: Report) -> bool:
    """Print what became of streams with known faults."""
    clients = {
        limits: ground.clients(NO_RETRY, recover=False, timeouts=limits)
        for limits in (PATIENT, STUCK_FIRST, STUCK_LATER)
    }
    drawn = cases(count, seed)
    ends = await each(drawn, lambda case: judged(clients[case.patience][case.shape], case))
    rows, wrong = [], Counter[str]()
    for shape in SHAPES:
        mine = [end for case, end in zip(drawn, ends, strict=True) if case.shape == shape]
        good = sum(end in {"complete", "typed"} for end in mine)
        wrong.update(end for end in mine if end not in {"complete", "typed"})
        rows.append(
            {
                "dialect": shape,
                "streams": len(mine),
                "complete": mine.count("complete"),
                "typed": mine.count("typed"),
                "wrong": len(mine) - good,
                "good %": 100 * good / max(1, len(mine)),
            }
        )
    report.table("classify: known faults, no retries", rows)
    for what, times in wrong.most_common(20):
        print(f"  {times} x {what}")
    everybody = [client for group in clients.values() for client in group.values()]
    left = await leftovers(ground, everybody, service)
    print(f"  left open: {left}")
    for client in everybody:
        await client.aclose()
    return not wrong and not any(ch in left for ch in "123456789")


async def recover(ground: Ground, service: str, count: int, seed: int, report: Report) -> bool:
    """Print how many streams arrive when faults hit a share of all requests."""
    rows, good = [], True
    for mix, rules in MIXES.items():
        await switch(ground.provider, rules)
        clients = ground.clients(PERSISTENT, recover=True)
        plain = lambda *_: ("", {StreamOutcome.COMPLETED: Outcome.SUCCESS})  # noqa: E731
        drawn = cases(count, seed, plain)
        ends = await each(drawn, lambda case, own=clients: recovered(own[case.shape], case))
        await switch(ground.provider, [])
        complete = sum(end == "complete" for end, _ in ends)
        hit = [end for end, requests in ends if requests > 1 or end != "complete"]
        left = await leftovers(ground, [*clients.values()], service)
        share = 100 * complete / len(ends)
        share_hit = 100 * hit.count("complete") / max(1, len(hit))
        only_before = mix.startswith("before")
        good = good and (share_hit >= 99.99 if only_before else share >= 99.9)
        good = good and not any(ch in left for ch in "123456789")
        rows.append(
            {
                "mix": mix,
                "streams": len(ends),
                "hit": len(hit),
                "requests": sum(requests for _, requests in ends),
                "complete %": share,
                "of those hit %": share_hit,
            }
        )
        for what, times in Counter(end for end, _ in ends if end != "complete").items():
            print(f"  {mix}: {times} x {what}")
        print(f"  {mix}: left open: {left}")
        for client in clients.values():
            await client.aclose()
    report.table("recover: faults at random, retries and recovery on", rows)
    return good


async def switch(provider: str, rules: Sequence[tuple[str, float]]) -> None:
    """Let these faults hit their shares of all requests."""
    outages = [{"fault": fault, "rate": rate} for fault, rate in rules]
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        (await http.post(f"{provider}/sim/faults", json={"outages": outages})).raise_for_status()


def peers(python: str, provider: str, count: int, seed: int, report: Report) -> None:
    """Print what the provider SDKs make of the same faults."""
    rows = []
    for shape, name in ((CHAT, "openai"), ("anthropic", "anthropic")):
        drawn = [case for case in cases(count, seed) if case.shape == shape]
        work = [
            {"tokens": c.tokens, "headers": c.headers, "text": c.text}
            | {"whole": StreamOutcome.COMPLETED in c.ends, "cut": len(c.ends) > 2}
            for c in drawn
        ]
        inside = Path(__file__).with_name("stream_peers.py")
        done = subprocess.run(
            [python, str(inside), name, provider],
            input=json.dumps(work),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            print(f"  {name}: skipped: {done.stderr.strip().splitlines()[-1]}")
            continue
        told: dict[str, int] = json.loads(done.stdout)
        rows.append({"SDK": name, "streams": len(work), **told})
    if rows:
        report.table("peers: the same faults as `classify`, with their own retries", rows)


@contextlib.contextmanager
def processes() -> Iterator[tuple[str, str]]:
    """A simulator and a service; their URLs."""
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        pools = Path(home, "pools.yaml")
        pools.write_text(CONFIG)
        words = ["--config", str(pools), "--state-dir", home, "--log-level", "error"]
        service = stack.enter_context(sluicegate("serve", *words))
        provider = stack.enter_context(sluicegate("provider-sim", *SIM))
        yield provider.url, service.url


async def run(arguments: Any, provider: str, service: str, report: Report) -> bool:
    """Every part; whether all bars are met."""
    async with Limiter(service, options=SLOW) as limiter:
        ground = Ground(provider, limiter)
        say(f"provider at {provider}, service at {service}")
        say(f"classify: {arguments.streams} streams")
        good = await classify(ground, service, arguments.streams, arguments.seed, report)
        share = max(1, arguments.streams // len(MIXES))
        say(f"recover: {share} streams for each of {len(MIXES)} mixes")
        return await recover(ground, service, share, arguments.seed, report) and good


def main() -> int:
    """Run it."""
    parser = options(__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    report = Report(arguments.json)
    with processes() as (provider, service):
        good = asyncio.run(run(arguments, provider, service, report))
        if not arguments.no_peers:
            say("peers")
            few = min(arguments.streams, 3000)
            peers(arguments.peers, provider, few, arguments.seed, report)
    report.close()
    print(f"\n{'every bar is met' if good else 'A BAR IS MISSED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
