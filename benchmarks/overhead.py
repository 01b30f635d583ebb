"""CPU of the service per acquire, with API keys and without.

    python benchmarks/overhead.py [--acquires 2000] [--rounds 7]

One store and three service processes over it, each with a key prefix of its own: one without
keys, one whose callers send a key, one whose key is bound to a pool and a tenant. Callers are
eight connections in closed loops that acquire over HTTP, one request each: on the channel the
key is shown once. The services take turns, and CPU is that of the process, by the kernel's
count. What the door takes by itself is timed in this process, and is the same whatever else
the machine does.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
from harness import Process, Report, cpu_of, options, say, sluicegate, store

from limiter_service.door import Door
from limiter_service.engine import credentials, ids
from limiter_service.engine.keyring import Keyring
from limiter_service.store.access_commands import AccessCommands, KeyRecord
from limiter_service.store.client import Client

CONFIG = """
pools:
  bench: {models: {m: {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}}}
"""
BODY = b'{"resource": "bench/m", "tokens": 100, "tenant": "t"}'
CONNECTIONS = 8
BOUND = {"pools": ["bench"], "tenants": ["t"]}


def request(key: str | None) -> bytes:
    """An acquire as it goes over the wire."""
    lines = ["POST /v1/acquire HTTP/1.1", "host: bench", "content-type: application/json"]
    lines += [f"content-length: {len(BODY)}", "user-agent: bench", "accept: */*"]
    # Callers without keys send as many bytes: it is the checking that is measured.
    lines += [f"authorization: Bearer {key}" if key else f"x-padding: {'x' * 68}"]
    return "\r\n".join([*lines, "", ""]).encode() + BODY


async def connection(url: str, text: bytes, count: int) -> None:
    """Acquire *count* times over one connection, each time after the other."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    for _ in range(count):
        writer.write(text)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()


async def round_of(process: Process, text: bytes, acquires: int) -> float:
    """Microseconds of the service's CPU per acquire."""
    before, each = cpu_of(process.pid), acquires // CONNECTIONS
    await asyncio.gather(*(connection(process.url, text, each) for _ in range(CONNECTIONS)))
    return (cpu_of(process.pid) - before) / (each * CONNECTIONS) * 1e6


async def compare(
    services: dict[str, tuple[Process, bytes]], acquires: int, rounds: int
) -> dict[str, list[float]]:
    """CPU per acquire of each service, by rounds that take turns."""
    found: dict[str, list[float]] = {name: [] for name in services}
    for process, text in services.values():
        await round_of(process, text, 800)
    for nth in range(rounds):
        order = [*services.items()] if nth % 2 else [*services.items()][::-1]
        for name, (process, text) in order:
            found[name].append(await round_of(process, text, acquires))
        say(f"round {nth + 1} of {rounds}")
    return found


@asynccontextmanager
async def door(url: str) -> AsyncIterator[tuple[Door, str]]:
    """A door in this process, and a key that opens it, among a thousand."""
    client = Client(url, connect_timeout=20, command_timeout=20)
    commands = AccessCommands(client, "door:")
    for _ in range(1000):
        shown = credentials.draw()
        proof = credentials.prove(shown.secret)
        record = KeyRecord(
            id=shown.id,
            name="bench",
            roles=["acquire"],
            salt=proof.salt,
            digest=proof.digest,
            created=0.0,
            created_by="bench",
            expires=1e16,
            pools=BOUND["pools"],
            tenants=BOUND["tenants"],
        )
        await commands.put(record, "bench", "", ids.new_nonce())
    keyring = Keyring(commands, list, grace=60)
    await keyring.look()
    yield Door(keyring, anonymous=False, local=False, metrics_open=False), shown.text
    await client.aclose()


async def by_itself(url: str, calls: int = 20_000) -> float:
    """Microseconds that the door takes for one call: the least of several runs."""
    async with door(url) as (found, key):
        headers = [(b"host", b"bench"), (b"authorization", f"Bearer {key}".encode())]
        scope = {"headers": headers, "path": "/v1/acquire", "client": ("127.0.0.1", 1)}
        runs = []
        for _ in range(7):
            began = time.process_time()
            for _ in range(calls):
                (await found.admit(scope)).reaches("bench/m", "t")
            runs.append((time.process_time() - began) / calls * 1e6)
    return min(runs)


def rows(found: dict[str, Sequence[float]]) -> list[dict[str, float | str]]:
    """Medians, and how they compare with the first: within a round, so that both had the same
    machine.
    """
    (_, base), *_ = found.items()
    return [
        {
            "callers": name,
            "service µs": statistics.median(values),
            "least µs": min(values),
            "against no keys %": 100
            * (statistics.median(v / b for v, b in zip(values, base, strict=True)) - 1),
        }
        for name, values in found.items()
    ]


def main() -> None:
    """Start everything, measure, print."""
    parser = options(__doc__)
    parser.add_argument("--acquires", type=int, default=2000, help="of one round")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    report = Report(given.json)
    with ExitStack() as stack:
        running = stack.enter_context(store(given.server))
        home = Path(stack.enter_context(TemporaryDirectory()))
        (home / "pools.yaml").write_text(CONFIG)
        words = ("serve", "--config", str(home / "pools.yaml"), "--redis-url", running.url)
        services: dict[str, tuple[Process, bytes]] = {}
        for name, order in (("without a key", None), ("with a key", {}), ("bound", BOUND)):
            prefix = {"SLUICEGATE_KEY_PREFIX": f"{name[0]}{len(name)}:"}
            process = stack.enter_context(sluicegate(*words, "--log-level", "error", env=prefix))
            key = None
            if order is not None:
                body = {"name": "bench", "roles": ["acquire"], **order}
                key = httpx.post(f"{process.url}/v1/keys", json=body, timeout=20).json()["key"]
            services[name] = process, request(key)
        found = asyncio.run(compare(services, given.acquires, given.rounds))
        alone = asyncio.run(by_itself(running.url))
    report.table("CPU of the service per acquire over HTTP", rows(found))
    least = min(found["without a key"])
    report.table(
        "The door by itself, with a thousand keys",
        [{"": "per call", "µs": alone, "of an acquire %": 100 * alone / least}],
    )
    report.close()


if __name__ == "__main__":
    main()
