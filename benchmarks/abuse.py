"""A service under fire: is anything answered with a failure, and are good callers served?

First bad requests by the thousand, drawn by `bad_requests.py` and, from the OpenAPI document, by
schemathesis: against a service with API keys and one without. Then slow clients by the hundred:
half a head, half a body, and a byte now and then (`slow_clients.py`, a process of its own). A
caller that behaves is served all the while, and its times are printed: beside no slow client,
beside as many as the bar says, and beside --crowd times as many.

Bars: no answer is a failure but for the documented 503; slow clients are closed within 5 s, and
the good caller's p99 beside them stays below 100 ms.

    python benchmarks/abuse.py                    # 20,000 and more bad requests: some minutes
    python benchmarks/abuse.py --requests 1000    # a short look
"""

import asyncio
import collections
import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
from bad_requests import Bad, Generator, Sender
from harness import Process, Report, cpu_of, options, quantile, say, sluicegate, store
from slow_clients import Closed

CONFIG = """
pools:
  good: {models: {m: {rpm: 10000000, concurrency: 1000}}}
  bad:
    models: {m: {rpm: 10000000, tpm: 10000000, concurrency: 100}, "*": {rpm: 100000}}
    tenants: {"*": {tpm: 100000}}
"""
_LEFT_OUT = {"/v1/events", "/v1/live", "/v1/drain"}
"""They have no end; and an order to serve nobody would be obeyed."""

GOOD_EVERY = 0.01
SENDERS = 16
CLOSED_WITHIN = 5.0
GOOD_P99 = 0.1


class Caller:
    """Takes and settles all the time, and notes how long that takes and what goes wrong."""

    def __init__(self, url: str, key: str | None) -> None:
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._url = url
        self.times: list[float] = []
        self.wrong: list[str] = []

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Call until the block is left."""
        over = asyncio.Event()
        task = asyncio.create_task(self._call(over))
        try:
            yield
        finally:
            over.set()
            await task

    async def _call(self, over: asyncio.Event) -> None:
        async with httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=20
        ) as client:
            while not over.is_set():
                await self._once(client)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), GOOD_EVERY)

    async def _once(self, client: httpx.AsyncClient) -> None:
        began = time.perf_counter()
        try:
            taken = await client.post("/v1/acquire", json={"resource": "good/m", "tokens": 1})
            self.times.append(time.perf_counter() - began)
            lease = taken.json().get("lease")
            report = {"lease": lease, "outcome": "success"}
            settled = await client.post("/v1/settle", json=report)
            if (taken.status_code, settled.status_code) != (200, 200):
                self.wrong.append(f"{taken.status_code} {settled.status_code} {taken.text[:200]}")
        except httpx.HTTPError as error:
            self.wrong.append(repr(error))

    def row(self) -> dict[str, Any]:
        """Its figures."""
        return {
            "good calls": len(self.times),
            "not served": len(self.wrong),
            "p50 ms": quantile(self.times, 0.5) * 1000,
            "p99 ms": quantile(self.times, 0.99) * 1000,
            "max ms": max(self.times, default=0.0) * 1000,
        }


class Findings:
    """What must not be."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def add(self, what: str) -> None:
        """Note a failure; the first ones are shown."""
        self.failures.append(what)
        if len(self.failures) <= 20:
            say(f"FAILURE: {what}")


class Shots:
    """Senders that share one supply of bad requests."""

    def __init__(self, url: str, supply: Iterator[Bad], count: int, findings: Findings) -> None:
        self._url, self._supply, self._left, self._findings = url, supply, count, findings
        self.count = 0
        self.kinds: collections.defaultdict[str, collections.Counter[str]] = (
            collections.defaultdict(collections.Counter)
        )

    async def fire(self) -> None:
        """Send all of them."""
        await asyncio.gather(*(self._fire() for _ in range(SENDERS)))

    async def _fire(self) -> None:
        sender = Sender(self._url)
        while self._left > 0:
            self._left -= 1
            bad = next(self._supply)
            answer = await sender.send(bad)
            self.count += 1
            if self.count % 2000 == 0:
                say(f"{self.count:,} bad requests")
            if answer.is_failure:
                what = "is never answered" if answer.stuck else f"gets {answer.status}"
                said = answer.body[:200].decode("utf-8", "replace")
                self._findings.add(
                    f"{bad.kind} {what}: {bad.raw[:300]!r} {bad.frames[:200]!r} {said}"
                )
            self.kinds[bad.kind][_class(answer.status)] += 1
        sender.close()

    def rows(self) -> list[dict[str, Any]]:
        """How each kind was answered."""
        seen = ["2xx", "4xx", "503", "5xx", "closed", "101"]
        return [
            {"kind": kind, "sent": sum(counts.values())} | {each: counts[each] for each in seen}
            for kind, counts in sorted(self.kinds.items())
        ]


def _class(status: int) -> str:
    if status in {0, 101, 503}:
        return {0: "closed", 101: "101", 503: "503"}[status]
    return f"{status // 100}xx"


def from_the_document(url: str, key: str | None, count: int, findings: Findings) -> dict[str, int]:
    """Requests that schemathesis draws from the OpenAPI document, good ones and bad ones."""
    import schemathesis  # noqa: PLC0415  # slow to import
    from hypothesis import HealthCheck, Phase, given, settings  # noqa: PLC0415  # likewise
    from schemathesis import GenerationMode  # noqa: PLC0415  # likewise

    @schemathesis.serializer("application/msgpack")
    def pack(_context: object, value: object) -> bytes:
        try:
            return msgspec.msgpack.encode(value)
        except (OverflowError, UnicodeEncodeError):
            return b"\xc1"

    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    document = httpx.get(f"{url}/openapi.json", headers=headers).json()
    for item in document["paths"].values():
        for operation in item.values():
            operation.pop("security", None)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    operations = [
        each
        for each in (result.ok() for result in schema.get_all_operations())
        if each.path not in _LEFT_OUT and (key or each.path != "/v1/keys")
    ]
    counts: collections.Counter[str] = collections.Counter()
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with contextlib.suppress(Exception):  # some have nothing to spoil
                strategy = operation.as_strategy(generation_mode=mode)

                @given(case=strategy)
                @settings(
                    max_examples=max(1, count // (2 * len(operations))),
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                def send(case: Any) -> None:
                    answer = case.call(headers=headers, timeout=20)
                    counts[_class(answer.status_code)] += 1
                    if answer.status_code >= 500 and answer.status_code != 503:
                        findings.add(f"{case.as_curl_command()} gets {answer.status_code}")

                send()
        name = f"{operation.method.upper()} {operation.path}"
        say(f"{sum(counts.values()):,} from the document, the last ones to {name}")
    return counts


@contextlib.contextmanager
def service(home: Path, *, keys: bool) -> Iterator[tuple[Process, str | None, Path]]:
    """A service over a store of its own, its admin key, and where its errors go."""
    pools = home / "pools.yaml"
    pools.write_text(CONFIG)
    key = f"sg_{secrets.token_hex(4)}_{secrets.token_hex(24)}" if keys else None
    env = {} if key is None else {"SLUICEGATE_ADMIN_KEY": key}
    log = home / "log"
    with store(None) as where, log.open("w") as errors:
        words = ["--config", str(pools), "--redis-url", where.url, "--log-level", "warning"]
        with sluicegate("serve", *words, env=env, stderr=errors) as running:
            yield running, key, log


def is_alive(process: Process) -> bool:
    """Whether it answers as it did before."""
    try:
        return httpx.get(f"{process.url}/livez", timeout=20).status_code == 200
    except httpx.HTTPError:
        return False


async def fire(
    running: Process, key: str | None, count: int, drawn: int, seed: int, findings: Findings
) -> tuple[Shots, dict[str, int], Caller]:
    """Bad requests of both sources, and a good caller beside them."""
    keys = (None,) if key is None else (key, key, None, "sg_ffff_" + "k" * 43, "nonsense")
    shots = Shots(running.url, iter(Generator(seed, keys)), count, findings)
    caller = Caller(running.url, key)
    async with caller.calling():
        await shots.fire()
        counts = await asyncio.to_thread(from_the_document, running.url, key, drawn, findings)
    for wrong in caller.wrong:
        findings.add(f"a good caller is not served: {wrong}")
    return shots, counts, caller


# Slow clients


async def slow(
    running: Process, key: str | None, given: Any, findings: Findings
) -> list[dict[str, Any]]:
    """A good caller, beside nobody and beside waves of them: when those are closed, and how long
    it takes meanwhile.
    """
    rows = []
    for crowd in (0, 1, given.crowd):
        heads, bodies = given.slow_heads * crowd, given.slow_bodies * crowd
        caller = Caller(running.url, key)
        began, cpu = time.perf_counter(), cpu_of(running.pid)
        async with caller.calling():
            closed = await _waves(running.url, key, heads, bodies, given.waves)
        busy = (cpu_of(running.pid) - cpu) / (time.perf_counter() - began)
        for wrong in caller.wrong:
            findings.add(f"a good caller is not served: {wrong}")
        times = [*closed.heads, *closed.bodies]
        late = sum(time > CLOSED_WITHIN for time in times)
        if late or closed.turned_away:
            findings.add(f"{late} of {len(times)} slow clients are open after {CLOSED_WITHIN:g} s")
        found = {
            "slow clients": f"{heads} heads, {bodies} bodies",
            "closed": len(times),
            "after s, heads": max(closed.heads, default=0.0),
            "after s, bodies": max(closed.bodies, default=0.0),
            f"open after {CLOSED_WITHIN:g} s": late,
        }
        rows.append(found | caller.row() | {"cpu of the service": busy, "load": os.getloadavg()[0]})
        say(f"{found['slow clients']}: p99 of the good caller {rows[-1]['p99 ms']:.1f} ms")
        if crowd == 1 and rows[-1]["p99 ms"] > GOOD_P99 * 1000:
            findings.add(f"p99 of the good caller is above {GOOD_P99 * 1000:g} ms")
    return rows


async def _waves(url: str, key: str | None, heads: int, bodies: int, waves: int) -> Closed:
    """Slow clients in a process of their own; or as long as they take, nobody."""
    if not heads + bodies:
        await asyncio.sleep(waves * (CLOSED_WITHIN - 1))
        return Closed()
    command = [sys.executable, str(Path(__file__).with_name("slow_clients.py")), url]
    command += ["--heads", str(heads), "--bodies", str(bodies), "--waves", str(waves)]
    command += [] if key is None else ["--key", key]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    return msgspec.json.decode(told, type=Closed)


def main() -> None:
    """Both parts, with keys and without."""
    parser = options(__doc__)
    parser.add_argument("--requests", type=int, default=24_000, help="bad requests of our own")
    parser.add_argument("--drawn", type=int, default=4000, help="requests from the document")
    parser.add_argument("--slow-heads", type=int, default=300)
    parser.add_argument("--slow-bodies", type=int, default=150)
    parser.add_argument("--waves", type=int, default=3, help="of slow clients")
    parser.add_argument("--crowd", type=int, default=5, help="so many times as many, too")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    report, findings, sent = Report(given.json), Findings(), 0
    for keys in (True, False):
        name = "with API keys" if keys else "without"
        with (
            tempfile.TemporaryDirectory() as home,
            service(Path(home), keys=keys) as (run, key, log),
        ):
            say(f"{name}: bad requests")
            shots, counts, caller = asyncio.run(
                fire(run, key, given.requests // 2, given.drawn // 2, given.seed, findings)
            )
            sent += shots.count + sum(counts.values())
            report.table(f"{name}: bad requests, by how they were answered", shots.rows())
            report.table(
                f"{name}: requests from the document",
                [{"sent": sum(counts.values()), **counts}],
            )
            report.table(f"{name}: a good caller meanwhile", [caller.row()])
            say(f"{name}: slow clients")
            rows = asyncio.run(slow(run, key, given, findings))
            report.table(f"{name}: slow clients, and a good caller beside them", rows)
            if not is_alive(run):
                findings.add("the service does not live any more")
            text = log.read_text()
            for line in text.splitlines():
                if "Traceback" in line:
                    findings.add(f"the log has a traceback: ... {line[-700:]}")
            lines = text.count("\n")
        report.table(f"{name}: the log", [{"lines": lines, "bytes": len(text)}])
    report.table("all", [{"bad requests": sent, "failures": len(findings.failures)}])
    report.close()
    sys.exit(bool(findings.failures))


if __name__ == "__main__":
    main()
